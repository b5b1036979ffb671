"""What the embedder learns from: questions, each with passages and how good a teacher finds each of them.

A teacher ranks passages better than the embedder does alone: the fused ranking by words and vectors, or what
a training set has instead (`training.datasets.config.ListTeacher`), corrected by judgements where there are
any. The embedder learns the whole list, not only which passage is right (Cao et al., "Learning to Rank: From
Pairwise Approach to Listwise Approach", 2007).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.counts import counted
from training.alike import alike_to, held_out, questions_alike_to, sharing

NOTHING = -1
"""Fills up lists that are shorter than the longest."""

_TEACHER_SHARPNESS = 1.5
"""How much more probable a passage is, in nats, for each standard deviation of its list's scores."""
_LABEL_SHARE = 0.6
"""The probability that judged passages share; the teacher divides the rest."""


class TooFewExamples(ValueError):
    """There are too few questions to train and to validate on; the message says how many."""


@dataclass(frozen=True)
class RankedLists:
    """Questions with the passages that a teacher ranked.

    Attributes:
        ids: What each question is called in messages; (questions,).
        questions: Their texts.
        candidates: Rows of `passages`, (questions, longest list) int32, `NOTHING` after a list's end.
        scores: The teacher's scores, (questions, longest list) float32; comparable within one list.
        relevant: Which candidates are judged to be right, (questions, longest list) bool.
        passages: The texts that all lists choose from.
        judged: Whether people judged the question; else it was made from its passage. (questions,) bool.
        documents: The name of each passage's document; empty once they are split.
    """

    ids: list[str]
    questions: list[str]
    candidates: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float32]
    relevant: npt.NDArray[np.bool_]
    passages: list[str]
    judged: npt.NDArray[np.bool_]
    documents: list[str]

    def rows(self, chosen: npt.NDArray[np.intp]) -> "RankedLists":
        """Returns some of the questions; the passages stay."""
        return RankedLists(
            [self.ids[row] for row in chosen],
            [self.questions[row] for row in chosen],
            self.candidates[chosen],
            self.scores[chosen],
            self.relevant[chosen],
            self.passages,
            self.judged[chosen],
            self.documents,
        )


@dataclass(frozen=True)
class RankedQuestion:
    """One question of a list to be made.

    Attributes:
        name: What it is called in messages.
        question: Its text.
        passages: Keys of passages, best first by the teacher.
        scores: The teacher's scores of these.
        relevant: Keys of passages that are right; they join the list if the teacher did not find them.
        judged: Whether people judged it.
    """

    name: str
    question: str
    passages: Sequence[str]
    scores: Sequence[float]
    relevant: Sequence[str]
    judged: bool


def ranked_lists(
    questions: Sequence[RankedQuestion], texts: dict[str, str], documents: Mapping[str, str] | None = None
) -> RankedLists:
    """Returns lists as arrays.

    Args:
        questions: The questions, each with at least one passage.
        texts: The texts of passages by key.
        documents: The names of their documents by key; a passage without one is a document by itself.
    """
    place = {key: row for row, key in enumerate(texts)}
    # One that the teacher did not find is worth no more than the last that it did.
    lists = [
        dict.fromkeys(each.relevant, min(each.scores, default=0.0))
        | dict(zip(each.passages, each.scores, strict=True))
        for each in questions
    ]
    shape = (len(questions), max(map(len, lists), default=0))
    candidates = np.full(shape, NOTHING, dtype=np.int32)
    scores = np.full(shape, -np.inf, dtype=np.float32)
    relevant = np.zeros(shape, dtype=bool)
    for row, (each, scored) in enumerate(zip(questions, lists, strict=True)):
        keys = sorted(scored, key=lambda key: -scored[key])
        candidates[row, : len(keys)] = [place[key] for key in keys]
        scores[row, : len(keys)] = [scored[key] for key in keys]
        relevant[row, : len(keys)] = np.isin(keys, list(each.relevant))
    return RankedLists(
        [each.name for each in questions],
        [each.question for each in questions],
        candidates,
        scores,
        relevant,
        list(texts.values()),
        np.array([each.judged for each in questions], dtype=bool),
        [(documents or {}).get(key, key) for key in texts],
    )


def target_probabilities(lists: RankedLists, contrastive: bool) -> npt.NDArray[np.float32]:
    """Returns the probability of each candidate that the embedder is to learn.

    Args:
        lists: The lists.
        contrastive: Whether only right passages have any, in equal parts, as InfoNCE has it (van den Oord et
            al., "Representation Learning with Contrastive Predictive Coding", 2018). Else the teacher's
            scores decide, and right passages share `_LABEL_SHARE` beside.

    Returns:
        (questions, longest list) float32; rows sum to 1. A list without a right passage is the teacher's.
    """
    there = lists.candidates != NOTHING
    count = there.sum(axis=1, keepdims=True).clip(min=1)
    scores = np.where(there, lists.scores, 0.0).astype(np.float64)
    mean = scores.sum(axis=1, keepdims=True) / count
    away = np.where(there, scores - mean, 0.0)
    deviation = np.sqrt((away**2).sum(axis=1, keepdims=True) / count)
    logits = np.where(there, _TEACHER_SHARPNESS * away / np.maximum(deviation, 1e-9), -np.inf)
    # Equal scores say nothing; those that are no numbers stay so, and the loss will name their question.
    logits = np.where(deviation <= 1e-9, np.where(there, 0.0, -np.inf), logits)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    taught = weights / weights.sum(axis=1, keepdims=True)
    right = lists.relevant.sum(axis=1, keepdims=True)
    labels = lists.relevant / np.maximum(right, 1)
    share = np.where(right > 0, 1.0 if contrastive else _LABEL_SHARE, 0.0)
    return (share * labels + (1 - share) * taught).astype(np.float32)


def split_validation(
    lists: RankedLists, share: float, most: int, least: int = 4
) -> tuple[RankedLists, RankedLists]:
    """Returns the lists to train on, and those to validate on: of judged questions, if there are enough.

    Questions about one document are on one side; hashes decide on which, so the split does not depend on the
    order. On neither are those of the others that are alike to a question that is validated on, or whose
    right passage is nearly one of those documents': many documents have the same heading or licence.

    Args:
        lists: All lists.
        share: The share of the questions to validate on, about.
        most: The most that are wanted; clusters are taken whole, so there may be up to twice as many.
        least: The fewest questions on either side.

    Raises:
        TooFewExamples: There are fewer than twice `least` questions with a right passage, or too few that
            are about other documents than the others.
    """
    usable = np.flatnonzero(lists.relevant.any(axis=1))
    judged = usable[lists.judged[usable]]
    if len(usable) < 2 * least:
        raise TooFewExamples(
            f"{counted(len(usable), 'question')} with a passage that answers, and training needs {2 * least} "
            "at least: some are kept to validate on"
        )
    rows, columns = np.nonzero(lists.relevant)
    right = lists.candidates[rows, columns]
    documents: list[set[str]] = [set() for _ in lists.ids]
    for row, passage in zip(rows.tolist(), right.tolist(), strict=True):
        documents[row].add(lists.documents[passage])
    labels = sharing(documents)
    for pool in (judged, usable):
        wanted = min(max(least, int(len(pool) * share)), most, len(pool) - least)
        held = pool[held_out([lists.questions[row] for row in pool], labels[pool], wanted)]
        every = np.arange(len(lists.ids))
        is_held = np.isin(labels, labels[held])
        near = rows[alike_to([lists.passages[each] for each in right], is_held[rows])]
        is_held |= np.isin(every, near)
        kept = np.flatnonzero(~(is_held | questions_alike_to(lists.questions, np.isin(every, held))))
        if min(len(held), len(kept)) >= least:
            return lists.rows(kept), lists.rows(held)
    raise TooFewExamples(
        f"{counted(len(usable), 'question')} are about so few documents, or so much alike, that {least} can "
        "not be kept to validate on: give questions about other documents"
    )
