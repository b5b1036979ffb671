"""Ratings of stored answers: good or bad, by a person, or by evaluation against known answers."""

import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa

from assets.answers.stored import StoredAnswer, UnknownStoredAnswer, find_stored_answer, stored_batch
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION, WriteConflict
from assets.lake.tables import ANSWER_RATINGS, ANSWERS
from common.lineage import Lineage
from quality.evaluation.answer_collection import AnswerQuestion
from quality.evaluation.answer_evaluation import JudgedAnswer
from quality.evaluation.known_answers import judge_by_known_answer
from retrieval.search.query import is_encodable

_ATTEMPTS = 8
_LONGEST_PAUSE_S = 0.5

Rating = Literal["good", "bad"]
Rater = Literal["person", "evaluation"]


class InvalidRating(ValueError):
    """A rating can not be recorded; the message says why."""


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
        by_person: Those that a person has rated, which stay as they are.
        reasons: How many answers each reason decided.
    """

    batch: str
    good: int
    bad: int
    not_judged: int
    unknown: int
    by_person: int
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
        InvalidRating: The reason can not be stored.
        WriteConflict: Other processes wrote ratings all the time; nothing was written.
    """
    if reason is not None and not is_encodable(reason):
        raise InvalidRating("the reason holds bytes or half characters that are no text: write it in UTF-8")
    answer = find_stored_answer(lake, answer_id)
    rated = AnswerRating(answer.answer_id, answer.tenant, rating, "person", reason)
    _record(lake, [rated])
    return rated


def rate_batch(
    lake: Lake,
    batch: str,
    tenant: str,
    known: Iterable[AnswerQuestion],
    canonical: Mapping[str, str],
) -> BatchRating:
    """Rates the newest answers of a batch to a tenant by known answers, in one commit.

    What a person has rated stays so, and what was rated so before is not written again.

    Args:
        lake: The lake.
        batch: The name of the batch.
        tenant: The tenant; answers to others are left as they are.
        known: The questions with what is known of their answers; `gold` names documents by URI or doc_id.
        canonical: From every URI and doc_id of the tenant the doc_id of the document that stands for it.

    Raises:
        UnknownStoredAnswer: The batch has no answer to the tenant.
        WriteConflict: Other processes wrote ratings all the time; nothing was written.
    """
    by_text = {
        question.text: replace(question, gold=tuple(canonical.get(each, each) for each in question.gold))
        for question in known
    }
    stored = (StoredAnswer.model_validate(row) for row in stored_batch(lake, batch).to_pylist())
    answers = [answer for answer in stored if answer.tenant == tenant]
    if not answers:
        raise UnknownStoredAnswer(f"the batch {batch!r} has no answers to the tenant {tenant!r} yet")
    before = newest_ratings(lake, [answer.answer_id for answer in answers])
    counts, reasons, ratings = Counter[str](), Counter[str](), list[AnswerRating]()
    for answer in answers:
        last, question = before.get(answer.answer_id), by_text.get(answer.question)
        if last is not None and last.rater == "person":
            counts["by_person"] += 1
            continue
        verdict = judge_by_known_answer(question, _judged(answer, canonical)) if question else None
        if verdict is None:
            counts["not_judged" if question else "unknown"] += 1
            continue
        rating: Rating = "good" if verdict.right else "bad"
        counts[rating] += 1
        reasons[verdict.reason] += 1
        rated = AnswerRating(answer.answer_id, tenant, rating, "evaluation", verdict.reason)
        if rated != last:
            ratings.append(rated)
    if ratings:
        _record(lake, ratings)
    return BatchRating(
        batch,
        good=counts["good"],
        bad=counts["bad"],
        not_judged=counts["not_judged"],
        unknown=counts["unknown"],
        by_person=counts["by_person"],
        reasons=dict(reasons),
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


def _judged(answer: StoredAnswer, canonical: Mapping[str, str]) -> JudgedAnswer:
    cited = answer.citations or []
    return JudgedAnswer(
        (answer.answer or "") if cited else "",
        answer.refused,
        tuple(canonical.get(each.doc_id, each.doc_id) for each in cited),
        tuple(each.quote for each in cited),
    )


def _record(lake: Lake, ratings: Sequence[AnswerRating]) -> None:
    """Appends ratings in one commit; again where another process was faster, for rows depend on no other."""
    for attempt in range(_ATTEMPTS):
        try:
            _append(lake, ratings)
        except WriteConflict:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0, _LONGEST_PAUSE_S))  # noqa: S311 - no secret
        else:
            return


def _append(lake: Lake, ratings: Sequence[AnswerRating]) -> None:
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
