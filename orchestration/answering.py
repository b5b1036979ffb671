"""A question from the command line or a service: retrieved from the live release, answered, kept."""

import logging
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

import pyarrow as pa

from assets.lake import CODE_VERSION, Lake, Lineage
from assets.tables import ANSWERS
from inference.answer import Answer, ReleasePin, answer_question, checked_question
from inference.engines import build_engine
from orchestration.settings import Settings, open_lake
from retrieval.embedding_model import EmbeddingModel
from retrieval.index import Index, Release
from retrieval.postgres import Postgres
from retrieval.rerank import Reranker, build_reranker, rerank
from retrieval.search import Hit, Mode, NothingReleased, Searcher

logger = logging.getLogger(__name__)

SearchMode = Mode | Literal["reranked"]

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

    def live(self) -> Release:
        """The release that answers come from.

        Raises:
            NothingReleased: When there is none yet.
        """
        release = self.index.live()
        if release is None:
            raise NothingReleased("nothing is released yet: `headwater demo`, or `headwater ingest PATH`")
        return release

    @cached_property
    def _reranker(self) -> Reranker:
        return build_reranker(self._settings.reranker)

    def search(
        self,
        query: str,
        k: int,
        mode: SearchMode | None,
        tenant: str,
        at: Release | None = None,
    ) -> list[Hit]:
        """The best chunks of the live release; see `Searcher.search` for arguments and errors.

        Mode `reranked` is `hybrid` and a second look; None is the best mode that is configured. Where the
        second look fails or is late, the fused order stands and a warning is logged.

        Raises:
            RerankError: There is no reranker, or its folder is not one.
        """
        config = self._settings.reranker
        if mode is None:
            mode = "reranked" if config.configured else "hybrid"
        reranker = self._reranker if mode == "reranked" else None
        depth = max(k, config.candidates) if reranker else k
        release = at or self.live()
        vector = None
        if mode != "lexical" and query.strip():
            vector = self._model.embedder.encode([query])[0]
        ranking: Mode = "hybrid" if mode == "reranked" else mode
        hits = self._searcher.search(
            tenant, query, vector, depth, ranking, release, model_digest=self._model.digest
        )
        if reranker is None:
            return hits
        outcome = rerank(query, hits, reranker, config)
        if outcome.kept_because:
            logger.warning("not reranked, the fused order stands: %s", outcome.kept_because)
        return outcome.hits[:k]

    def ask(self, question: str, tenant: str) -> Answer:
        """Answers a question from the live release and keeps the answer in `gold.answers`.

        Raises:
            BadQuestion: When it is empty or too long.
            NothingReleased: When there is nothing to answer from.
            EngineError: When the configured generator fails.
        """
        question = checked_question(question)
        release = self.live()
        hits = self.search(question, PASSAGES, None, tenant, release)
        pin = ReleasePin(
            release.release_id,
            release.details["model_digest"],
            release.details["versions"]["silver.documents"],
        )
        engine = build_engine(self._settings.generator, self._model.embedder)
        answer = answer_question(question, hits, engine, pin)
        keep(open_lake(self._settings), answer, question, tenant, release)
        return answer


def keep(lake: Lake, answer: Answer, question: str, tenant: str, release: Release) -> None:
    """Appends an answer to `gold.answers`, with the versions that it was given from."""
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
