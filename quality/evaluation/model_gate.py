"""Decides whether a model may be served instead of the live one, by both's results on the same examples."""

from collections.abc import Mapping
from dataclasses import replace

from quality.betting import Values
from quality.evaluation.engine_gate import judged_figures, undecided_without_right_answers
from quality.evaluation.verdict import LOG_LIKELIHOOD, ComparedFigure, Verdict, judge

RANKING = "vector ndcg@10"
"""What an embedder is trained for: the ranking by its vectors alone."""


def decide_model_release(
    differences: Mapping[str, Values],
    tolerance: float,
    meant: str,
    answers_tolerance: float | None = None,
) -> Verdict:
    """Returns whether a model may be served: better where it was meant to be, and nowhere worse.

    That a generator writes held-out responses likelier does not say that its answers are better, so without
    figures of answers nothing is decided about it, but for a refusal.

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
        ComparedFigure(name, each, of_answers if name in judged else tolerance, better=name == meant)
        for name, each in differences.items()
    ]
    verdict = judge(figures, "the live model")
    unknown = undecided_without_right_answers(judged) if meant == LOG_LIKELIHOOD else None
    if unknown and verdict.released:
        return replace(unknown, reason=f"{unknown.reason}; {verdict.reason}")
    return verdict
