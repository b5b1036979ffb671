"""Decides whether an engine may answer instead of the one that does, from their answers to one set."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, Field

from quality.betting import Values
from quality.evaluation.answer_evaluation import ANSWERED, SUPPORTED
from quality.evaluation.verdict import ComparedFigure, Verdict, judge

OF_RIGHT_ANSWERS = ("exact_contained", "right", "token_f1", "citation_precision", "citation_recall")
"""Figures that tell a right answer from a wrong one."""
JUDGED = (*OF_RIGHT_ANSWERS, ANSWERED, SUPPORTED, "refused_on_negative")
"""Figures that a gate judges; more is better."""

_Of = TypeVar("_Of")


class EngineGate(BaseModel):
    """The limit that the figures of a changed engine must keep to, to answer instead of the one before."""

    tolerance: float = Field(default=0.02, ge=0.0, le=1.0)
    """How much worse a figure may be: it is to be shown that it is not worse by more."""


def judged_figures(figures: Mapping[str, _Of]) -> dict[str, _Of]:
    """Returns the figures of answers that a gate judges."""
    return {name: figures[name] for name in JUDGED if name in figures}


def undecided_without_right_answers(figures: Mapping[str, Values]) -> Verdict | None:
    """Returns that nothing is decided where no figure tells right answers from wrong ones; None if one does.

    An engine that answers every question with any quotation is as good as the live one in all other figures.
    """
    if not set(OF_RIGHT_ANSWERS).isdisjoint(figures):
        return None
    return Verdict(
        "undecided",
        "not decided: no question that both answered says what a right answer is; give questions with "
        "`exact_answer`, `ideal_answer` or the documents that answer them",
    )


def decide_engine_release(differences: Mapping[str, Values], gate: EngineGate) -> Verdict:
    """Returns whether a candidate may answer, from what it has more than the engine that answers.

    Args:
        differences: By figure, what the candidate has more at each question that gives it of both.
        gate: The tolerance.
    """
    figures = [
        ComparedFigure(name, each, gate.tolerance) for name, each in judged_figures(differences).items()
    ]
    return undecided_without_right_answers(differences) or judge(figures, "the live engine")
