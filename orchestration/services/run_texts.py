"""What a person reads about a run: its name, as Dagster's can be `__ASSET_JOB`, and why it failed."""

import re
from collections.abc import Iterable

import dagster as dg
from dagster import DagsterEventType
from dagster._core.definitions.assets.job.asset_job import is_reserved_asset_job_name
from dagster_shared.error import SerializableErrorInfo

_NAMED = 3
"""The most assets or checks that a name lists."""
_JVM_LOST = ("ConnectionRefusedError", "ConnectionResetError", "Py4JNetworkError")
"""What py4j raises when its process is gone."""


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


def step_name(step_key: str | None) -> str:
    """Returns the name of a step as assets are called everywhere else: `silver/documents`."""
    return (step_key or "").replace("__", "/", 1)


def said_of_error(error: SerializableErrorInfo) -> str:
    """Returns the message of an error without its class; a stop and a lost JVM are explained."""
    if error.cls_name == "DagsterExecutionInterruptedError":
        return "stopped by a signal; `headwater run` continues from what was committed"
    by_py4j = any("py4j" in line for line in error.stack)
    gone = error.cls_name == "Py4JError" and "does not exist in the JVM" in error.message
    if gone or (by_py4j and error.cls_name in _JVM_LOST):
        return (
            "Spark's JVM has ended: it was killed, or the machine had no memory left for it "
            "(HEADWATER_SPARK__DRIVER_MEMORY is its limit); run again: it continues from what was committed"
        )
    # Dagster writes "package.module.Class: " before it.
    return re.sub(rf"^[\w.]*\b{re.escape(error.cls_name or '')}: ", "", error.message.strip())


def stops_run(check: dg.AssetCheckEvaluation) -> bool:
    """Returns whether a check fails the run where it has not passed."""
    return check.blocking or check.severity == dg.AssetCheckSeverity.ERROR


def said_of_check(check: dg.AssetCheckEvaluation) -> str:
    """Returns which check has not passed, and what it observed."""
    seen = check.metadata.get("observed")
    detail = check.description or (f"observed {seen.value}" if seen else "no detail")
    return f"gate {check.asset_key.to_user_string()}: {check.check_name} failed: {detail}"


def run_failures(events: Iterable[dg.DagsterEvent]) -> list[str]:
    """Returns why a run failed: a line per failed step and per failed check that is more than a warning."""
    found = []
    for event in events:
        if event.event_type == DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            if error is not None and error.cls_name == "DagsterAssetCheckFailedError":
                continue  # it counts the checks that failed, which have lines of their own
            found.append(
                f"{step_name(event.step_key)}: {said_of_error(error.cause or error) if error else 'failed'}"
            )
        elif event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed and stops_run(check):
                found.append(said_of_check(check))
        elif event.event_type == DagsterEventType.RUN_FAILURE and not found:
            error = getattr(event.event_specific_data, "error", None)  # none of a run whose process died
            said = said_of_error(error.cause or error) if error else event.message
            found += [said] if said else []
    return found
