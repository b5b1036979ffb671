"""A question from the command line or a service: retrieved from the live release, answered, kept."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime

import pyarrow as pa

from assets.lake import CODE_VERSION, Lake, Lineage
from assets.tables import ANSWERS
from inference.answer import Answer, ReleasePin, answer_question, checked_question
from inference.engines import build_engine
from orchestration.settings import Settings, open_lake
from retrieval.embedding_model import EmbeddingModel
from retrieval.index import Index, Release
from retrieval.nearest import Plan
from retrieval.postgres import Postgres
from retrieval.query import Query
from retrieval.search import Hit, Mode, NothingReleased, Searcher

PASSAGES = 10
"""Chunks retrieved for a question."""


class Desk:
    """Searches and answers over one state folder; the model is loaded once.

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

    def search(
        self,
        query: str | Query,
        k: int,
        mode: Mode,
        tenant: str,
        at: Release | None = None,
        on_plan: Callable[[Plan], object] = lambda plan: None,
    ) -> list[Hit]:
        """The best chunks of the live release; see `Searcher.search` for arguments and errors."""
        release = at or self.live()
        query = Query.parse(query) if isinstance(query, str) else query
        vector = None
        if mode != "lexical" and query.words:
            vector = self._model.embedder.encode([query.words])[0]
        return self._searcher.search(
            tenant, query, vector, k, mode, release, model_digest=self._model.digest, on_plan=on_plan
        )

    def ask(self, question: str, tenant: str) -> Answer:
        """Answers a question from the live release and keeps the answer in `gold.answers`.

        Raises:
            BadQuestion: When it is empty or too long.
            NothingReleased: When there is nothing to answer from.
            EngineError: When the configured generator fails.
        """
        question = checked_question(question)
        release = self.live()
        # Of a question every character is meant: its quotes and hyphens are not ours.
        hits = self.search(Query.plain(question), PASSAGES, "hybrid", tenant, release)
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
