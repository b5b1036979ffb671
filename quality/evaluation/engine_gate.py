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


def gain_line(name: str, gain: Mapping[str, float]) -> str:
    """Returns a figure's difference with its interval, such as `right -0.100 [-0.200, -0.030]`."""
    return f"{name} {gain['difference']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"


def worse_figures(gains: Mapping[str, Mapping[str, float]], tolerance: float) -> list[str]:
    """Returns the figures that are significantly worse, and by more than the tolerance, as `gain_line` does.

    Of a figure more is better, unless it is one of `BETTER_LOWER`.

    Args:
        gains: By figure, the mean `difference` and the ends `low` and `high` of its 95% interval
            (`quality.evaluation.retrieval_metrics.paired_gain`).
        tolerance: How much worse a figure may be.
    """
    worse = []
    for name, gain in gains.items():
        sign = -1.0 if name in BETTER_LOWER else 1.0
        best_case = max(sign * gain["low"], sign * gain["high"])
        if sign * gain["difference"] < -tolerance and best_case < 0:
            worse.append(gain_line(name, gain))
    return worse


def judged_figures(gains: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    """Returns the figures of answers of which it is known whether more or less is better."""
    return {name: gains[name] for name in (*BETTER_HIGHER, *BETTER_LOWER) if name in gains}


def decide_engine_release(gains: Mapping[str, Mapping[str, float]], gate: EngineGate) -> ReleaseVerdict:
    """Returns whether a candidate may answer, from what it has more than the engine that answers.

    Args:
        gains: By figure, what it has more over the same questions, as `worse_figures` takes it.
        gate: The tolerance.

    Returns:
        A refusal if any figure is significantly worse and by more than the tolerance, with every such figure
        in the reason, or if there is no figure to compare.
    """
    judged = judged_figures(gains)
    if not judged:
        return ReleaseVerdict(False, "no figure of the two engines could be compared")
    if worse := worse_figures(judged, gate.tolerance):
        return ReleaseVerdict(False, f"worse than the live engine: {', '.join(worse)}")
    compared = ", ".join(gain_line(name, gain) for name, gain in judged.items())
    return ReleaseVerdict(True, f"no worse than the live engine: {compared}")
