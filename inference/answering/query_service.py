"""Searches and answers questions from a release, and hands each answer to whoever records it."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from inference.answering.answer import (
    Answer,
    AnsweredRelease,
    AnswerRecord,
    answer_question,
    validate_question,
)
from inference.answering.release_models import ReleaseModels
from inference.engines.generator import EngineConfig, build_engine
from inference.engines.protocol import Engine
from retrieval.index.index import Index, IndexRelease
from retrieval.rerank.reranker import Reranker, RerankerConfig
from retrieval.rerank.reranking import RerankedHits, build_reranker, search_and_rerank
from retrieval.search.as_of import release_as_of
from retrieval.search.query import SearchQuery
from retrieval.search.searcher import RetrievalMode, Searcher, SearchHit
from retrieval.search.snapshot import NoLiveSnapshot
from retrieval.search.vector_search import VectorSearchPlan

logger = logging.getLogger(__name__)

SearchMode = RetrievalMode | Literal["reranked"]

PASSAGES_PER_QUESTION = 10
"""How many chunks are retrieved for a question."""


@dataclass(frozen=True)
class QueryServiceResult:
    """What was retrieved for a question.

    Attributes:
        hits: The chunks, best first.
        mode: How they were found: `hybrid` also where a reranker was asked and failed.
    """

    hits: list[SearchHit]
    mode: SearchMode


class QueryService:
    """Searches and answers over one index. Models are loaded on first use and kept.

    Args:
        index: The index, which knows its releases.
        searcher: Searches it.
        models: The embedding models of releases.
        reranker: The reranker's configuration.
        generator: The engine's configuration.
        record: Called with every answer before it is returned.
        commit: Called when the service is closed.
    """

    def __init__(
        self,
        index: Index,
        searcher: Searcher,
        models: ReleaseModels,
        reranker: RerankerConfig,
        generator: EngineConfig,
        record: Callable[[AnswerRecord], object],
        commit: Callable[[], object],
    ) -> None:
        self.index = index
        self._searcher = searcher
        self._models = models
        self._reranker_config = reranker
        self._generator_config = generator
        self._record = record
        self._commit = commit

    def __enter__(self) -> "QueryService":
        """Returns the service itself; leaving the `with` block closes it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Has the answers that were given committed."""
        self._commit()

    def live_release(self) -> IndexRelease:
        """Returns the release that answers come from.

        Raises:
            NoLiveSnapshot: When there is none yet.
        """
        release = self.index.live()
        if release is None:
            raise NoLiveSnapshot("nothing is released yet: `headwater demo`, or `headwater ingest PATH`")
        return release

    @property
    def default_mode(self) -> SearchMode:
        """The mode questions are searched in: `reranked` where a reranker is configured, else `hybrid`."""
        return "reranked" if self._reranker_config.configured else "hybrid"

    @cached_property
    def engine(self) -> Engine:
        """The engine that writes answers; a local model is loaded here, once.

        Raises:
            EngineError: When the local model can't be loaded.
        """
        return build_engine(self._generator_config, self._models.current.embedder)

    @cached_property
    def _reranker(self) -> Reranker:
        return build_reranker(self._reranker_config)

    def release_as_of(self, moment: str) -> IndexRelease:
        """Returns the release that has this name, or that was live at this time.

        Raises:
            InvalidAsOf: When it is neither a release nor a time, or a time in the future.
            UnknownIndexRelease: When nothing was live then, or what was is no longer kept.
            NoLiveSnapshot: When there is no release at all.
        """
        self.live_release()
        releases, history = self.index.releases(), self.index.live_history()
        return release_as_of(moment, releases, history, datetime.now(UTC))

    def search(
        self,
        query: str | SearchQuery,
        k: int,
        mode: SearchMode,
        tenant: str,
        at: IndexRelease | None = None,
        groups: Collection[str] = (),
        on_plan: Callable[[VectorSearchPlan], object] = lambda plan: None,
        on_reranked: Callable[[RerankedHits], object] = lambda reranked: None,
    ) -> list[SearchHit]:
        """Returns the best chunks of a release, the live one by default; see `Searcher.search`.

        Mode `reranked` searches `hybrid` and has the reranker order the best. Where the reranker fails or is
        late, the fused order stands and a warning is logged; `on_reranked` is called with the outcome.

        Raises:
            QueryModelMismatch: When the release was made with a model that is no longer there.
            RerankError: When there is no reranker, or its folder does not hold one.
        """
        reranker = self._reranker if mode == "reranked" else None
        release = at or self.live_release()
        query = SearchQuery.parse(query) if isinstance(query, str) else query
        vector, digest = None, self._models.current.digest
        if mode != "lexical" and query.words:
            model = self._models.model_of(release)
            vector, digest = model.embedder.encode([query.words])[0], model.digest

        def first_stage(depth: int) -> list[SearchHit]:
            return self._searcher.search(
                tenant,
                query,
                vector,
                depth,
                "hybrid" if mode == "reranked" else mode,
                release,
                model_digest=digest,
                on_plan=on_plan,
                groups=groups,
            )

        if reranker is None:
            return first_stage(k)
        reranked = search_and_rerank(first_stage, query.words, k, reranker, self._reranker_config)
        on_reranked(reranked)
        if reranked.fallback_reason:
            logger.warning("not reranked, the fused order stands: %s", reranked.fallback_reason)
        return reranked.hits

    def retrieve_passages(
        self,
        question: str,
        tenant: str,
        at: IndexRelease,
        groups: Collection[str] = (),
        mode: SearchMode | None = None,
    ) -> QueryServiceResult:
        """Returns the chunks that a question is answered from.

        Every character of a question is meant as it stands: quotes and hyphens are no query language here.

        Args:
            question: In plain words.
            tenant: Whose documents to search.
            at: The release.
            groups: The groups that the asker is in.
            mode: How to search; None for the default mode.

        Raises:
            QueryModelMismatch: As in `search`.
            RerankError: As in `search`.
        """
        outcomes: list[RerankedHits] = []
        hits = self.search(
            SearchQuery.plain(question),
            PASSAGES_PER_QUESTION,
            mode := mode or self.default_mode,
            tenant,
            at,
            groups,
            on_reranked=outcomes.append,
        )
        if any(outcome.fallback_reason for outcome in outcomes):
            mode = "hybrid"
        return QueryServiceResult(hits, mode)

    def ask(
        self,
        question: str,
        tenant: str,
        at: IndexRelease | None = None,
        groups: Collection[str] = (),
    ) -> Answer:
        """Answers a question from a release and records the answer.

        Args:
            question: In plain words.
            tenant: Whose documents to search.
            at: The release; None for the live one.
            groups: The groups that the asker is in.

        Raises:
            InvalidQuestion: When it is empty or too long.
            NoLiveSnapshot: When there is nothing to answer from.
            EngineError: When the configured generator fails.
        """
        question = validate_question(question)
        release = at or self.live_release()
        passages = self.retrieve_passages(question, tenant, release, groups)
        versions = release.details.versions
        pin = AnsweredRelease(release.release_id, release.details.model_digest, versions["silver.documents"])
        answer = answer_question(question, passages.hits, self.engine, pin)
        self._record(
            AnswerRecord(
                answer=answer,
                question=question,
                tenant=tenant,
                groups=tuple(groups),
                retrieved=tuple(hit.chunk_id for hit in passages.hits),
                search_mode=passages.mode,
                versions=versions,
                answered_at=datetime.now(UTC),
            )
        )
        return answer
