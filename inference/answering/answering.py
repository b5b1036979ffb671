"""A question from the command line or a service: retrieved from a release, answered, kept."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

import pyarrow as pa

from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION, Lineage
from assets.lake.tables import ANSWERS
from inference.answering.answer import Answer, ReleasePin, answer_question, checked_question
from inference.engines.engines import build_engine
from orchestration.settings import Settings, open_lake
from retrieval.access import encode_access_groups
from retrieval.embedding.embedder import EmbedderConfig
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index, IndexRelease
from retrieval.rerank.reranker import Reranker
from retrieval.rerank.reranking import RerankedHits, build_reranker, search_and_rerank
from retrieval.search.as_of import release_as_of
from retrieval.search.query import SearchQuery
from retrieval.search.searcher import QueryModelMismatch, RetrievalMode, Searcher, SearchHit
from retrieval.search.snapshot import NoLiveRelease
from retrieval.search.vector_search import VectorSearchPlan
from retrieval.store.postgres import Postgres

logger = logging.getLogger(__name__)

SearchMode = RetrievalMode | Literal["reranked"]

PASSAGES = 10
"""Chunks retrieved for a question."""


class Desk:
    """Searches and answers over one state folder; the models are loaded once.

    Args:
        settings: Of the state folder.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._postgres = Postgres(settings.home, settings.postgres)
        self.index = Index(self._postgres)
        self._searcher = Searcher(self._postgres, settings.recipe.search)
        self._model = EmbeddingModel.of(settings.recipe.embedder, settings.home)

    def live(self) -> IndexRelease:
        """The release that answers come from.

        Raises:
            NoLiveRelease: When there is none yet.
        """
        release = self.index.live()
        if release is None:
            raise NoLiveRelease("nothing is released yet: `headwater demo`, or `headwater ingest PATH`")
        return release

    @property
    def best_mode(self) -> SearchMode:
        """What a question is searched with: both rankings, and a second look where one is configured."""
        return "reranked" if self._settings.reranker.configured else "hybrid"

    @cached_property
    def _reranker(self) -> Reranker:
        return build_reranker(self._settings.reranker)

    def as_of(self, moment: str) -> IndexRelease:
        """The release that a moment means: its name, or a time at which it was live.

        Raises:
            InvalidAsOf: When it is neither, or a time to come.
            UnknownRelease: When nothing was live then, or what was is no longer kept.
            NoLiveRelease: When there is nothing at all.
        """
        self.live()
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
        on_reranked: Callable[[RerankedHits], object] = lambda looked: None,
    ) -> list[SearchHit]:
        """The best chunks of a release, the live one unless given; see `Searcher.search`.

        Mode `reranked` is `hybrid` and a second look. Where that fails or is late, the fused order stands and
        a warning is logged; `on_reranked` is called with what came of it.

        Raises:
            QueryModelMismatch: When the release was made with a model that is no longer there.
            RerankError: There is no reranker, or its folder is not one.
        """
        reranker = self._reranker if mode == "reranked" else None
        release = at or self.live()
        query = SearchQuery.parse(query) if isinstance(query, str) else query
        vector, digest = None, self._model.digest
        if mode != "lexical" and query.words:
            model = self._model_of(release)
            vector, digest = model.embedder.encode([query.words])[0], model.digest

        def ranked(depth: int) -> list[SearchHit]:
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
            return ranked(k)
        looked = search_and_rerank(ranked, query.words, k, reranker, self._settings.reranker)
        on_reranked(looked)
        if looked.fallback_reason:
            logger.warning("not reranked, the fused order stands: %s", looked.fallback_reason)
        return looked.hits

    def ask(
        self,
        question: str,
        tenant: str,
        at: IndexRelease | None = None,
        groups: Collection[str] = (),
    ) -> Answer:
        """Answers a question from a release and keeps the answer in `gold.answers`.

        Args:
            question: In plain words.
            tenant: Whose documents.
            at: The release; None for the live one.
            groups: Those that the user is in.

        Raises:
            BadQuestion: When it is empty or too long.
            NoLiveRelease: When there is nothing to answer from.
            EngineError: When the configured generator fails.
        """
        question = checked_question(question)
        release = at or self.live()
        # Of a question every character is meant: its quotes and hyphens are not ours.
        hits = self.search(SearchQuery.plain(question), PASSAGES, self.best_mode, tenant, release, groups)
        pin = ReleasePin(
            release.release_id,
            release.details["model_digest"],
            release.details["versions"]["silver.documents"],
        )
        engine = build_engine(self._settings.generator, self._model.embedder)
        answer = answer_question(question, hits, engine, pin)
        keep(self._lake, answer, question, tenant, release, hits, groups)
        return answer

    @cached_property
    def _lake(self) -> Lake:
        return open_lake(self._settings)

    def _model_of(self, release: IndexRelease) -> EmbeddingModel:
        """The model that a release's vectors are from: the one in use, or where it was when released."""
        wanted = release.details["model_digest"]
        if wanted == self._model.digest:
            return self._model
        config = EmbedderConfig.model_validate(release.details.get("embedder", {}))
        if config.model.is_dir():
            model = EmbeddingModel.of(config, self._settings.home)
            if model.digest == wanted:
                return model
        raise QueryModelMismatch(
            f"release {release.release_id} was made with model {wanted}, which is not at {config.model} any "
            "more: put it there again, or search with --mode lexical"
        )


def keep(
    lake: Lake,
    answer: Answer,
    question: str,
    tenant: str,
    release: IndexRelease,
    hits: Sequence[SearchHit],
    groups: Collection[str],
) -> None:
    """Appends an answer to `gold.answers`, with what it was chosen from and the versions behind that."""
    row = {
        "answer_id": answer.answer_id,
        "tenant": tenant,
        "question": question,
        "answer": answer.answer,
        "refused": answer.refused,
        "engine": answer.engine,
        "citations": [asdict(citation) for citation in answer.citations],
        "release_id": answer.release,
        "model_digest": answer.model_digest,
        "retrieved": [hit.chunk_id for hit in hits],
        "access_groups": encode_access_groups(groups),
        "answered_at": datetime.now(UTC),
    }
    lineage = Lineage(
        run_id=answer.answer_id,
        asset="gold/answers",
        code_version=CODE_VERSION,
        config_digest="",
        inputs=release.details["versions"],
    )
    lake.append(ANSWERS, pa.Table.from_pylist([row], ANSWERS.schema), lineage)
