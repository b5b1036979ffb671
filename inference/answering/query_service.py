"""The query service: searches a release, answers questions from it, and hands each answer to a recorder."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt

from inference.answering.answer import (
    Answer,
    AnsweredRelease,
    AnswerRecord,
    BatchPlace,
    answer_question,
    validate_question,
)
from inference.answering.release_models import ReleaseModels
from inference.answering.retrieval_settings import Approval, LiveRelease, RetrievalSettings, SearchMode
from inference.engines.digest import code_digest
from inference.engines.generator import EngineConfig, approval_digest, build_engine, engine_name
from inference.engines.protocol import AdapterChoice, Engine, EngineChanged, TenantAdapters
from inference.engines.worker.engine import Workplace
from retrieval.index.index import Index, IndexRelease
from retrieval.rerank.reranker import Reranker, RerankerConfig
from retrieval.rerank.reranking import RerankedHits, build_reranker, search_and_rerank
from retrieval.search.as_of import release_as_of
from retrieval.search.query import SearchQuery
from retrieval.search.searcher import RetrievalMode, Searcher, SearchHit
from retrieval.search.snapshot import NoLiveSnapshot
from retrieval.search.vector_search import VectorSearchPlan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueryServiceResult:
    """The passages that were retrieved for a question.

    Attributes:
        hits: The chunks, best first.
        mode: The search mode that ordered them; `hybrid` also if a reranker was asked and failed.
    """

    hits: list[SearchHit]
    mode: SearchMode


class QueryService:
    """Searches and answers over one index. Models are loaded on first use and kept.

    Args:
        index: The index, with its releases.
        searcher: The search over the index.
        models: The embedding models of releases.
        reranker: The reranker's configuration.
        generator: Returns the configuration of the engine that answers; called at the first question.
        approved: Returns what was approved to answer, or None where nothing was decided yet; called after
            the engine was loaded.
        record: A function that stores an answer; it is called before the answer is returned.
        close: A function that is called when the service is closed; it commits what was recorded.
        workplace: Where a worker works, for engines that are one.
        adapters: The adapters of tenants, for a local model.
    """

    def __init__(
        self,
        index: Index,
        searcher: Searcher,
        models: ReleaseModels,
        reranker: RerankerConfig,
        generator: Callable[[], EngineConfig],
        approved: Callable[[], Approval | None],
        record: Callable[[AnswerRecord], object],
        close: Callable[[], object],
        workplace: Workplace,
        adapters: TenantAdapters,
    ) -> None:
        self.index = index
        self._searcher = searcher
        self._models = models
        self.retrieval = RetrievalSettings(searcher.config, reranker)
        self._generator = generator
        self._approved = approved
        self._record = record
        self._close = close
        self._workplace = workplace
        self._adapters = adapters

    def __enter__(self) -> "QueryService":
        """Returns the service itself; leaving the `with` block closes it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the service."""
        self.close()

    def close(self) -> None:
        """Has the answers that were given committed."""
        self._close()

    def live_release(self) -> IndexRelease:
        """Returns the release that answers come from.

        Raises:
            NoLiveSnapshot: There is no live release yet.
        """
        release = self.index.live()
        if release is None:
            raise NoLiveSnapshot("nothing is released yet: `headwater demo`, or `headwater ingest PATH`")
        return release

    def live_record(self, tenant: str) -> LiveRelease:
        """Returns all that can change an answer to a tenant's questions now.

        Before the first decision about engines, the configured one is loaded for its digest.

        Raises:
            NoLiveSnapshot: There is no live release yet.
            EngineError: The adapter's files are not those that were signed, or the engine can't be loaded.
        """
        release, approved = self.live_release(), self._approved()
        choice = self.adapter_of(tenant)
        return LiveRelease(
            tenant,
            release.release_id,
            release.details.model_digest,
            engine_name(self.engine_config),
            (approved and approved.engine) or approval_digest(self.engine),
            choice.adapter.digest if choice and choice.adapter else None,
            self.retrieval.digest,
            code_digest(),
        )

    @cached_property
    def engine(self) -> Engine:
        """The engine that writes answers; a local model is loaded here, once.

        The extractive engine has the embedder in use, also where an earlier release is asked: passages are
        found by the release's own embedder, and the engine stays the one that was approved.

        Raises:
            EngineError: The local model can't be loaded.
            EngineChanged: It is not the engine that was approved.
        """
        engine = build_engine(self.engine_config, self._models.current.embedder, self._workplace)
        try:
            require_approved(engine, self.retrieval, self._approved())
        except EngineChanged:
            # Another may have been released since the configuration was read: the next question has it.
            self.__dict__.pop("engine_config", None)
            raise
        return engine

    @cached_property
    def engine_config(self) -> EngineConfig:
        """The configuration of the engine that writes answers."""
        return self._generator()

    def adapter_of(self, tenant: str) -> AdapterChoice | None:
        """Returns which adapter answers a tenant's questions now; None where no local model answers.

        Raises:
            EngineError: Its files are not those that were signed.
        """
        return self._adapters.of(tenant) if "local" in self.engine_config.order else None

    @cached_property
    def _reranker(self) -> Reranker:
        return build_reranker(self.retrieval.reranker)

    def release_as_of(self, moment: str) -> IndexRelease:
        """Returns the release that has this name, or that was live at this time.

        Raises:
            InvalidAsOf: The value is neither a release nor a time, or it is a time in the future.
            UnknownIndexRelease: No release was live then, or that release is no longer kept.
            NoLiveSnapshot: There is no release at all.
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
        vector: npt.NDArray[np.float32] | None = None,
    ) -> list[SearchHit]:
        """Returns the best chunks of a release, the live one by default; see `Searcher.search`.

        Mode `reranked` searches in mode `hybrid` and reranks the best hits. If the reranker fails or is late,
        the hybrid order is kept and a warning is logged. `on_reranked` is called with the outcome. Mode
        `hybrid` searches by words alone where the embedder's vocabulary lacks the query's script: its vectors
        would be noise (docs/languages.md). `vector` is the embedding of the query's words by the release's
        model, where the caller has it already.

        Raises:
            QueryModelMismatch: The release's embedding model is no longer where it was.
            RerankError: No reranker is configured, or its folder does not hold one.
        """
        reranker = self._reranker if mode == "reranked" else None
        release = at or self.live_release()
        query = SearchQuery.parse(query) if isinstance(query, str) else query
        digest = self._models.current.digest
        stage: RetrievalMode = "hybrid" if mode == "reranked" else mode
        if mode != "lexical" and query.words:
            model = self._models.model_of(release)
            if stage == "hybrid" and not model.embedder.has_words_of(query.words):
                stage = "lexical"
            else:
                digest = model.digest
                if vector is None:
                    vector = model.embedder.encode_queries([query.words])[0]

        def first_stage(depth: int) -> list[SearchHit]:
            return self._searcher.search(
                tenant,
                query,
                vector,
                depth,
                stage,
                release,
                model_digest=digest,
                on_plan=on_plan,
                groups=groups,
            )

        if reranker is None:
            return first_stage(k)
        reranked = search_and_rerank(first_stage, query.words, k, reranker, self.retrieval.reranker)
        on_reranked(reranked)
        if reranked.fallback_reason:
            logger.warning("not reranked, the fused order stands: %s", reranked.fallback_reason)
        return reranked.hits

    def embed_questions(self, questions: Sequence[str], at: IndexRelease) -> npt.NDArray[np.float32]:
        """Returns the embeddings of questions by a release's model, of shape (questions, dimension).

        Raises:
            QueryModelMismatch: As in `search`.
        """
        words = [SearchQuery.plain(question).words for question in questions]
        return self._models.model_of(at).embedder.encode_queries(words)

    def retrieve_passages(
        self,
        question: str,
        tenant: str,
        at: IndexRelease,
        groups: Collection[str] = (),
        mode: SearchMode | None = None,
        vector: npt.NDArray[np.float32] | None = None,
    ) -> QueryServiceResult:
        """Returns the chunks that a question is answered from.

        The question is plain text: quotes and hyphens are not query language.

        Args:
            question: The question.
            tenant: The tenant whose documents are searched.
            at: The release to search.
            groups: The user's groups.
            mode: The search mode; None for the default mode.
            vector: The question's row of `embed_questions`, where many are asked; None to embed it here.

        Raises:
            QueryModelMismatch: As in `search`.
            RerankError: As in `search`.
        """
        outcomes: list[RerankedHits] = []
        hits = self.search(
            SearchQuery.plain(question),
            self.retrieval.passages_per_question,
            mode := mode or self.retrieval.mode,
            tenant,
            at,
            groups,
            on_reranked=outcomes.append,
            vector=vector,
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
            question: The question, as plain text.
            tenant: The tenant whose documents are searched.
            at: The release to search; None for the live one.
            groups: The user's groups.

        Raises:
            InvalidQuestion: The question is empty or too long.
            NoLiveSnapshot: There is no live release.
            EngineError: The engine fails.
            EngineChanged: It is not the one that was approved; it is not asked.
        """
        question = validate_question(question)
        release = at or self.live_release()
        passages = self.retrieve_passages(question, tenant, release, groups)
        adapted = self.adapter_of(tenant)
        answer = answer_question(question, passages.hits, self.engine, answered_release(release), adapted)
        self._record(self.answer_record(question, tenant, release, groups, passages, answer))
        return answer

    def answer_record(
        self,
        question: str,
        tenant: str,
        release: IndexRelease,
        groups: Collection[str],
        passages: QueryServiceResult,
        answer: Answer,
        place: BatchPlace | None = None,
    ) -> AnswerRecord:
        """Returns what is recorded of an answer.

        Args:
            question: The question.
            tenant: The tenant whose documents were searched.
            release: The release that was searched.
            groups: The user's groups.
            passages: What was retrieved.
            answer: The answer that the engine gave.
            place: The question's place in a batch; None for a question by itself.
        """
        return AnswerRecord(
            answer=answer,
            question=question,
            tenant=tenant,
            groups=tuple(groups),
            retrieved=tuple(hit.chunk_id for hit in passages.hits),
            search_mode=passages.mode,
            retrieval_digest=self.retrieval.digest,
            versions=release.details.versions,
            answered_at=datetime.now(UTC),
            place=place,
        )


def require_approved(engine: Engine, retrieval: RetrievalSettings, approved: Approval | None) -> None:
    """Returns if what answers is what was approved, or nothing was decided yet.

    Args:
        engine: The engine, as it is now.
        retrieval: How its passages are found.
        approved: What was approved; None before the first decision.

    Raises:
        EngineChanged: It is something else: the model's files, the settings or the code have changed.
    """
    if approved is None:
        return
    found, changed = approval_digest(engine), "the files of its model, its settings or Headwater itself"
    if approved.engine == found:
        if approved.retrieval == retrieval.digest:
            return
        changed = "the search settings or the reranker, by which its passages are found,"
    raise EngineChanged(
        f"{engine.name} was approved to answer as {approved.engine or 'an earlier version'} with passages by "
        f"{approved.retrieval or 'earlier settings'}, and is {found} with {retrieval.digest} now: {changed} "
        "have changed, so it does not answer. Put back what was approved, or have what is there answer by "
        "`headwater engines promote --reason …`"
    )


def answered_release(release: IndexRelease) -> AnsweredRelease:
    """Returns what an answer says of the release that it was given from."""
    details = release.details
    return AnsweredRelease(release.release_id, details.model_digest, details.versions["silver.documents"])
