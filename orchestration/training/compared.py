"""What a comparison of two models found: figures, gains and the verdict, of embedders and adapters alike."""

from dataclasses import dataclass

from quality.evaluation.answer_evaluation import AnswerEvaluation
from quality.evaluation.engine_gate import judged_figures
from quality.evaluation.verdict import Gain
from training.registry.versions import ModelDecision, ModelRegistry, ModelVersion

MOST_ASKED = 300
"""The most questions that both models answer, where nobody names questions: at a tolerance of 0.02, 208 that
they answer equally well show that one is no worse."""


@dataclass(frozen=True)
class ComparedModels:
    """Two models on the same examples and questions.

    Attributes:
        one: The first model.
        other: The one that it is compared with.
        dataset: What they were measured on.
        questions: How many questions were answered on the whole path, by both.
        figures: By model, its figures; empty if the verdict was known and nothing was measured again.
        gains: How much the first is above the other.
        decision: approved if the first may be served instead of the other, refused, or undecided.
        reason: Why, in a sentence.
        questions_needed: How many questions it takes to decide; None where it is decided.
    """

    one: str
    other: str
    dataset: str
    questions: int
    figures: dict[str, dict[str, float]]
    gains: dict[str, Gain]
    decision: str
    reason: str
    questions_needed: int | None

    @property
    def approved(self) -> bool:
        """Whether the first may be served instead of the other."""
        return self.decision == "approved"


def answer_figures(answers: AnswerEvaluation, *names: str) -> dict[str, dict[str, float]]:
    """Returns the figures of the answers of models: what is better or worse, and both have."""
    judged = judged_figures(answers.compare(*names))
    means = {name: {figure: answers.engines[name].mean(figure) for figure in judged} for name in names}
    return {
        name: {key: mean for key, mean in each.items() if mean is not None} for name, each in means.items()
    }


def known_decision(
    registry: ModelRegistry, version: ModelVersion, against: str, questions_digest: str
) -> ModelDecision | None:
    """Returns what was found of a version beside a model on the same questions; None if nothing was."""
    for each in registry.decisions(version.name):
        key = (each.version, each.against, each.questions_digest)
        if key == (version.version, against, questions_digest) and each.pair_verdict:
            when = f"{each.decided_at:%Y-%m-%d %H:%M} UTC"
            return each.model_copy(update={"reason": f"decided on {each.dataset} at {when}: {each.reason}"})
    return None


def log_verdict(registry: ModelRegistry, version: ModelVersion, decision: ModelDecision) -> ModelDecision:
    """Keeps what was found of a version; where other questions decide about it, as information only."""
    found = decision.pair_verdict
    decides = registry.deciding_verdict(version, decision.against) if found and decision.against else None
    if found and decides and not decides.gives_way_to(found):
        decision = decision.model_copy(update={"reason": f"{decides.overrules()}; {decision.reason}"})
    registry.log_decision(version.name, decision)
    return decision
