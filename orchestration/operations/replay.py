"""Replays an answer's question: what its release gives for it today, and what the live release gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from assets.lake.answers import find_stored_answer
from assets.lake.lake import Lake
from inference.answering.query_service import QueryService, SearchMode
from retrieval.search.searcher import SearchHit


@dataclass(frozen=True)
class AnswerReplay:
    """What was retrieved for an answer, and what is retrieved for the same question now.

    Attributes:
        answer_id: The answer.
        question: What was asked.
        release_id: The release that the answer was given from.
        live_release_id: The release that is live now.
        recorded: Ids of the chunks that the answer was chosen from, best first; of an answer from before
            these were recorded, those that it cites.
        recorded_in_full: Whether `recorded` is all that was retrieved.
        at_release: What the answer's release gives now.
        at_live: What the live release gives.
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
        """True when the release gives what it gave: the same chunks in the same order."""
        again = [hit.chunk_id for hit in self.at_release]
        return list(self.recorded) == again if self.recorded_in_full else set(self.recorded) <= set(again)

    @property
    def lost(self) -> list[str]:
        """Ids of the chunks that the answer was chosen from and that its release does not give any more."""
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
    """Retrieves for an answer's question again, as its asker: from its release and from the live one.

    Its release is searched as it was then, with a reranker or without; the live one as `ask` would now.

    Raises:
        UnknownStoredAnswer: When there is no such answer.
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
        answer_id=answer_id,
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
