"""The Dagster resources, made from the settings: one of each per process."""

from typing import Any

import dagster as dg

from assets.lake.lake import Lake
from assets.sources.source_registry import SourceRegistry
from orchestration.automation.alerts import FailureAlert
from orchestration.automation.dead_runs import run_process_tags
from orchestration.settings import Settings, open_configured_lake
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.search.searcher import Searcher
from retrieval.store.postgres import Postgres


def dagster_resources(settings: Settings) -> dict[str, Any]:
    """Returns the resources of the definitions, by name; nothing starts before an asset needs it."""
    postgres = Postgres(settings.home, settings.postgres)
    made = {
        "recipe": settings.recipe,
        "sources": SourceRegistry(settings.sources_file),
        "model": EmbeddingModel.of(settings.recipe.embedder, settings.home),
        "search_index": Index(postgres),
        "searcher": Searcher(postgres, settings.recipe.search),
        "releases_kept": settings.releases_kept,
        "max_shrink": settings.max_shrink,
        "retention_days": settings.retention_days,
        "alert": FailureAlert(settings.alert_webhook, tuple(settings.alert_command)),
    }
    hardcoded = {name: dg.ResourceDefinition.hardcoded_resource(value) for name, value in made.items()}

    def lake(context: dg.InitResourceContext) -> Lake:
        # Every run needs the lake first: from here on its process is known, and can be found dead.
        if context.run is not None and context.instance is not None:
            context.instance.add_run_tags(context.run.run_id, run_process_tags())
        return open_configured_lake(settings)

    return hardcoded | {"lake": dg.ResourceDefinition(lake)}
