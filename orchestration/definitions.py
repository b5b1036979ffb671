"""The Dagster code location: every asset, gate, schedule and sensor of one state folder."""

import dagster as dg

from assets import bronze, gold, ops, serving, silver
from assets.dagster.conservation import conservation_check
from assets.dagster.drift import drift_checks
from assets.dagster.gates import build_table_gates
from orchestration.automation.jobs import answers_job, maintenance_job, refresh_job
from orchestration.automation.schedules import daily_schedule, nightly_schedule
from orchestration.automation.sensors import (
    arrivals_sensor,
    automation_sensor,
    dead_runs_sensor,
    failed_run_sensor,
)
from orchestration.resources import dagster_resources
from orchestration.settings import Settings
from quality.user_suites import UserSuites

ASSETS = [
    bronze.raw_documents_asset,
    silver.documents_asset,
    silver.signatures_asset,
    silver.duplicates_asset,
    gold.chunks_asset,
    gold.embeddings_asset,
    serving.index_asset,
    ops.release_asset,
    gold.training_examples_asset,
    gold.answers_asset,
]


def build_definitions(
    settings: Settings, loggers: dict[str, dg.LoggerDefinition] | None = None
) -> dg.Definitions:
    """Returns the definitions over one state folder.

    Args:
        settings: The settings of the state folder.
        loggers: The loggers of runs; Dagster's console logger unless given.
    """
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=[
            *build_table_gates(UserSuites(settings.user_suites_folder).list()),
            conservation_check,
            serving.indexed_chunks_asset_check,
            ops.retrieval_quality_asset_check,
            *drift_checks(settings.recipe.drift),
        ],
        jobs=[refresh_job, answers_job, maintenance_job],
        schedules=[daily_schedule, nightly_schedule],
        sensors=[arrivals_sensor, automation_sensor, dead_runs_sensor, failed_run_sensor],
        resources=dagster_resources(settings),
        loggers=loggers,
        # One process per run, so that there is one Spark session per run.
        executor=dg.in_process_executor,
    )


defs = build_definitions(Settings())
