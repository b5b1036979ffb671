"""Ratings of stored answers: good or bad, by a person, or by evaluation against known answers."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa

from assets.answers.stored import StoredAnswer, find_stored_answer, stored_batch
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import ANSWER_RATINGS, ANSWERS
from quality.evaluation.answer_collection import AnswerQuestion
from quality.evaluation.answer_evaluation import JudgedAnswer
from quality.evaluation.known_answers import judge_by_known_answer
from retrieval.lineage import Lineage

Rating = Literal["good", "bad"]
Rater = Literal["person", "evaluation"]


@dataclass(frozen=True)
class AnswerRating:
    """A rating of an answer.

    Attributes:
        answer_id: The answer.
        tenant: The tenant that asked.
        rating: Whether it is good.
        rater: Who says so.
        reason: Why, in a sentence; None where nobody said.
    """

    answer_id: str
    tenant: str
    rating: Rating
    rater: Rater
    reason: str | None = None


@dataclass(frozen=True)
class BatchRating:
    """What became of a batch whose answers were rated by known answers.

    Attributes:
        batch: Its name.
        good: The answers that are right.
        bad: Those that are not.
        not_judged: Those whose question has no exact answer, so that nothing decides.
        unknown: Those whose question is not among the known ones.
        reasons: How many answers each reason decided.
    """

    batch: str
    good: int
    bad: int
    not_judged: int
    unknown: int
    reasons: Mapping[str, int]


def rate_answer(lake: Lake, answer_id: str, rating: Rating, reason: str | None = None) -> AnswerRating:
    """Records what a person thinks of an answer, and returns the rating; the newest of an answer counts.

    Args:
        lake: The lake.
        answer_id: The answer's id, or the beginning of it that no other has.
        rating: Whether it is good.
        reason: Why, in a sentence.

    Raises:
        UnknownStoredAnswer: There is no such answer, or more than one.
        WriteConflict: Another process wrote a rating meanwhile; nothing was written.
    """
    answer = find_stored_answer(lake, answer_id)
    rated = AnswerRating(answer.answer_id, answer.tenant, rating, "person", reason)
    _record(lake, [rated])
    return rated


def rate_batch(
    lake: Lake,
    batch: str,
    known: Iterable[AnswerQuestion],
    canonical: Mapping[str, Mapping[str, str]],
) -> BatchRating:
    """Rates the newest answers of a batch by known answers to their questions, in one commit.

    Args:
        lake: The lake.
        batch: The name of the batch.
        known: The questions with what is known of their answers; `gold` names documents by URI or doc_id.
        canonical: By tenant, from every URI and doc_id the doc_id of the document that stands for it.

    Raises:
        WriteConflict: Another process wrote a rating meanwhile; nothing was written.
    """
    by_text = {question.text: question for question in known}
    counts, reasons, ratings = Counter[str](), Counter[str](), list[AnswerRating]()
    for row in stored_batch(lake, batch).to_pylist():
        answer = StoredAnswer.model_validate(row)
        question = by_text.get(answer.question)
        if question:
            names = canonical.get(answer.tenant, {})
            question = replace(question, gold=tuple(names.get(each, each) for each in question.gold))
        verdict = judge_by_known_answer(question, _judged(answer)) if question else None
        if verdict is None:
            counts["not_judged" if question else "unknown"] += 1
            continue
        rating: Rating = "good" if verdict.right else "bad"
        counts[rating] += 1
        reasons[verdict.reason] += 1
        ratings.append(AnswerRating(answer.answer_id, answer.tenant, rating, "evaluation", verdict.reason))
    if ratings:
        _record(lake, ratings)
    return BatchRating(
        batch, counts["good"], counts["bad"], counts["not_judged"], counts["unknown"], dict(reasons)
    )


def newest_ratings(lake: Lake, answer_ids: Sequence[str]) -> dict[str, AnswerRating]:
    """Returns the newest rating of each of some answers that has one, by the answer's id."""
    rows = lake.query(
        "select answer_id, tenant, rating, rater, reason from ratings "
        "where list_contains(?::varchar[], answer_id) "
        "qualify row_number() over (partition by answer_id order by rated_at desc) = 1",
        [list(answer_ids)],
        ratings=lake.delta(ANSWER_RATINGS.name),
    ).to_pylist()
    return {row["answer_id"]: AnswerRating(**row) for row in rows}


def _judged(answer: StoredAnswer) -> JudgedAnswer:
    cited = answer.citations or []
    return JudgedAnswer(
        answer.answer or "",
        answer.refused,
        tuple(each.doc_id for each in cited),
        tuple(each.quote for each in cited),
    )


def _record(lake: Lake, ratings: Sequence[AnswerRating]) -> None:
    since = lake.version(ANSWER_RATINGS.name)
    fence = lake.fencing_token(ANSWER_RATINGS) + 1
    rated_at = lake.stamp(ANSWER_RATINGS, "rated_at")
    rows = [
        {
            "answer_id": each.answer_id,
            "tenant": each.tenant,
            "rating": each.rating,
            "rater": each.rater,
            "reason": each.reason,
            "rated_at": rated_at,
        }
        for each in ratings
    ]
    lineage = Lineage(
        run_id=f"rated at {datetime.now(UTC).isoformat(timespec='seconds')}",
        asset="ops/answer_ratings",
        code_version=CODE_VERSION,
        config_digest="",
        inputs={ANSWERS.name: lake.version(ANSWERS.name)},
        fence=fence,
    )
    lake.append(ANSWER_RATINGS, pa.Table.from_pylist(rows, ANSWER_RATINGS.schema), lineage, since)
