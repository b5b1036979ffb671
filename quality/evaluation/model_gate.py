"""Decides whether an embedder may be served instead of the live one, by both's results on one collection."""

from collections.abc import Mapping

from quality.evaluation.release_gate import ReleaseVerdict

_MEANT = "vector ndcg@10"
"""What an embedder is trained for: the ranking by its vectors alone."""


def decide_model_release(gains: Mapping[str, Mapping[str, float]], tolerance: float) -> ReleaseVerdict:
    """Returns whether a model may be served: better where it was meant to be, and nowhere worse.

    Args:
        gains: By search mode and measure, such as `hybrid ndcg@10`, the mean `difference` to the live model
            over the same queries and its 95% interval from `low` to `high`
            (`quality.evaluation.retrieval_metrics.paired_gain`).
        tolerance: How much worse a figure may be.

    Returns:
        A refusal, with every reason, if the interval of `vector ndcg@10` does not lie above zero, or a figure
        is significantly worse and by more than the tolerance.
    """
    if _MEANT not in gains:
        return ReleaseVerdict(False, f"{_MEANT} was not measured")
    said = {
        name: f"{name} {gain['difference']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        for name, gain in gains.items()
    }
    worse = [
        said[name] for name, gain in gains.items() if gain["difference"] < -tolerance and gain["high"] < 0
    ]
    faults = [f"worse than the live model: {', '.join(worse)}"] if worse else []
    if gains[_MEANT]["low"] <= 0:
        faults.append(f"not better where it was meant to be: {said[_MEANT]}")
    if faults:
        return ReleaseVerdict(False, "; ".join(faults))
    return ReleaseVerdict(True, f"better, and nowhere worse: {', '.join(said.values())}")
