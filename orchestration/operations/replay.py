"""Replays answers: retrieves again for one, from its release and the live one; answers a batch again."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from assets.answers.stored import StoredAnswer, find_stored_answer, stored_batch
from assets.lake.lake import Lake
from common.progress import Progress
from inference.answering.answer import Answer, answer_prompts, cited_answer
from inference.answering.query_service import (
    QueryService,
    QueryServiceResult,
    answered_release,
)
from inference.answering.retrieval_settings import SearchMode
from inference.engines.protocol import EnginePrompt
from retrieval.index.types import IndexRelease, UnknownIndexRelease
from retrieval.search.searcher import SearchHit


@dataclass(frozen=True)
class AnswerReplay:
    """The chunks that were retrieved for an answer, and those retrieved for the same question now.

    Attributes:
        answer_id: The answer.
        question: What was asked.
        release_id: The release that the answer was given from.
        live_release_id: The release that is live now.
        recorded: The ids of the chunks retrieved for the answer, best first; for an old answer without this
            record, the ids of the chunks that it cites.
        recorded_in_full: Whether `recorded` holds all retrieved chunks.
        at_release: The ids of the chunks that the answer's release gives now.
        at_live: The ids of the chunks that the live release gives now.
    """

    answer_id: str
    question: str
    release_id: str
    live_release_id: str
    recorded: tuple[str, ...]
    recorded_in_full: bool
    at_release: tuple[SearchHit, ...]
    at_live: tuple[SearchHit, ...]

    @property
    def reproduced(self) -> bool:
        """True if the answer's release gives the same chunks in the same order as then."""
        again = [hit.chunk_id for hit in self.at_release]
        return list(self.recorded) == again if self.recorded_in_full else set(self.recorded) <= set(again)

    @property
    def lost(self) -> list[str]:
        """The ids of recorded chunks that the answer's release does not give any more."""
        return replay_ranking_changes(self.recorded, [hit.chunk_id for hit in self.at_release])["went"]

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `headwater answers replay --json`."""
        at_release = [hit.chunk_id for hit in self.at_release]
        return {
            "answer_id": self.answer_id,
            "question": self.question,
            "release": self.release_id,
            "live": self.live_release_id,
            "reproduced": self.reproduced,
            "then": list(self.recorded),
            "at_release": _ranking(self.at_release),
            "now": _ranking(self.at_live),
            "since_then": replay_ranking_changes(self.recorded, at_release, self.recorded_in_full),
            "until_now": replay_ranking_changes(at_release, [hit.chunk_id for hit in self.at_live]),
        }


def replay_ranking_changes(
    before: Sequence[str], after: Sequence[str], in_full: bool = True
) -> dict[str, list[str]]:
    """Returns the chunks that `came`, that `went`, and that are at another rank (`moved`).

    Args:
        before: Chunk ids, best first.
        after: The same.
        in_full: False where `before` is only a part of a ranking: it then tells only what went.
    """
    went = [chunk_id for chunk_id in before if chunk_id not in after]
    if not in_full:
        return {"came": [], "went": went, "moved": []}
    return {
        "came": [chunk_id for chunk_id in after if chunk_id not in before],
        "went": went,
        "moved": [c for c in after if c in before and before.index(c) != after.index(c)],
    }


def replay_answer(lake: Lake, service: QueryService, answer_id: str) -> AnswerReplay:
    """Retrieves again for an answer's question, from the answer's release and from the live release.

    The search has the tenant and groups of the user who asked.

    The answer's release is searched in the same mode as then, with or without a reranker; the live release in
    the mode that `ask` uses now.

    Raises:
        UnknownStoredAnswer: When there is no such answer, or more than one.
        UnknownIndexRelease: When its release is no longer kept; says what is.
        QueryModelMismatch: When the embedding model of its release is gone.
        RerankError: When it was reranked and there is no reranker any more.
    """
    stored = find_stored_answer(lake, answer_id)
    release, live = service.release_as_of(stored.release_id), service.live_release()
    # Answers from before the mode was recorded: as `ask` would now.
    mode: SearchMode = "reranked" if stored.search_mode == "reranked" else "hybrid"
    then = service.retrieve_passages(
        stored.question, stored.tenant, release, stored.groups, mode if stored.search_mode else None
    )
    now = service.retrieve_passages(stored.question, stored.tenant, live, stored.groups)
    cited = dict.fromkeys(citation.chunk_id for citation in stored.citations or ())
    return AnswerReplay(
        answer_id=stored.answer_id,
        question=stored.question,
        release_id=release.release_id,
        live_release_id=live.release_id,
        recorded=tuple(cited if stored.retrieved is None else stored.retrieved),
        recorded_in_full=stored.retrieved is not None,
        at_release=tuple(then.hits),
        at_live=tuple(now.hits),
    )


def _ranking(hits: Sequence[SearchHit]) -> list[dict[str, Any]]:
    return [{"rank": hit.rank, "score": hit.score, "chunk_id": hit.chunk_id, "uri": hit.uri} for hit in hits]


@dataclass(frozen=True)
class DifferingAnswer:
    """An answer of a batch that is not the same when its question is asked again.

    Attributes:
        question_id: The question.
        answer_id: The recorded answer.
        differs: What differs: `engine`, `passages`, `answer`, `citations`; or why it could not be asked.
    """

    question_id: str
    answer_id: str
    differs: tuple[str, ...]


@dataclass(frozen=True)
class BatchReplay:
    """A batch whose questions were asked again, each of the release that it was asked of then.

    Attributes:
        name: The batch.
        engine: The engine that answered now.
        answers: How many answers were compared: the newest to each question.
        differing: Those that are not the same now.
    """

    name: str
    engine: str
    answers: int
    differing: tuple[DifferingAnswer, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `headwater answers replay BATCH --json`."""
        return {
            "batch": self.name,
            "engine": self.engine,
            "answers": self.answers,
            "equal": self.answers - len(self.differing),
            "differing": [asdict(each) for each in self.differing],
        }


def replay_batch(lake: Lake, service: QueryService, name: str) -> BatchReplay:
    """Asks the questions of a batch again, and compares what comes with the newest answer to each.

    Each is asked of its answer's release, in the search mode and with the groups of then, by the engine that
    answers now. Nothing is recorded.

    Raises:
        QueryModelMismatch: The embedding model of a release is gone.
        EngineError: The engine can't be loaded.
    """
    stored = [StoredAnswer.model_validate(row) for row in stored_batch(lake, name).to_pylist()]
    progress = Progress("questions asked again", len(stored))
    differing: list[DifferingAnswer] = []

    def differs(answer: StoredAnswer, *what: str) -> None:
        if what:
            differing.append(DifferingAnswer(answer.question_id or "", answer.answer_id, what))
        progress.advance()

    size = service.engine_config.shard_questions
    for start in range(0, len(stored), size):
        asked: list[tuple[StoredAnswer, IndexRelease, QueryServiceResult]] = []
        for answer in stored[start : start + size]:
            try:
                release = service.release_as_of(answer.release_id)
            except UnknownIndexRelease as error:
                differs(answer, str(error))
                continue
            mode: SearchMode = "reranked" if answer.search_mode == "reranked" else "hybrid"
            found = service.retrieve_passages(answer.question, answer.tenant, release, answer.groups, mode)
            asked.append((answer, release, found))
        prompts = [
            EnginePrompt(answer.question, found.hits, adapted=service.adapter_of(answer.tenant))
            for answer, _, found in asked
        ]
        for reply in answer_prompts(service.engine, prompts):
            answer, release, found = asked[reply.index]
            if reply.failure is not None:
                differs(answer, reply.failure)
            else:
                now = cited_answer(reply, found.hits, answered_release(release))
                differs(answer, *_differences(answer, now, [hit.chunk_id for hit in found.hits]))
    return BatchReplay(name, service.engine.name, len(stored), tuple(differing))


def _differences(stored: StoredAnswer, now: Answer, retrieved: list[str]) -> list[str]:
    """What of an answer is not as it was recorded."""
    same = {
        "engine": (stored.engine, stored.generator_digest, stored.generator_adapter)
        == (now.engine, now.generator_digest, now.generator_adapter),
        "passages": stored.retrieved == retrieved,
        "answer": (stored.answer, stored.outcome) == (now.answer, now.outcome),
        "citations": (stored.citations or []) == list(now.citations),
    }
    return [name for name, is_same in same.items() if not is_same]
