"""Evaluates the answers of engines to a collection's questions: figures with intervals over the questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from common.citation_markers import strip_citation_markers
from quality.betting import interval, student_interval
from quality.evaluation.answer_collection import AnswerCollection, AnswerQuestion
from quality.evaluation.answer_metrics import (
    average_precision,
    citation_precision,
    citation_recall,
    contains_any_part,
    contains_every_part,
    reciprocal_rank,
    supported_share,
    token_f1,
)
from quality.evaluation.verdict import UNBOUNDED, Gain, paired_gains

ANSWER_MEASURES = (
    "exact_contained",
    "token_f1",
    "words",
    "citation_precision",
    "citation_recall",
    "refused",
    "right",
    "refused_on_negative",
    "map",
    "mrr",
)
ANSWERED = "answered"
"""Whether a question that has an answer got one: no refusal, and no reply that was cut, withheld or empty."""
SUPPORTED = "supported"
"""The share of an answer's sentences that a quote supports."""
_ALL = (*ANSWER_MEASURES, ANSWERED, SUPPORTED)


class UnknownAnswerEngine(ValueError):
    """There is no engine of that name; the message lists the engines."""


@dataclass(frozen=True)
class JudgedAnswer:
    """What an engine gave to a question.

    Attributes:
        text: The answer, with citation markers; empty where there is none.
        refused: Whether the engine refused. Where it did not and there is no text, its reply was cut off,
            withheld or empty.
        cited: The names of the cited passages: ids or URIs, as in `AnswerQuestion.gold`.
        quotes: The quoted texts.
        scores: The score of each candidate; None where the question has none or the engine gives none.
    """

    text: str
    refused: bool
    cited: tuple[str, ...] = ()
    quotes: tuple[str, ...] = ()
    scores: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class EngineEvaluation:
    """The evaluation of one engine on a collection.

    Attributes:
        values: Each of `ANSWER_MEASURES`, `ANSWERED` and `SUPPORTED` per question, (questions,) float64; NaN
            where a question cannot give it.
        milliseconds: The time of each answer, (questions,) float64; NaN where it is not known.
    """

    values: Mapping[str, npt.NDArray[np.float64]]
    milliseconds: npt.NDArray[np.float64]

    def mean(self, measure: str) -> float | None:
        """Returns the mean over the questions that give the measure; None if none does."""
        given = _given(self.values[measure])
        return float(given.mean()) if len(given) else None

    def interval(self, measure: str) -> tuple[float, float] | None:
        """Returns the 95% interval of `mean`; None if too few questions give the measure."""
        given = _given(self.values[measure])
        if measure in UNBOUNDED:
            return student_interval(given)
        return interval(given, 0.0, 1.0) if len(given) else None

    @property
    def p50_ms(self) -> float | None:
        """The median time of an answer; None if nothing was answered."""
        given = _given(self.milliseconds)
        return float(np.median(given)) if len(given) else None


def _given(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return values[~np.isnan(values)]


@dataclass(frozen=True)
class AnswerEvaluation:
    """The evaluation of engines on a collection.

    Attributes:
        dataset: The collection's name.
        kind: Its kind.
        questions: The number of its questions; a question with passages of two kinds is one.
        engines: The evaluation of each engine, by the engine's name.
    """

    dataset: str
    kind: str
    questions: int
    engines: Mapping[str, EngineEvaluation]

    def to_dict(self) -> dict[str, Any]:
        """Returns the form that `headwater evaluate-answers --json` prints."""
        return {
            "dataset": self.dataset,
            "kind": self.kind,
            "questions": self.questions,
            "engines": {
                name: {measure: each.mean(measure) for measure in ANSWER_MEASURES} | {"p50_ms": each.p50_ms}
                for name, each in self.engines.items()
            },
            ANSWERED: {name: each.mean(ANSWERED) for name, each in self.engines.items()},
            SUPPORTED: {name: each.mean(SUPPORTED) for name, each in self.engines.items()},
            "intervals": {
                name: {measure: each.interval(measure) for measure in ANSWER_MEASURES}
                for name, each in self.engines.items()
            },
        }

    def differences(self, one: str, other: str) -> dict[str, npt.NDArray[np.float64]]:
        """Returns what `one` has more than `other` of each measure, at each question.

        A question that one of them can not give a measure for, such as the citations of a refusal, is left
        out of that measure.

        Raises:
            UnknownAnswerEngine: There is no such engine.
        """
        for name in (one, other):
            if name not in self.engines:
                raise UnknownAnswerEngine(
                    f"there is no engine {name!r} to compare; there are {', '.join(self.engines)}"
                )
        values, others = self.engines[one].values, self.engines[other].values
        found = {name: _given(values[name] - others[name]) for name in _ALL}
        return {name: each for name, each in found.items() if len(each)}

    def compare(self, one: str, other: str) -> dict[str, Gain]:
        """Returns the mean of `differences` in each measure, with a 95% interval."""
        return paired_gains(self.differences(one, other))


def evaluate_answers(
    collection: AnswerCollection, measured: Mapping[str, Sequence[Mapping[str, float]]]
) -> AnswerEvaluation:
    """Returns the evaluation of engines on a collection.

    Args:
        collection: The questions.
        measured: By the engine's name, `measure_answer` of each question, in order, and `milliseconds` where
            the time of the answer is known.
    """
    evaluated = {}
    for name, rows in measured.items():
        values = {
            measure: np.array([row.get(measure, np.nan) for row in rows], dtype=np.float64)
            for measure in (*_ALL, "milliseconds")
        }
        milliseconds = values.pop("milliseconds")
        evaluated[name] = EngineEvaluation(values, milliseconds)
    asked = len({question.text for question in collection.questions})
    return AnswerEvaluation(collection.name, collection.kind, asked, evaluated)


def measure_answer(question: AnswerQuestion, answer: JudgedAnswer) -> dict[str, float]:
    """Returns the measures that a question gives of its answer: `ANSWER_MEASURES`, `ANSWERED`, `SUPPORTED`.

    Args:
        question: The question.
        answer: The answer.
    """
    row: dict[str, float] = {}
    if question.candidates:
        if answer.scores is not None:
            scores = answer.scores.tolist()
            row["map"] = average_precision(scores, question.relevant)
            row["mrr"] = reciprocal_rank(scores, question.relevant)
        return row
    if not question.answerable:
        return {"refused_on_negative": float(answer.refused)}
    row["refused"] = float(answer.refused)
    text = "" if answer.refused else strip_citation_markers(answer.text)
    row[ANSWERED] = float(bool(text))
    if question.exact:
        row["exact_contained"] = float(contains_any_part(text, question.exact))
        row["right"] = float(contains_every_part(text, question.exact))
    if question.ideal:
        row["token_f1"] = token_f1(text, question.ideal)
    if question.gold:
        row["citation_recall"] = citation_recall(answer.cited, question.gold)
    if not text:
        return row
    row["words"] = float(len(text.split()))
    row[SUPPORTED] = supported_share(answer.text, answer.quotes)
    if question.gold:
        row["citation_precision"] = citation_precision(answer.cited, question.gold)
    return row
