"""Decides whether a candidate state of the index may go live, from its metrics."""

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from pydantic import BaseModel, Field

from quality.betting import Values
from quality.evaluation.verdict import ComparedFigure, Verdict, judge, shown_worse

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


def decide_release(
    candidate: Mapping[str, float],
    live: Mapping[str, float] | None,
    gate: ReleaseGate,
    gains: Mapping[str, Values] = MappingProxyType({}),
    another_method: bool = False,
) -> Verdict:
    """Returns whether a candidate may go live, from the floors and from the live release.

    Where the live release was made by the same embedder and chunker, only documents changed, and the
    questions are a fixed set of checks: an index that lost none of the answers has the same figures, so the
    means are compared, and a lake with few questions goes on releasing by itself. Another embedder or chunker
    is another method, of whose figures the questions are a sample: that it is no worse has to be shown, as of
    an engine. By either, no tenant may be shown to be worse off: means over all hide what a small one loses.

    Args:
        candidate: The candidate's metrics, at least `ndcg@10` and `ann_recall@10`, from 0 to 1; `questions`,
            how many were asked, is said where it is given.
        live: The live release's metrics on the same questions; None before the first release.
        gate: The floors and the tolerance.
        gains: By tenant, the candidate's nDCG@10 less the live release's at each question, (questions,);
            empty if the live release could not be asked.
        another_method: Whether the candidate is by another embedder or chunker than the live release.

    Returns:
        A refusal if any metric is missing, not a number, or below its floor; by the same method also if one
        is more than the tolerance below that of the live release, and by another one if that is shown of the
        nDCG; and if it is shown of a tenant's. The reason names every such metric.
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
        if live is None or another_method:
            continue
        before = live.get(name, math.nan)
        if not math.isfinite(before):
            faults.append(f"{name} of the live release was not measured")
        elif value < before - gate.tolerance:
            faults.append(f"{name} fell from {before:.3f} to {value:.3f}, more than {gate.tolerance:.3f}")
    of_tenants = [ComparedFigure(tenant, each, gate.tolerance) for tenant, each in gains.items()]
    fell = ((each.name, -each.gains.mean()) for each in shown_worse(of_tenants))
    faults += [f"{NDCG} of tenant {tenant} fell by {by:.3f}" for tenant, by in fell]
    if faults:
        return Verdict("refused", "; ".join(faults))
    reached = ", ".join(f"{name} {candidate[name]:.3f}" for name in floors)
    if another_method and gains:
        over_all = ComparedFigure(NDCG, np.concatenate([*gains.values()]), gate.tolerance)
        verdict = judge([over_all], "the live release")
        return replace(verdict, reason=f"{reached}; another embedder or chunker: {verdict.reason}")
    if another_method:
        return Verdict(
            "undecided",
            f"{reached}; another embedder or chunker, and the live release could not be asked the same "
            "questions. A person decides it with --because",
        )
    count = candidate.get(QUESTIONS)
    asked = "" if count is None else f" on {count:,.0f} question{'' if count == 1 else 's'}"
    against = "the floors, as the first release" if live is None else "the floors and the live release"
    return Verdict("released", f"{reached}{asked}, against {against}")
