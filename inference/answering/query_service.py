"""Searches and answers questions from a release, and hands each answer to whoever records it."""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

from inference.answering.answer import Answer, ReleasePin, answer_question, validate_question
from inference.answering.release_models import ReleaseModels
from inference.engines.generator import GeneratorConfig, build_engine
from inference.engines.protocol import Engine
from retrieval.index.index import Index, IndexRelease
from retrieval.rerank.reranker import Reranker, RerankerConfig
from retrieval.rerank.reranking import RerankedHits, build_reranker, search_and_rerank
from retrieval.search.as_of import release_as_of
from retrieval.search.query import SearchQuery
from retrieval.search.searcher import RetrievalMode, Searcher, SearchHit
from retrieval.search.snapshot import NoLiveRelease
from retrieval.search.vector_search import VectorSearchPlan

logger = logging.getLogger(__name__)

SearchMode = RetrievalMode | Literal["reranked"]

PASSAGES_PER_QUESTION = 10
"""How many chunks are retrieved for a question."""


@dataclass(frozen=True)
class AnswerRecord:
    """An answer with all that is recorded of it.

    Attributes:
        answer: The answer.
        question: The question, as it was asked.
        tenant: Whose documents were searched.
        groups: The groups that the asker is in.
        retrieved: The ids of the chunks that the answer was chosen from, best first.
        versions: The version of every table that the release was made from.
        answered_at: The time, in UTC.
    """

    answer: Answer
    question: str
    tenant: str
    groups: tuple[str, ...]
    retrieved: tuple[str, ...]
    versions: dict[str, int]
    answered_at: datetime


class QueryService:
    """Searches and answers over one index. Models are loaded on first use and kept.

    Args:
        index: The index, which knows its releases.
        searcher: Searches it.
        models: The embedding models of releases.
        reranker: The reranker's configuration.
        generator: The engine's configuration.
        record: Called with every answer that is given.
    """

    def __init__(
        self,
        index: Index,
        searcher: Searcher,
        models: ReleaseModels,
        reranker: RerankerConfig,
        generator: GeneratorConfig,
        record: Callable[[AnswerRecord], object],
    ) -> None:
        self.index = index
        self._searcher = searcher
        self._models = models
        self._reranker_config = reranker
        self._generator_config = generator
        self._record = record

    def live_release(self) -> IndexRelease:
        """Returns the release that answers come from.

        Raises:
            NoLiveRelease: When there is none yet.
        """
        release = self.index.live()
        if release is None:
            raise NoLiveRelease("nothing is released yet: `headwater demo`, or `headwater ingest PATH`")
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
            UnknownRelease: When nothing was live then, or what was is no longer kept.
            NoLiveRelease: When there is no release at all.
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
        self, question: str, tenant: str, at: IndexRelease, groups: Collection[str] = ()
    ) -> list[SearchHit]:
        """Returns the chunks that a question is answered from, best first.

        Every character of a question is meant as it stands: quotes and hyphens are no query language here.
        """
        query = SearchQuery.plain(question)
        return self.search(query, PASSAGES_PER_QUESTION, self.default_mode, tenant, at, groups)

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
            NoLiveRelease: When there is nothing to answer from.
            EngineError: When the configured generator fails.
        """
        question = validate_question(question)
        release = at or self.live_release()
        hits = self.retrieve_passages(question, tenant, release, groups)
        versions = release.details.versions
        pin = ReleasePin(release.release_id, release.details.model_digest, versions["silver.documents"])
        answer = answer_question(question, hits, self.engine, pin)
        retrieved = tuple(hit.chunk_id for hit in hits)
        self._record(
            AnswerRecord(answer, question, tenant, tuple(groups), retrieved, versions, datetime.now(UTC))
        )
        return answer
