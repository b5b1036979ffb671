"""The Dagster resources, made from the settings: one of each per process."""

import contextlib
from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.answers.batches import AnswerBatches
from assets.answers.journal import AnswerJournal
from assets.dagster.worker_launch import launch_by_pipes
from assets.engine_releases import answering_engine, approved_engine
from assets.lake.lake import Lake
from assets.sources.source_registry import SourceRegistry
from assets.training_sets.teachers import TeacherModels
from common.model_memory import MODEL_MEMORY
from inference.answering.query_service import QueryService
from inference.answering.release_models import ReleaseModels
from inference.engines.worker.engine import Workplace
from orchestration.automation.alerts import FailureAlert
from orchestration.automation.dead_runs import run_process_tags
from orchestration.settings import Settings, open_configured_lake, settings_of_next_run
from orchestration.stepping_down import step_down_adapters
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.search.searcher import Searcher
from retrieval.store.postgres import Postgres
from training.datasets.requests import DatasetRequests
from training.registry.live_adapters import LiveAdapters


def dagster_resources(settings: Settings) -> dict[str, Any]:
    """Returns the resources of the definitions, by name; nothing starts before an asset needs it."""
    settings = settings_of_next_run(settings)
    MODEL_MEMORY.budget_bytes = settings.model_memory_bytes
    postgres = Postgres(settings.home, settings.postgres)
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    index, searcher = Index(postgres), Searcher(postgres, settings.recipe.search)
    models = ReleaseModels(model, settings.home)
    made = {
        "recipe": settings.recipe,
        "sources": SourceRegistry(settings.sources_file),
        "model": model,
        "search_index": index,
        "searcher": searcher,
        "releases_kept": settings.releases_kept,
        "max_shrink": settings.max_shrink,
        "retention_days": settings.retention_days,
        "query_service": QueryService(
            index,
            searcher,
            models,
            settings.reranker,
            lambda: answering_engine(index.log, settings.generator).answering,
            lambda: approved_engine(index.log),
            record=AnswerJournal(settings.answers_dir).add,
            close=lambda: None,  # the journal is committed when the lake is opened
            workplace=Workplace(settings.worker_dir, launch_by_pipes),
            adapters=LiveAdapters(settings.training_place.registry, index.log),
        ),
        "release_models": models,
        "dataset_requests": DatasetRequests(settings.datasets_folder),
        "teacher_models": TeacherModels(settings.generator.extractive.scorer, settings.reranker),
        "training_place": settings.training_place.launching_by(launch_by_pipes),
        "engine_config": settings.generator,
        "answer_batches": AnswerBatches(settings.batches_dir),
        "alert": FailureAlert(settings.alert_webhook, tuple(settings.alert_command)),
    }
    hardcoded = {name: dg.ResourceDefinition.hardcoded_resource(value) for name, value in made.items()}

    @contextlib.contextmanager
    def lake(context: dg.InitResourceContext) -> Iterator[Lake]:
        # Every run needs the lake first: from here on its process is known, and can be found dead.
        if context.run is not None and context.instance is not None:
            context.instance.add_run_tags(context.run.run_id, run_process_tags())
            step_down_adapters(settings, (context.log or dg.get_dagster_logger()).warning)
        try:
            yield open_configured_lake(settings)
        finally:
            # A process that executes many runs would hold the connections of each.
            postgres.close()

    return hardcoded | {"lake": dg.ResourceDefinition(lake)}
