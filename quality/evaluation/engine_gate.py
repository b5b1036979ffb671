"""Decides whether an engine may answer instead of the one that does, from their answers to one set."""

from collections.abc import Mapping

from pydantic import BaseModel, Field

from quality.evaluation.release_gate import ReleaseVerdict

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


class EngineGate(BaseModel):
    """The limit that the figures of a changed engine must keep to, to answer instead of the one before."""

    tolerance: float = Field(default=0.02, ge=0.0, le=1.0)
    """How much worse a figure may be, where the 95% interval of the difference lies on the worse side too."""


def decide_engine_release(gains: Mapping[str, Mapping[str, float]], gate: EngineGate) -> ReleaseVerdict:
    """Returns whether a candidate may answer, from what it has more than the engine that answers.

    Args:
        gains: By figure, the mean `difference` and the ends `low` and `high` of its 95% interval, over the
            same questions (`quality.evaluation.retrieval_metrics.paired_gain`).
        gate: The tolerance.

    Returns:
        A refusal if any figure is significantly worse and by more than the tolerance, with every such figure
        in the reason, or if there is no figure to compare.
    """
    worse, compared = [], []
    for name in (*BETTER_HIGHER, *BETTER_LOWER):
        if name not in gains:
            continue
        gain = gains[name]
        sign = 1.0 if name in BETTER_HIGHER else -1.0
        best_case = max(sign * gain["low"], sign * gain["high"])
        interval = f"{name} {gain['difference']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        compared.append(interval)
        if sign * gain["difference"] < -gate.tolerance and best_case < 0:
            worse.append(interval)
    if not compared:
        return ReleaseVerdict(False, "no figure of the two engines could be compared")
    if worse:
        return ReleaseVerdict(False, f"worse than the live engine: {', '.join(worse)}")
    return ReleaseVerdict(True, f"no worse than the live engine: {', '.join(compared)}")
