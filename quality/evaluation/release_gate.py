"""Decides whether a candidate state of the index may go live, from its metrics."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, Field

NDCG = "ndcg@10"
ANN_RECALL = "ann_recall@10"
QUESTIONS = "questions"


class ReleaseGate(BaseModel):
    """The limits that the metrics of a candidate must meet to go live."""

    tolerance: float = Field(default=0.02, ge=0.0, le=1.0)
    """How far a metric may fall below the live release's."""
    floor_ndcg: float = Field(default=0.5, ge=0.0, le=1.0)
    """The least nDCG@10 on the evaluation questions, for any release, the first included."""
    floor_recall: float = Field(default=0.95, ge=0.0, le=1.0)
    """The least recall@10 of the vector index against an exact search, for any release."""


@dataclass(frozen=True)
class ReleaseVerdict:
    """The release gate's verdict, with the reason as a sentence."""

    released: bool
    reason: str


def decide_release(
    candidate: Mapping[str, float], live: Mapping[str, float] | None, gate: ReleaseGate
) -> ReleaseVerdict:
    """Returns whether a candidate may go live, by comparing its metrics with the floors and the live release.

    Args:
        candidate: The candidate's metrics, at least `ndcg@10` and `ann_recall@10`, from 0 to 1; `questions`,
            how many were asked, is said where it is given.
        live: The live release's metrics on the same questions; None before the first release.
        gate: The floors and the tolerance.

    Returns:
        A refusal if any metric is missing, not a number, below its floor, or more than the tolerance below
        that of the live release; the reason names every such metric.
    """
    floors = {NDCG: gate.floor_ndcg, ANN_RECALL: gate.floor_recall}
    faults: list[str] = []
    for name, floor in floors.items():
        value = candidate.get(name, math.nan)
        if not math.isfinite(value):
            faults.append(f"{name} was not measured")
            continue
        if value < floor:
            faults.append(f"{name} is {value:.3f}, below the floor of {floor:.3f}")
        if live is None:
            continue
        before = live.get(name, math.nan)
        if not math.isfinite(before):
            faults.append(f"{name} of the live release was not measured")
        elif value < before - gate.tolerance:
            faults.append(f"{name} fell from {before:.3f} to {value:.3f}, more than {gate.tolerance:.3f}")
    if faults:
        return ReleaseVerdict(False, "; ".join(faults))
    reached = ", ".join(f"{name} {candidate[name]:.3f}" for name in floors)
    count = candidate.get(QUESTIONS)
    asked = "" if count is None else f" on {count:,.0f} question{'' if count == 1 else 's'}"
    against = "the floors, as the first release" if live is None else "the floors and the live release"
    return ReleaseVerdict(True, f"{reached}{asked}, against {against}")
