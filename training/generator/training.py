"""Trains a generator's low-rank adapter on prompts with their responses."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from common.counts import counted
from common.progress import Progress
from training.generator.examples import WrittenExample, WrittenSplits
from training.generator.network import AdapterNetwork, TokenizedExamples
from training.jobs.loop import TrainingDiverged, TrainingOutcome, run_loop
from training.jobs.plan import BACKWARD_FLOP, FORWARD_FLOP, GeneratorTraining, planned_steps
from training.jobs.ranked_lists import TooFewExamples

_FEWEST_STEPS = 12
_FEWEST_TRAINED = 8
_FEWEST_HELD_OUT = 4
_MOST_VALIDATION = 24
_MOST_TEST = 200


@dataclass(frozen=True)
class GeneratorOutcome:
    """What became of a generator's training.

    Attributes:
        training: As for any model; its scores are likelihoods of a token, from 0 to 1.
        examples: How many were trained on.
        tokens: How many tokens these have.
        validation: How many were validated on.
        batch: Examples of a step.
        before: The loss of each held-out example by the base, in nats a token; (examples,) float64.
        after: The same by the adapter.
    """

    training: TrainingOutcome
    examples: int
    tokens: int
    validation: int
    batch: int
    before: npt.NDArray[np.float64]
    after: npt.NDArray[np.float64]


def train_generator(
    network: AdapterNetwork,
    splits: WrittenSplits,
    training: GeneratorTraining,
    folder: Path,
    progress: Callable[[str], None],
) -> GeneratorOutcome:
    """Trains an adapter, leaves the best validated weights in it, and measures it on held-out examples.

    Args:
        network: The base with its adapter, which is changed.
        splits: The examples.
        training: The settings.
        folder: The job's folder, with its checkpoints.
        progress: Takes a line about what happened.

    Raises:
        TooFewExamples: There are too few, or all have one response.
        TrainingDiverged: The loss is no number any more.
        OutOfMemory: One example does not fit into the memory.
        CheckpointNotWritten: The disk is full; the checkpoint before is as it was.
    """
    train = _tokenized(network, splits.train, _FEWEST_TRAINED, "train on", progress)
    validation = _tokenized(
        network, splits.validation[:_MOST_VALIDATION], _FEWEST_HELD_OUT, "validate on", progress
    )
    test = network.tokenize(splits.test[:_MOST_TEST])
    if not test.names:
        progress(
            "warning: no example is held out to measure the result on: `headwater models compare` with "
            "--data measures it on a file of others"
        )
    if len({each.responses[0] for each in splits.train}) < 2:
        raise TooFewExamples(
            "all examples have the same response, which would be learned for every prompt: give examples "
            "with others"
        )
    learner = _ExampleLearner(network, train, validation, training)
    progress(f"training on {counted(len(train.names), 'example')}, validating on {len(validation.names):,}")
    optimizer = torch.optim.AdamW(
        [each for _, each in network.named_parameters()], lr=training.learning_rate, weight_decay=0.0
    )
    with network.model.disable_adapter():
        before = token_losses(network, test, "held-out examples measured by the base")
    outcome = run_loop(learner, training, optimizer, folder, progress, train.left_out)
    after = token_losses(network, test, "held-out examples measured")
    return GeneratorOutcome(
        outcome,
        len(train.names),
        int(train.lengths.sum()),
        len(validation.names),
        learner.batch,
        before,
        after,
    )


def _tokenized(
    network: AdapterNetwork,
    examples: list[WrittenExample],
    fewest: int,
    what: str,
    progress: Callable[[str], None],
) -> TokenizedExamples:
    found = network.tokenize(examples)
    if found.left_out:
        progress(
            f"{found.left_out} of {len(examples)} examples to {what} are longer than the "
            f"{network.max_tokens} tokens that the model reads, and left out"
        )
    if len(found.names) < fewest:
        raise TooFewExamples(
            f"{counted(len(found.names), 'example')} to {what}, and {fewest} are needed at least, beside "
            "those that are held out (of a file or a folder four to validate on and four to measure on, or a "
            "tenth each if that is more): give more, or take a training set of more documents (`headwater "
            "datasets list`)"
        )
    return found


@torch.no_grad()
def token_losses(network: AdapterNetwork, examples: TokenizedExamples, what: str) -> npt.NDArray[np.float64]:
    """Returns the mean loss of a token of each example's response, in nats; (examples,). Progress is said."""
    losses = np.zeros(len(examples.names))
    progress = Progress(what, len(examples.names))
    for row in np.argsort(examples.lengths, kind="stable"):
        rows = np.array([row])
        losses[rows] = network.losses(examples, rows).double().cpu().numpy() / examples.responses[rows]
        progress.advance()
    return losses


class _ExampleLearner:
    unit = "examples"
    figure = "validation likelihood of a token"

    def __init__(
        self,
        network: AdapterNetwork,
        train: TokenizedExamples,
        validation: TokenizedExamples,
        training: GeneratorTraining,
    ) -> None:
        self.network, self.examples, self.validation = network, train, validation
        self.seed, self.device = training.seed, network.device
        self.batch = min(training.batch_examples, len(train.names))
        at_once = training.micro_batch or (1 if network.device.type == "cpu" else 4)
        self.micro_batch = min(at_once, self.batch)
        most = math.ceil(training.most_passes * len(train.names) / self.batch)
        token_flop = FORWARD_FLOP + BACKWARD_FLOP + network.recomputes * FORWARD_FLOP
        validated = (training.validations + 1) * int(validation.lengths.sum())
        self.planned = planned_steps(
            training.minutes,
            (_FEWEST_STEPS, max(most, _FEWEST_STEPS)),
            token_flop * network.parameters * self.batch * train.lengths.mean(),
            FORWARD_FLOP * network.parameters * validated,
        )

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        return self.network.named_parameters()

    def begin(self, kept: Mapping[str, torch.Tensor] | None) -> None:
        pass

    def kept(self) -> dict[str, torch.Tensor]:
        return {}

    def stepped(self) -> None:
        pass

    def spare_memory(self) -> bool:
        if self.network.recomputes:
            return False
        self.network.recompute()
        return True

    def score(self) -> float:
        losses = token_losses(self.network, self.validation, "validation examples measured")
        weights = self.validation.responses / self.validation.responses.sum()
        return math.exp(-float((losses * weights).sum()))

    def gradients(self, step: int, micro_batch: int) -> float:
        rows = self._chosen(step)
        tokens = int(self.examples.responses[rows].sum())
        total = 0.0
        progress = Progress(f"examples of step {step + 1} learned", len(rows))
        for part in np.array_split(rows, -(-len(rows) // micro_batch)):
            losses = self.network.losses(self.examples, part)
            finite = torch.isfinite(losses.detach()).cpu().numpy()
            if not finite.all():
                names = ", ".join(self.examples.names[row] for row in part[~finite])
                raise TrainingDiverged(
                    f"the loss of step {step} is no number, at the examples {names}: the last checkpoint is "
                    "kept; these examples left out, or another base, may help"
                )
            loss = losses.sum() / tokens
            loss.backward()
            total += float(loss.detach())
            progress.advance(len(part))
        return total

    def _chosen(self, step: int) -> npt.NDArray[np.intp]:
        """Returns the examples of a step, like lengths together; each comes once before any comes again."""
        count = len(self.examples.names)
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        passes = {
            number: np.random.default_rng([self.seed, number]).permutation(count)
            for number in np.unique(places // count)
        }
        rows = np.array([passes[place // count][place % count] for place in places], np.intp)
        return rows[np.argsort(self.examples.lengths[rows], kind="stable")]
