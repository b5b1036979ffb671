"""Searches and asks the index of a state folder, by a query service with its models and its journal."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from assets.answers.journal import JOURNAL_ANSWERS, AnswerJournal
from assets.engine_releases import answering_engine_config, approved_engine_digest
from inference.answering.answer import Answer, AnswerRecord
from inference.answering.query_service import QueryService
from inference.answering.release_models import ReleaseModels
from inference.answering.retrieval_settings import SearchMode
from inference.engines.generator import EngineConfig
from inference.engines.worker.engine import Workplace
from orchestration.settings import Settings, open_configured_lake
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.rerank.reranking import RerankedHits
from retrieval.search.query import SearchQuery
from retrieval.search.searcher import Searcher, SearchHit
from retrieval.search.vector_search import VectorSearchPlan
from retrieval.store.postgres import Postgres
from training.registry.live_adapters import LiveAdapters


def open_ask_service(settings: Settings, engine: EngineConfig | None = None) -> QueryService:
    """Returns the query service of a state folder.

    Closing it commits the answers that it gave, and closes its connections to the index.

    Args:
        settings: The settings of the state folder.
        engine: The engine that answers, approved or not; the live one if None.
    """
    journal = AnswerJournal(settings.answers_dir)

    def record(answer: AnswerRecord) -> None:
        if journal.add(answer) >= JOURNAL_ANSWERS:
            commit()

    def commit() -> None:
        if not journal.is_empty():
            open_configured_lake(settings)  # which commits the journal

    def close() -> None:
        try:
            commit()
        finally:
            postgres.close()

    postgres = Postgres(settings.home, settings.postgres)
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    return QueryService(
        Index(postgres),
        Searcher(postgres, settings.recipe.search),
        ReleaseModels(model, settings.home),
        settings.reranker,
        lambda: engine or answering_engine_config(open_configured_lake(settings), settings.generator),
        lambda: (
            None if engine else approved_engine_digest(open_configured_lake(settings), settings.generator)
        ),
        record,
        close,
        Workplace(settings.worker_dir),
        LiveAdapters(settings.training_place.registry),
    )


@dataclass(frozen=True)
class FoundChunks:
    """The chunks that a search found, and how it looked for them.

    Attributes:
        hits: The chunks, best first.
        mode: The mode that was asked for, or the default one.
        plan: How vectors were compared; None where none were.
        reranked: What the reranker did; None where none was asked.
    """

    hits: list[SearchHit]
    mode: SearchMode
    plan: VectorSearchPlan | None
    reranked: RerankedHits | None


def search_release(
    service: QueryService,
    query: str,
    k: int,
    mode: SearchMode | None,
    tenant: str,
    groups: Collection[str],
    as_of: str | None,
    fit_only: bool,
) -> FoundChunks:
    """Returns the chunks of a release that match a query.

    Args:
        service: The query service.
        query: Words, `"a phrase"`, and `-word` for one that must not occur.
        k: How many chunks to find.
        mode: How to rank; None for the default mode.
        tenant: The tenant whose documents are searched.
        groups: The user's groups.
        as_of: A release or a time in ISO 8601; None for the live release.
        fit_only: Whether documents that are not fit for training are left out.

    Raises:
        InvalidSearchQuery: The query has no word to look for.
        InvalidAsOf: `as_of` is neither a release nor a time.
        NoLiveSnapshot: Nothing is released yet.
        RerankError: The mode is `reranked`, and no reranker is configured.
    """
    plans: list[VectorSearchPlan] = []
    looks: list[RerankedHits] = []
    mode = mode or service.retrieval.mode
    at = service.release_as_of(as_of) if as_of is not None else None
    asked = replace(SearchQuery.parse(query), fit_only=fit_only)
    hits = service.search(asked, k, mode, tenant, at, groups, plans.append, looks.append)
    return FoundChunks(hits, mode, plans[0] if plans else None, looks[0] if looks else None)


def ask_release(
    service: QueryService, question: str, tenant: str, groups: Collection[str], as_of: str | None
) -> Answer:
    """Returns the answer to a question from a release, with citations; it is recorded.

    Args:
        service: The query service.
        question: The question, in plain words.
        tenant: The tenant whose documents are searched.
        groups: The user's groups.
        as_of: A release or a time in ISO 8601; None for the live release.

    Raises:
        InvalidQuestion: The question is empty or too long.
        InvalidAsOf: `as_of` is neither a release nor a time.
        NoLiveSnapshot: Nothing is released yet.
        EngineError: The engine fails.
    """
    at = service.release_as_of(as_of) if as_of is not None else None
    return service.ask(question, tenant, at, groups)
