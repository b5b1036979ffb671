"""The one code location: every asset, gate, schedule and sensor, over the resources of one state folder."""

import dagster as dg

from assets import bronze, gold, ops, serving, silver
from assets.dagster.checks import GATES, conservation
from assets.dagster.drift import drift_checks
from orchestration.automation.automation import (
    alerts,
    arrivals,
    automations,
    daily,
    maintenance,
    nightly,
    reaper,
    refresh,
)
from orchestration.resources import resources
from orchestration.settings import Settings

ASSETS = [
    bronze.raw_documents,
    silver.documents,
    silver.signatures,
    silver.duplicates,
    gold.chunks,
    gold.embeddings,
    serving.index,
    ops.release,
]

CHECKS = [*GATES, conservation, ops.retrieval_quality]


def definitions(settings: Settings, loggers: dict[str, dg.LoggerDefinition] | None = None) -> dg.Definitions:
    """The definitions over one state folder.

    Args:
        settings: Of the state folder.
        loggers: Who hears of a run; Dagster's own console unless given.
    """
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=[*CHECKS, *drift_checks(settings.recipe.drift)],
        jobs=[refresh, maintenance],
        schedules=[daily, nightly],
        sensors=[arrivals, automations, reaper, alerts],
        resources=resources(settings),
        loggers=loggers,
        # One process a run, so that there is one Spark session a run.
        executor=dg.in_process_executor,
    )


defs = definitions(Settings())
