"""What the assets are given, made from the settings: one of each a process."""

from typing import Any

import dagster as dg

from assets.transforms.registry import SourceRegistry
from orchestration.settings import Settings, open_lake
from retrieval.embedding_model import EmbeddingModel
from retrieval.index import Index
from retrieval.postgres import Postgres
from retrieval.search import Searcher


def resources(settings: Settings) -> dict[str, Any]:
    """The resources of the definitions, by name; nothing starts before an asset asks for it."""
    postgres = Postgres(settings.home, settings.postgres)
    made = {
        "recipe": settings.recipe,
        "sources": SourceRegistry(settings.sources_file),
        "model": EmbeddingModel.of(settings.recipe.embedder, settings.home),
        "search_index": Index(postgres),
        "searcher": Searcher(postgres, settings.recipe.search),
        "releases_kept": settings.releases_kept,
    }
    hardcoded = {name: dg.ResourceDefinition.hardcoded_resource(value) for name, value in made.items()}
    return hardcoded | {"lake": dg.ResourceDefinition(lambda _: open_lake(settings))}
