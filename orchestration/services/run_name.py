"""What a run is called where a person reads about it: Dagster calls one of a few assets `__ASSET_JOB`."""

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import is_reserved_asset_job_name

_NAMED = 3
"""The most assets or checks that a name lists."""


def run_name(run: dg.DagsterRun) -> str:
    """Returns the name of a run's job, or what it makes: "gold/chunks, gold/embeddings and 2 more"."""
    if not is_reserved_asset_job_name(run.job_name):
        return run.job_name
    made = sorted(key.to_user_string() for key in run.asset_selection or ())
    checked = sorted(
        f"check {key.name} of {key.asset_key.to_user_string()}" for key in run.asset_check_selection or ()
    )
    # The checks of assets that it makes go with them.
    names = made or checked
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more or "all assets"
