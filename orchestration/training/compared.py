"""What a comparison of two models found: figures, gains and the verdict, of embedders and adapters alike."""

from dataclasses import dataclass

from quality.evaluation.answer_evaluation import AnswerEvaluation
from quality.evaluation.engine_gate import judged_figures

MOST_ASKED = 50
"""The most questions that both models answer, where nobody names questions."""


@dataclass(frozen=True)
class ComparedModels:
    """Two models on the same examples and questions.

    Attributes:
        one: The first model.
        other: The one that it is compared with.
        dataset: What they were measured on.
        questions: How many questions were answered on the whole path, by both.
        figures: By model, its figures.
        gains: How much the first is above the other, with the ends of the 95% interval. Of false refusals
            (`refused`) less is better.
        approved: Whether the first may be served instead of the other.
        reason: Why, in a sentence.
    """

    one: str
    other: str
    dataset: str
    questions: int
    figures: dict[str, dict[str, float]]
    gains: dict[str, dict[str, float]]
    approved: bool
    reason: str


def answer_figures(
    answers: AnswerEvaluation, one: str, other: str
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Returns what the answers of two models gave: the figures of each, and the gains of the first.

    Both have only what is better or worse (`judged_figures`), and what a question gives of both models.
    """
    gains = {name: dict(gain) for name, gain in judged_figures(answers.compare(one, other)).items()}
    means = {name: {figure: answers.engines[name].mean(figure) for figure in gains} for name in (one, other)}
    return (
        {name: {key: mean for key, mean in each.items() if mean is not None} for name, each in means.items()},
        gains,
    )
