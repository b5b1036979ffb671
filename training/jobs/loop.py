"""The loop of a training: steps, validations, checkpoints, and what is done where memory or time run out.

Every step is a function of the seed, its number and the state before, so a job that was killed goes on from
its checkpoint and ends with the same weights, on the same machine with as many threads.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
import torch
from pydantic import TypeAdapter

from common.progress import progress_line
from training.jobs.checkpoints import Checkpoints, Standing

_WARM_UP_STEPS = 30
_LAST_RATE = 0.05
_LARGEST_GRADIENT = 1.0
_SAID_EACH_S = 5.0


class TrainingDiverged(RuntimeError):
    """The loss is no number any more; the message names the step and the examples."""


class OutOfMemory(MemoryError):
    """One example does not fit into the memory."""


class Schedule(Protocol):
    """The settings of a loop."""

    @property
    def minutes(self) -> float:
        """The time that it may take."""
        ...

    @property
    def seed(self) -> int:
        """Decides what comes when."""
        ...

    @property
    def learning_rate(self) -> float:
        """The highest rate."""
        ...

    @property
    def patience(self) -> int:
        """How many validations without a better one end the training."""
        ...

    @property
    def validations(self) -> int:
        """How often it validates, at even distances."""
        ...


class Learner(Protocol):
    """What a loop trains.

    Attributes:
        unit: What a batch consists of, in the plural.
        figure: The name of the validation's figure.
        batch: How many make a step of the optimiser.
        micro_batch: How many are computed at once, unless memory runs out.
        planned: The number of steps.
        device: Where it is.
    """

    unit: str
    figure: str
    batch: int
    micro_batch: int
    planned: int
    device: torch.device

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Returns the parameters that are trained, by name, always in one order."""
        ...

    def begin(self, kept: Mapping[str, torch.Tensor] | None) -> None:
        """Makes what it needs beside weights: anew, or of what `kept` of a checkpoint holds."""
        ...

    def kept(self) -> dict[str, torch.Tensor]:
        """Returns what a checkpoint holds beside weights; names do not begin with `adam.`."""
        ...

    def gradients(self, step: int, micro_batch: int) -> float:
        """Adds up the gradients of a step, and returns its mean loss.

        Raises:
            TrainingDiverged: The loss is no number.
        """
        ...

    def spare_memory(self) -> bool:
        """Takes less memory from here on at the cost of time; returns False if it can not."""
        ...

    def stepped(self) -> None:
        """Is called after the weights have changed by what `gradients` said last."""
        ...

    def score(self) -> float:
        """Returns the validation's figure; more is better."""
        ...


@dataclass(frozen=True)
class TrainingOutcome:
    """What became of a training.

    Attributes:
        before: The base's validation.
        after: The result's.
        standing: How far it came, with its losses and scores.
        planned: Steps that were planned.
        ended: Why it ended.
        cut_off: The number of texts that are longer than what the model reads.
    """

    before: float
    after: float
    standing: Standing
    planned: int
    ended: str
    cut_off: int


def outcome_as_json(outcome: TrainingOutcome) -> dict[str, Any]:
    """Returns what became of a training in plain values, as JSON has them."""
    said: dict[str, Any] = TypeAdapter(TrainingOutcome).dump_python(outcome)
    return said


def outcome_of_json(said: dict[str, Any]) -> TrainingOutcome:
    """Returns what became of a training."""
    return TypeAdapter(TrainingOutcome).validate_python(said)


def run_loop(
    learner: Learner,
    schedule: Schedule,
    optimizer: torch.optim.Optimizer,
    folder: Path,
    progress: Callable[[str], None],
    cut_off: int = 0,
) -> TrainingOutcome:
    """Trains a learner, and leaves the best validated weights in it.

    Args:
        learner: What is trained.
        schedule: The settings.
        optimizer: An Adam over the learner's parameters.
        folder: The job's folder, with its checkpoints.
        progress: Takes a line about what happened.
        cut_off: The outcome's.

    Raises:
        TrainingDiverged: The loss is no number any more.
        OutOfMemory: One example does not fit into the memory.
        CheckpointNotWritten: The disk is full; the checkpoint before is as it was.
    """
    return _Loop(learner, schedule, optimizer, folder, progress).run(cut_off)


class _Loop:
    def __init__(
        self,
        learner: Learner,
        schedule: Schedule,
        optimizer: torch.optim.Optimizer,
        folder: Path,
        progress: Callable[[str], None],
    ) -> None:
        self.learner, self.schedule, self.optimizer, self.say = learner, schedule, optimizer, progress
        self.checkpoints = Checkpoints(folder)
        self.standing = Standing(micro_batch=learner.micro_batch)

    def run(self, cut_off: int) -> TrainingOutcome:
        began = time.monotonic()
        torch.manual_seed(self.schedule.seed)
        before = self.learner.score()
        earlier_s = self._begin()
        planned = self.learner.planned
        every = max(1, -(-planned // self.schedule.validations))
        losses: list[float] = []
        stepping, first = time.monotonic(), self.standing.step
        said = stepping
        while (ended := self._ending()) is None:
            losses.append(self._step(self.standing.step))
            self.standing.step += 1
            self.standing.seconds = earlier_s + time.monotonic() - began
            if time.monotonic() - said > _SAID_EACH_S:
                said = time.monotonic()
                self._say_progress(losses, first, said - stepping, every)
            if self.standing.step % every and self.standing.step != planned:
                continue
            self.standing.losses.append(float(np.mean(losses)))
            losses = []
            self._validate()
        self._load(self.checkpoints.load_best())
        after = self.standing.best_score if self.standing.best_score is not None else before
        return TrainingOutcome(before, after, self.standing, planned, ended, cut_off)

    def _begin(self) -> float:
        """Goes on from the checkpoint, or begins; returns the seconds that it took so far."""
        found = self.checkpoints.load()
        if found is None:
            self.learner.begin(None)
            return 0.0
        self.standing, tensors = found
        self.say(f"going on from the checkpoint after step {self.standing.step} of {self.learner.planned}")
        parameters = dict(self.learner.named_parameters())
        self._load({name: tensors.pop(name) for name in parameters})
        for name, parameter in parameters.items():
            if f"adam.{name}.exp_avg" in tensors:
                state = {key: tensors.pop(f"adam.{name}.{key}") for key in ("step", "exp_avg", "exp_avg_sq")}
                self.optimizer.state[parameter] = {
                    key: each if key == "step" else each.to(self.learner.device)
                    for key, each in state.items()
                }
        self.learner.begin(tensors)
        return self.standing.seconds

    def _step(self, step: int) -> float:
        """Makes a step of the optimiser, in smaller batches where memory runs out; returns the mean loss."""
        learner = self.learner
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                loss = learner.gradients(step, self.standing.micro_batch)
                break
            except RuntimeError as error:  # torch's own class on a GPU, a plain one on a processor
                if not _is_out_of_memory(error):
                    raise
                if self.standing.micro_batch == 1:
                    if learner.spare_memory():
                        self.say(
                            f"out of memory in step {step}: from here on values of layers are computed again "
                            "in place of being kept, which takes longer"
                        )
                        continue
                    raise OutOfMemory(
                        f"one of the {learner.unit} does not fit into the memory with what belongs to it: "
                        "train a smaller base, or on a machine with more"
                    ) from error
            self.standing.micro_batch = max(1, self.standing.micro_batch // 2)
            self.say(
                f"out of memory in step {step}: {self.standing.micro_batch} {learner.unit} at a time from "
                f"here on, {-(-learner.batch // self.standing.micro_batch)} times a step"
            )
            if learner.device.type == "cuda":
                torch.cuda.empty_cache()
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.learning_rate * self._rate(step)
        torch.nn.utils.clip_grad_norm_([each for _, each in learner.named_parameters()], _LARGEST_GRADIENT)
        self.optimizer.step()
        learner.stepped()
        return loss

    def _rate(self, step: int) -> float:
        warm_up = min(_WARM_UP_STEPS, max(1, self.learner.planned // 10))
        return min((step + 1) / warm_up, max(_LAST_RATE, 1 - step / self.learner.planned))

    def _validate(self) -> None:
        """Validates, and writes a checkpoint."""
        standing = self.standing
        score = self.learner.score()
        standing.steps.append(standing.step)
        standing.scores.append(score)
        standing.peak_bytes = max(standing.peak_bytes, psutil.Process().memory_info().rss)
        weights = {name: each.detach().cpu() for name, each in self.learner.named_parameters()}
        if standing.best_score is None or score > standing.best_score:
            standing.best_score, standing.best_step, standing.worse = score, standing.step, 0
            self.checkpoints.save_best(standing.step, weights)
        else:
            standing.worse += 1
        adam = {
            f"adam.{name}.{key}": value.detach().cpu()
            for name, parameter in self.learner.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        self.checkpoints.save(standing, weights | adam | self.learner.kept())
        self.say(
            f"step {standing.step} of {self.learner.planned}: loss {standing.losses[-1]:.4f}, "
            f"{self.learner.figure} {score:.4f}, best {standing.best_score:.4f}"
        )

    def _ending(self) -> str | None:
        """Returns why the training ends after the steps that were made, or None if it goes on."""
        standing, planned = self.standing, self.learner.planned
        if standing.steps and standing.steps[-1] == standing.step:  # it ends where it has just validated
            if standing.step >= planned:
                return "all steps were made"
            if standing.worse >= self.schedule.patience:
                return f"the validation has not become better {standing.worse} times"
            if standing.seconds > self.schedule.minutes * 60:
                minutes = f"{self.schedule.minutes:g}"
                return f"its {minutes} minutes were over after {standing.step} of {planned} steps"
        return None

    def _load(self, weights: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.learner.named_parameters():
                parameter.copy_(weights[name])

    def _say_progress(self, losses: Sequence[float], first: int, seconds: float, every: int) -> None:
        step, planned = self.standing.step, self.learner.planned
        rest_s = self.schedule.minutes * 60 - self.standing.seconds
        last = step + max(0.0, rest_s) * (step - first) / seconds  # when the minutes are over
        last = min(planned, max(every, -(-int(last) // every) * every))  # it ends where it validates
        line = progress_line("steps trained", step, planned, seconds, first, until=last)
        logging.getLogger("common.progress").info("%s, loss %.4f", line, np.mean(losses[-20:] or [np.nan]))


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
