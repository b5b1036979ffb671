"""Old answers: which there are, and what retrieval gives for one at its release and now."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from assets.lake.lake import Lake
from assets.lake.tables import ANSWERS
from inference.answering.query_service import PASSAGES_PER_QUESTION, QueryService
from retrieval.search.searcher import SearchHit


class UnknownAnswer(LookupError):
    """No answer has that id."""


@dataclass(frozen=True)
class Replay:
    """What was retrieved for an answer, and what is for the same question.

    Attributes:
        answer_id: The answer.
        question: What was asked.
        release_id: The release it was given from.
        live_release_id: The one that is live now.
        then: Chunk ids that it was chosen from, best first; of an answer of before these were kept, those
            that it cites, as they are all that is known.
        whole: Whether `then` is all that was retrieved.
        at_release: What its release gives today.
        now: What the live release gives.
    """

    answer_id: str
    question: str
    release_id: str
    live_release_id: str
    then: tuple[str, ...]
    whole: bool
    at_release: tuple[SearchHit, ...]
    now: tuple[SearchHit, ...]

    @property
    def reproduced(self) -> bool:
        """True when the release gives what it gave: the same chunks in the same order."""
        again = [hit.chunk_id for hit in self.at_release]
        return list(self.then) == again if self.whole else set(self.then) <= set(again)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of `headwater answers replay --json`."""
        return {
            "answer_id": self.answer_id,
            "question": self.question,
            "release": self.release_id,
            "live": self.live_release_id,
            "reproduced": self.reproduced,
            "then": list(self.then),
            "at_release": _shown(self.at_release),
            "now": _shown(self.now),
            "since_then": changes(self.then, [hit.chunk_id for hit in self.at_release], self.whole),
            "until_now": changes(
                [hit.chunk_id for hit in self.at_release], [hit.chunk_id for hit in self.now]
            ),
        }


def changes(before: Sequence[str], after: Sequence[str], whole: bool = True) -> dict[str, list[str]]:
    """How one ranking differs from another: chunks that `came`, `went`, or are at another rank (`moved`).

    Args:
        before: Chunk ids, best first.
        after: The same.
        whole: False where `before` is only a part, which says nothing of what came and of ranks.
    """
    gone = [chunk_id for chunk_id in before if chunk_id not in after]
    if not whole:
        return {"came": [], "went": gone, "moved": []}
    return {
        "came": [chunk_id for chunk_id in after if chunk_id not in before],
        "went": gone,
        "moved": [c for c in after if c in before and before.index(c) != after.index(c)],
    }


def answers(lake: Lake, limit: int, tenant: str | None) -> list[dict[str, Any]]:
    """The newest answers, of one tenant or of all: id, time, tenant, question, release, whether refused."""
    return lake.query(
        "select answer_id, answered_at, tenant, question, release_id, refused from answers "
        "where $tenant is null or tenant = $tenant order by answered_at desc limit $limit",
        {"tenant": tenant, "limit": limit},
        answers=lake.delta(ANSWERS.name),
    ).to_pylist()


def stored_answer(lake: Lake, answer_id: str) -> dict[str, Any]:
    """An answer's row.

    Raises:
        UnknownAnswer: When there is none.
    """
    rows = lake.query(
        "select * from answers where answer_id = ?", [answer_id], answers=lake.delta(ANSWERS.name)
    ).to_pylist()
    if not rows:
        raise UnknownAnswer(f"there is no answer {answer_id!r}: `headwater answers list` lists them")
    return dict(rows[0])


def replay(lake: Lake, service: QueryService, answer_id: str) -> Replay:
    """Retrieves for an answer's question again, as who asked it: from its release and from the live one.

    Raises:
        UnknownAnswer: When there is no such answer.
        UnknownRelease: When its release is no longer kept; says what is.
        QueryModelMismatch: When its release's embedding model is gone.
    """
    row = stored_answer(lake, answer_id)
    release, live = service.release_as_of(row["release_id"]), service.live_release()
    groups = (row["access_groups"] or "").split(",") if row["access_groups"] else []
    rankings = (
        tuple(service.search(row["question"], PASSAGES_PER_QUESTION, "hybrid", row["tenant"], at, groups))
        for at in (release, live)
    )
    cited = dict.fromkeys(citation["chunk_id"] for citation in row["citations"] or ())
    return Replay(
        answer_id,
        row["question"],
        release.release_id,
        live.release_id,
        tuple(cited if row["retrieved"] is None else row["retrieved"]),
        row["retrieved"] is not None,
        *rankings,
    )


def _shown(hits: Sequence[SearchHit]) -> list[dict[str, Any]]:
    return [{"rank": hit.rank, "score": hit.score, "chunk_id": hit.chunk_id, "uri": hit.uri} for hit in hits]
