"""How a job trains: its settings, and how many steps fit into the minutes that it was given."""

from typing import Literal

import torch
from pydantic import BaseModel, Field

Objective = Literal["listwise", "contrastive"]

_FLOPS_PER_S_OF_THREAD = 4e10
_FLOPS_PER_S_OF_GPU = 2e13
"""Less than was measured in training MiniLM in bfloat16 (docs/training.md), on the slower of two kinds of
processors: a plan that ends before its minutes is made whole, one that is cut off never lowers its learning
rate. They are constants so that one command makes one model: a measured speed would have it depend on what
else the machine does."""
FORWARD_FLOP = 2
"""For each parameter and token (Kaplan et al., 2020, "Scaling Laws for Neural Language Models", 2.1)."""
WEIGHTS_FLOP = 2
"""The gradients of weights, which the base of an adapter has none of."""
BACKWARD_FLOP = 2
"""The gradients of activations."""


class EmbedderTraining(BaseModel, frozen=True):
    """The settings of an embedder's training; the defaults are what docs/training.md measures."""

    objective: Objective = "listwise"
    """Whether a teacher's whole list is learned, or only which passage is right."""
    minutes: float = Field(default=15, gt=0)
    """The time that it may take, on a machine as fast as the one of docs/training.md."""
    seed: int = 0
    """Decides which questions and passages come when."""
    learning_rate: float = Field(default=1.5e-4, gt=0)
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
    base_share: float = Field(default=0.5, ge=0, lt=1)
    """The share of the base in the result, whose weights are a mean of the base's and the trained ones."""


class GeneratorTraining(BaseModel, frozen=True):
    """The settings of a generator's adapter; the defaults are for a small model on two cores, or one GPU."""

    minutes: float = Field(default=15, gt=0)
    """The time that it may take, on a machine as fast as the one of docs/training.md."""
    seed: int = 0
    """Decides the adapter's first weights, and which examples come when."""
    learning_rate: float = Field(default=5e-4, gt=0)
    rank: int = Field(default=16, ge=1)
    """Of each adapted product; the scale is two."""
    batch_examples: int = Field(default=8, ge=1)
    """Examples of one step of the optimiser."""
    micro_batch: int | None = Field(default=None, ge=1)
    """How many of them are computed at once, gradients being added up; None for 1 on a processor, whose units
    one keeps busy, and 4 on a GPU."""
    max_tokens: int = Field(default=1024, ge=16)
    """The most tokens of a prompt with its response; with too many, passages are taken out of it."""
    most_passes: int = Field(default=3, ge=1)
    """How often an example comes at most."""
    patience: int = Field(default=2, ge=1)
    """How many validations without a better one end the training."""
    validations: int = Field(default=4, ge=1)
    """How often it validates, and keeps a checkpoint, at even distances."""


def planned_steps(minutes: float, bounds: tuple[int, int], step_flop: float, other_flop: float) -> int:
    """Returns the number of steps of the optimiser.

    Args:
        minutes: The time that they may take.
        bounds: The fewest and the most steps.
        step_flop: Operations of one step.
        other_flop: Other operations that take part of the time, all together.
    """
    if torch.cuda.is_available():
        speed = _FLOPS_PER_S_OF_GPU
    else:
        speed = _FLOPS_PER_S_OF_THREAD * torch.get_num_threads()
    fewest, most = bounds
    return max(fewest, min(int((minutes * 60 * speed - other_flop) / step_flop), most))
