"""Decides whether a model may be served instead of the live one, by both's results on the same examples."""

from collections.abc import Mapping

from quality.evaluation.engine_gate import gain_line, judged_figures, worse_figures
from quality.evaluation.release_gate import ReleaseVerdict

RANKING = "vector ndcg@10"
"""What an embedder is trained for: the ranking by its vectors alone."""
LOG_LIKELIHOOD = "log_likelihood"
"""What a generator's adapter is trained for: that of a token of held-out responses, in nats."""


def decide_model_release(
    gains: Mapping[str, Mapping[str, float]],
    tolerance: float,
    meant: str,
    answers_tolerance: float | None = None,
) -> ReleaseVerdict:
    """Returns whether a model may be served: better where it was meant to be, and nowhere worse.

    Args:
        gains: By figure, such as `hybrid ndcg@10` or `right`, the mean `difference` to the live model over
            the same questions or examples and its 95% interval from `low` to `high`
            (`quality.evaluation.retrieval_metrics.paired_gain`).
        tolerance: How much worse a figure may be.
        meant: The figure that it was trained for.
        answers_tolerance: How much worse a figure of answers may be (`judged_figures`); None for as much.

    Returns:
        A refusal, with every reason, if the interval of the figure that is meant does not lie above zero, or
        a figure is significantly worse and by more than the tolerance.
    """
    if meant not in gains:
        return ReleaseVerdict(False, f"{meant} was not measured")
    of_answers = judged_figures(gains)
    others = {name: gain for name, gain in gains.items() if name not in of_answers}
    worse = worse_figures(others, tolerance)
    worse += worse_figures(of_answers, tolerance if answers_tolerance is None else answers_tolerance)
    faults = [f"worse than the live model: {', '.join(worse)}"] if worse else []
    if gains[meant]["low"] <= 0:
        faults.append(f"not better where it was meant to be: {gain_line(meant, gains[meant])}")
    if faults:
        return ReleaseVerdict(False, "; ".join(faults))
    said = ", ".join(gain_line(name, gain) for name, gain in gains.items())
    return ReleaseVerdict(True, f"better, and nowhere worse: {said}")
