"""Decides whether an engine may answer instead of the one that does, from their answers to one set."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, Field

from quality.betting import Values
from quality.evaluation.verdict import ComparedFigure, Verdict, judge

BETTER_HIGHER = (
    "exact_contained",
    "right",
    "token_f1",
    "citation_precision",
    "citation_recall",
    "supported",
    "refused_on_negative",
)
"""Figures of which more is better."""
BETTER_LOWER = ("refused",)
"""Figures of which less is better: false refusals."""

_Of = TypeVar("_Of")


class EngineGate(BaseModel):
    """The limit that the figures of a changed engine must keep to, to answer instead of the one before."""

    tolerance: float = Field(default=0.02, ge=0.0, le=1.0)
    """How much worse a figure may be: it is to be shown that it is not worse by more."""


def judged_figures(figures: Mapping[str, _Of]) -> dict[str, _Of]:
    """Returns the figures of answers of which it is known whether more or less is better."""
    return {name: figures[name] for name in (*BETTER_HIGHER, *BETTER_LOWER) if name in figures}


def compared_figure(name: str, differences: Values, tolerance: float, better: bool = False) -> ComparedFigure:
    """Returns a figure for the tests; where less is better, the share that is not so."""
    if name in BETTER_LOWER:
        return ComparedFigure(f"not {name}", -differences, tolerance, better)
    return ComparedFigure(name, differences, tolerance, better)


def decide_engine_release(differences: Mapping[str, Values], gate: EngineGate) -> Verdict:
    """Returns whether a candidate may answer, from what it has more than the engine that answers.

    Args:
        differences: By figure, what the candidate has more at each question that gives it of both.
        gate: The tolerance.
    """
    judged = judged_figures(differences)
    if not judged:
        return Verdict("undecided", "no figure of the two engines could be compared")
    figures = [compared_figure(name, each, gate.tolerance) for name, each in judged.items()]
    return judge(figures, "the live engine")
