"""The Dagster code location: every asset, gate, schedule and sensor of one state folder."""

import logging
from collections.abc import Sequence

import dagster as dg

from assets import bronze, gold, models, ops, serving, silver
from assets.dagster.conservation import conservation_check
from assets.dagster.drift import drift_checks
from assets.dagster.gates import build_table_gates
from assets.dagster.sources import SOURCE_DOCUMENTS, source_asset_specs, source_key
from assets.dagster.training import training_set_gate
from assets.sources.source_config import Source, SourceError
from assets.sources.source_registry import SourceRegistry
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

logger = logging.getLogger(__name__)

ASSETS = [
    bronze.source_documents_asset,
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
    models.embedder_asset,
    models.generator_asset,
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
        assets=_owned_assets(settings),
        asset_checks=[
            *build_table_gates(UserSuites(settings.user_suites_folder).list()),
            conservation_check,
            serving.indexed_chunks_asset_check,
            ops.retrieval_quality_asset_check,
            training_set_gate,
            models.embedder_compared_asset_check,
            models.generator_compared_asset_check,
            models.models_agree_asset_check,
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


def _owned_assets(settings: Settings) -> Sequence[dg.AssetsDefinition | dg.AssetSpec]:
    """Returns the assets with their owner, after the sources that bronze is made from."""
    sources = _known_sources(settings)
    readers = {SOURCE_DOCUMENTS, bronze.raw_documents_asset.key}

    def owned(spec: dg.AssetSpec) -> dg.AssetSpec:
        read = [source_key(source.name) for source in sources] if spec.key in readers else []
        return spec.merge_attributes(owners=[settings.owner], deps=read)

    return dg.map_asset_specs(owned, [*source_asset_specs(sources), *ASSETS])


def _known_sources(settings: Settings) -> Sequence[Source]:
    """Returns the sources; none of a file that can not be read, about which each run says what is wrong."""
    try:
        return SourceRegistry(settings.sources_file).list()
    except SourceError as error:
        logger.warning("the graph has no sources: %s", error)
        return ()


@dg.definitions
def defs() -> dg.Definitions:
    """Returns the definitions over the state folder of the environment; a run builds its own over its own."""
    return build_definitions(Settings())
