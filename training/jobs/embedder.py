"""Trains an embedder on ranked lists: the loop, from the base's first vectors to the best checkpoint.

Passages cost most, so few of them are embedded in a step: the others' vectors are those of when they were
embedded last, as in a cross-batch memory (Wang et al., 2020, "Cross-Batch Memory for Embedding Learning").
Every step is a function of the seed, its number and the state before, so a job that was killed goes on from
its checkpoint and ends with the same weights, on the same machine with as many threads.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import torch

from retrieval.progress import progress_line
from training.jobs.checkpoints import Checkpoints, Standing
from training.jobs.losses import listwise_loss
from training.jobs.network import EmbeddingNetwork
from training.jobs.plan import EmbedderTraining, planned_steps
from training.jobs.ranked_lists import NOTHING, RankedLists, target_probabilities
from training.jobs.validation import ListValidation

logger = logging.getLogger(__name__)

_WARM_UP_STEPS = 30
_LAST_RATE = 0.05
_LARGEST_GRADIENT = 1.0
_WEIGHT_DECAY = 0.01
_HARD = 10
"""Half of the passages that are embedded anew are among so many first ones of their list."""
_SAID_EACH_S = 5.0


class TrainingDiverged(RuntimeError):
    """The loss is no number any more; the message names the step and the questions."""


class OutOfMemory(MemoryError):
    """One question and its passages do not fit into the memory."""


@dataclass(frozen=True)
class TrainingOutcome:
    """What became of a training.

    Attributes:
        before: The base's validation, by the name of the metric.
        after: The best one's.
        standing: How far it came, with its losses and scores.
        planned: Steps that were planned.
        ended: Why it ended.
        cut_off: The number of passages that are longer than what the model reads.
    """

    before: float
    after: float
    standing: Standing
    planned: int
    ended: str
    cut_off: int


def train_embedder(
    network: EmbeddingNetwork,
    train: RankedLists,
    validation: RankedLists,
    training: EmbedderTraining,
    folder: Path,
    progress: Callable[[str], None],
) -> TrainingOutcome:
    """Trains a network, and leaves the best validated weights in it.

    Args:
        network: The base, which is changed.
        train: The lists to learn.
        validation: Lists of other questions, over the same passages.
        training: The settings.
        folder: The job's folder, with its checkpoints.
        progress: Takes a line about what happened.

    Raises:
        TrainingDiverged: The loss is no number any more.
        OutOfMemory: One question does not fit into the memory.
        CheckpointNotWritten: The disk is full; the checkpoint before is as it was.
    """
    return _Loop(network, train, validation, training, folder, progress).run()


class _Loop:
    def __init__(
        self,
        network: EmbeddingNetwork,
        train: RankedLists,
        validation: RankedLists,
        training: EmbedderTraining,
        folder: Path,
        progress: Callable[[str], None],
    ) -> None:
        self.network, self.lists, self.training, self.say = network, train, training, progress
        self.checkpoints = Checkpoints(folder)
        self.targets = target_probabilities(train, training.objective == "contrastive")
        self.questions, _ = network.tokenize(train.questions, question=True)
        self.passages, self.cut_off = network.tokenize(train.passages, question=False)
        if self.cut_off:
            progress(
                f"{self.cut_off} of {len(train.passages)} passages are longer than the "
                f"{network.folder.max_tokens} tokens that the model reads: it learns their beginnings"
            )
        self.validation = ListValidation(network, validation, self.passages)
        step_tokens = (
            training.batch_questions * self.questions.lengths.mean()
            + training.fresh_passages * self.passages.lengths.mean()
        )
        self.planned = planned_steps(
            training,
            len(train.ids),
            network.parameters,
            int(step_tokens),
            int(self.passages.lengths.sum()),
        )
        self.optimizer = torch.optim.AdamW(
            [each for _, each in network.named_parameters()],
            lr=training.learning_rate,
            weight_decay=_WEIGHT_DECAY,
        )
        self.standing = Standing(micro_batch=training.batch_questions)
        self.vectors = torch.empty(0)

    def run(self) -> TrainingOutcome:
        began = time.monotonic()
        torch.manual_seed(self.training.seed)
        before = self.validation.score()
        earlier_s = self._begin()
        every = max(1, self.planned // self.training.validations)
        losses: list[float] = []
        said = began
        while (ended := self._ending()) is None:
            losses.append(self._step(self.standing.step))
            self.standing.step += 1
            self.standing.seconds = earlier_s + time.monotonic() - began
            if time.monotonic() - said > _SAID_EACH_S:
                said = time.monotonic()
                self._say(losses, said - began)
            if self.standing.step % every and self.standing.step != self.planned:
                continue
            self.standing.losses.append(float(np.mean(losses)))
            losses = []
            self._validate()
        self._load(self.checkpoints.load_best())
        after = self.standing.best_score if self.standing.best_score is not None else before
        return TrainingOutcome(before, after, self.standing, self.planned, ended, self.cut_off)

    def _begin(self) -> float:
        """Goes on from the checkpoint, or embeds all passages; returns the seconds that it took so far."""
        found = self.checkpoints.load()
        if found is None:
            self.vectors = self.network.encode(self.passages, "passages embedded by the base")
            return 0.0
        self.standing, tensors = found
        self.say(f"going on from the checkpoint after step {self.standing.step} of {self.planned}")
        self.vectors = tensors.pop("passage_vectors")
        self._load({name: each for name, each in tensors.items() if not name.startswith("adam.")})
        for name, parameter in self.network.named_parameters():
            if f"adam.{name}.exp_avg" in tensors:
                state = {key: tensors[f"adam.{name}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
                self.optimizer.state[parameter] = {
                    key: each if key == "step" else each.to(self.network.device)
                    for key, each in state.items()
                }
        return self.standing.seconds

    def _step(self, step: int) -> float:
        """Makes a step of the optimiser, in smaller batches where memory runs out; returns the mean loss."""
        rows, fresh = self._chosen(step)
        while True:
            try:
                loss, embedded = self._gradients(step, rows, fresh)
                break
            except RuntimeError as error:  # torch's own class on a GPU, a plain one on a processor
                if not _is_out_of_memory(error):
                    raise
                if self.standing.micro_batch == 1:
                    raise OutOfMemory(
                        "one question and its passages do not fit into the memory: train a smaller base, or "
                        "on a machine with more"
                    ) from error
            self.standing.micro_batch = max(1, self.standing.micro_batch // 2)
            self.say(
                f"out of memory in step {step}: {self.standing.micro_batch} questions at a time from here "
                f"on, {-(-self.training.batch_questions // self.standing.micro_batch)} times a step"
            )
            if self.network.device.type == "cuda":
                torch.cuda.empty_cache()
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.learning_rate * self._rate(step)
        torch.nn.utils.clip_grad_norm_(
            [each for _, each in self.network.named_parameters()], _LARGEST_GRADIENT
        )
        self.optimizer.step()
        for passages, vectors in embedded:
            self.vectors[torch.from_numpy(passages)] = vectors
        return loss

    def _gradients(
        self, step: int, rows: npt.NDArray[np.intp], fresh: npt.NDArray[np.intp]
    ) -> tuple[float, list[tuple[npt.NDArray[np.intp], torch.Tensor]]]:
        """Adds up the gradients of a step; returns the mean loss, and passages with their new vectors."""
        self.optimizer.zero_grad(set_to_none=True)
        candidates = self.lists.candidates[rows]
        pool = np.unique(candidates[candidates != NOTHING])
        targets = np.zeros((len(rows), len(pool)), dtype=np.float32)
        row, column = np.nonzero(candidates != NOTHING)
        targets[row, np.searchsorted(pool, candidates[row, column])] = self.targets[rows[row], column]
        known = self.vectors[torch.from_numpy(pool)].to(self.network.device)
        parts = -(-len(rows) // self.standing.micro_batch)
        total, embedded = 0.0, []
        for part in range(parts):
            mine = np.arange(len(rows))[part::parts]
            anew = fresh[part::parts]
            passages = known
            if len(anew):
                vectors = self.network.forward(self.passages, anew)
                places = torch.from_numpy(np.searchsorted(pool, anew)).to(self.network.device)
                passages = known.index_copy(0, places, vectors)
                embedded.append((anew, vectors.detach().cpu()))
            losses = listwise_loss(
                self.network.forward(self.questions, rows[mine]),
                passages,
                torch.from_numpy(targets[mine]).to(self.network.device),
                self.training.temperature,
            )
            self._require_finite(step, rows[mine], losses)
            loss = losses.sum() / len(rows)
            loss.backward()
            total += float(loss.detach())
        return total, embedded

    def _require_finite(self, step: int, rows: npt.NDArray[np.intp], losses: torch.Tensor) -> None:
        finite = torch.isfinite(losses.detach()).cpu().numpy()
        if not finite.all():
            names = ", ".join(self.lists.ids[row] for row in rows[~finite])
            raise TrainingDiverged(
                f"the loss of step {step} is no number, at the examples {names}: the last checkpoint is "
                "kept; a lower learning rate, or these examples left out, may help"
            )

    def _chosen(self, step: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Returns the questions of a step, and the passages of their lists to be embedded anew, sorted."""
        random = np.random.default_rng([self.training.seed, step])
        judged, made = np.flatnonzero(self.lists.judged), np.flatnonzero(~self.lists.judged)
        size = min(self.training.batch_questions, len(self.lists.ids))
        of_judged = round(size * self.training.judged_share) if len(made) else size
        of_judged = min(len(judged), max(of_judged, size - len(made)))
        rows = np.concatenate(
            [
                random.choice(judged, of_judged, replace=False),
                random.choice(made, min(len(made), size - of_judged), replace=False),
            ]
        ).astype(np.intp)
        fresh: list[int] = []
        for place, row in enumerate(random.permutation(rows)):
            if len(fresh) >= self.training.fresh_passages:
                break
            candidates = self.lists.candidates[row]
            right = candidates[self.lists.relevant[row]]
            first = candidates[:_HARD][candidates[:_HARD] != NOTHING]
            fresh.append(int(random.choice(right if place % 2 == 0 and len(right) else first)))
        return rows, np.unique(np.array(fresh, dtype=np.intp))

    def _rate(self, step: int) -> float:
        warm_up = min(_WARM_UP_STEPS, max(1, self.planned // 10))
        return min((step + 1) / warm_up, max(_LAST_RATE, 1 - step / self.planned))

    def _validate(self) -> None:
        """Validates, and writes a checkpoint."""
        standing = self.standing
        score = self.validation.score()
        standing.steps.append(standing.step)
        standing.scores.append(score)
        standing.peak_bytes = max(standing.peak_bytes, psutil.Process().memory_info().rss)
        weights = {name: each.detach().cpu() for name, each in self.network.named_parameters()}
        if standing.best_score is None or score > standing.best_score:
            standing.best_score, standing.best_step, standing.worse = score, standing.step, 0
            self.checkpoints.save_best(standing.step, weights)
        else:
            standing.worse += 1
        adam = {
            f"adam.{name}.{key}": value.detach().cpu()
            for name, parameter in self.network.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        self.checkpoints.save(standing, weights | adam | {"passage_vectors": self.vectors})
        self.say(
            f"step {standing.step} of {self.planned}: loss {standing.losses[-1]:.4f}, validation nDCG@10 "
            f"{score:.4f}, best {standing.best_score:.4f}"
        )

    def _ending(self) -> str | None:
        """Returns why the training ends after the steps that were made, or None if it goes on."""
        standing = self.standing
        if standing.steps and standing.steps[-1] == standing.step:  # it ends where it has just validated
            if standing.worse >= self.training.patience:
                return f"the validation has not become better {standing.worse} times"
            if standing.step >= self.planned:
                return "all steps were made"
            if standing.seconds > self.training.minutes * 60:
                minutes = f"{self.training.minutes:g}"
                return f"its {minutes} minutes were over after {standing.step} of {self.planned} steps"
        return None

    def _load(self, weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(weights[name])

    def _say(self, losses: list[float], seconds: float) -> None:
        line = progress_line("steps trained", self.standing.step, self.planned, seconds)
        logging.getLogger("retrieval.progress").info("%s, loss %.4f", line, np.mean(losses[-20:] or [np.nan]))


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
