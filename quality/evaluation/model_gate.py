"""Decides whether a model may be served instead of the live one, by both's results on the same examples."""

from collections.abc import Mapping

from quality.betting import Values
from quality.evaluation.engine_gate import compared_figure, judged_figures
from quality.evaluation.verdict import Verdict, judge

RANKING = "vector ndcg@10"
"""What an embedder is trained for: the ranking by its vectors alone."""


def decide_model_release(
    differences: Mapping[str, Values],
    tolerance: float,
    meant: str,
    answers_tolerance: float | None = None,
) -> Verdict:
    """Returns whether a model may be served: better where it was meant to be, and nowhere worse.

    Args:
        differences: By figure, such as `hybrid ndcg@10` or `right`, what the model has more than the live one
            at each question or example.
        tolerance: How much worse a figure may be.
        meant: The figure that it was trained for: it has to be better.
        answers_tolerance: How much worse a figure of answers may be (`judged_figures`); None for as much.
    """
    if meant not in differences:
        return Verdict("undecided", f"{meant} was not measured")
    of_answers = tolerance if answers_tolerance is None else answers_tolerance
    judged = judged_figures(differences)
    figures = [
        compared_figure(name, each, of_answers if name in judged else tolerance, better=name == meant)
        for name, each in differences.items()
    ]
    return judge(figures, "the live model")
