"""How a job trains: its settings, and how many steps fit into the minutes that it was given."""

from typing import Literal

import torch
from pydantic import BaseModel, Field

Objective = Literal["listwise", "contrastive"]

_FLOPS_PER_S_OF_THREAD = 1e11
_FLOPS_PER_S_OF_GPU = 2e13
"""Less than was measured in training MiniLM in bfloat16 (docs/training.md). They are constants so that one
command makes one model: a measured speed would have it depend on what else the machine does."""
_FLOPS_PER_PARAMETER_AND_TOKEN = 6
"""Two forward and four backward (Kaplan et al., 2020, "Scaling Laws for Neural Language Models", 2.1)."""
_TRAINED_PER_EMBEDDED = 3
"""How much more a token costs that is trained on than one that is only embedded."""
_FEWEST_STEPS = 40


class EmbedderTraining(BaseModel, frozen=True):
    """The settings of an embedder's training; the defaults are what docs/training.md measures."""

    objective: Objective = "listwise"
    """Whether a teacher's whole list is learned, or only which passage is right."""
    minutes: float = Field(default=15, gt=0)
    """The time that it may take, on a machine as fast as the one of docs/training.md."""
    seed: int = 0
    """Decides which questions and passages come when."""
    learning_rate: float = Field(default=5e-5, gt=0)
    batch_questions: int = Field(default=32, ge=1)
    """Questions of one step of the optimiser."""
    fresh_passages: int = Field(default=8, ge=0)
    """Passages of one step that are embedded anew; the vectors of the others are as they were last."""
    temperature: float = Field(default=0.05, gt=0)
    """What cosines are divided by."""
    judged_share: float = Field(default=0.5, ge=0, le=1)
    """The share of a step's questions that people judged, where there are such."""
    most_passes: int = Field(default=8, ge=1)
    """How often a question comes at most, on average."""
    patience: int = Field(default=3, ge=1)
    """How many validations without a better one end the training."""
    validations: int = Field(default=6, ge=1)
    """How often it validates, and keeps a checkpoint, at even distances."""


def planned_steps(
    training: EmbedderTraining, questions: int, parameters: int, step_tokens: int, passage_tokens: int
) -> int:
    """Returns the number of steps of the optimiser.

    Args:
        training: The settings.
        questions: The number of questions to train on.
        parameters: Those of the network without its embeddings of tokens.
        step_tokens: Tokens that one step trains on.
        passage_tokens: Tokens of all passages, which are embedded before the first step.
    """
    if torch.cuda.is_available():
        speed = _FLOPS_PER_S_OF_GPU
    else:
        speed = _FLOPS_PER_S_OF_THREAD * torch.get_num_threads()
    token_s = _FLOPS_PER_PARAMETER_AND_TOKEN * parameters / speed
    left_s = training.minutes * 60 - passage_tokens * token_s / _TRAINED_PER_EMBEDDED
    useful = training.most_passes * questions // training.batch_questions
    return max(_FEWEST_STEPS, min(int(left_s / (step_tokens * token_s)), useful))
