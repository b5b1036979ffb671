"""Trains an embedder on ranked lists, from the base's first vectors to the best checkpoint.

Passages cost most, so few of them are embedded in a step: the others' vectors are those of when they were
embedded last, as in a cross-batch memory (Wang et al., 2020, "Cross-Batch Memory for Embedding Learning").
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from training.jobs.loop import TrainingDiverged, TrainingOutcome, run_loop
from training.jobs.losses import listwise_loss
from training.jobs.network import EmbeddingNetwork
from training.jobs.plan import (
    BACKWARD_FLOP,
    FORWARD_FLOP,
    WEIGHTS_FLOP,
    EmbedderTraining,
    planned_steps,
)
from training.jobs.ranked_lists import NOTHING, RankedLists, target_probabilities
from training.jobs.validation import ListValidation

_WEIGHT_DECAY = 0.01
_FEWEST_STEPS = 40
_HARD = 10
"""Half of the passages that are embedded anew are among so many first ones of their list."""


def train_embedder(
    network: EmbeddingNetwork,
    train: RankedLists,
    validation: RankedLists,
    training: EmbedderTraining,
    folder: Path,
    progress: Callable[[str], None],
) -> TrainingOutcome:
    """Trains a network, and leaves the mean of its base and the best validated weights in it.

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
    learner = _ListLearner(network, train, validation, training)
    if learner.cut_off:
        progress(
            f"{learner.cut_off} of {len(train.passages)} passages are longer than the "
            f"{network.folder.max_tokens} tokens that the model reads: it learns their beginnings"
        )
    optimizer = torch.optim.AdamW(
        [each for _, each in network.named_parameters()],
        lr=training.learning_rate,
        weight_decay=_WEIGHT_DECAY,
    )
    base = network.weights()
    outcome = run_loop(learner, training, optimizer, folder, progress, learner.cut_off)
    if not training.base_share:
        return outcome
    network.mix(base, training.base_share)
    after = learner.score()
    progress(
        f"the mean of these weights and the base's: {learner.figure} {after:.4f}, the base "
        f"{outcome.before:.4f}"
    )
    return replace(outcome, after=after)


class _ListLearner:
    unit = "questions"
    figure = "validation nDCG@10"

    def __init__(
        self,
        network: EmbeddingNetwork,
        train: RankedLists,
        validation: RankedLists,
        training: EmbedderTraining,
    ) -> None:
        self.network, self.lists, self.training = network, train, training
        self.device = network.device
        self.batch = self.micro_batch = training.batch_questions
        self.targets = target_probabilities(train, training.objective == "contrastive")
        self.questions, _ = network.tokenize(train.questions, question=True)
        self.passages, self.cut_off = network.tokenize(train.passages, question=False)
        self.validation = ListValidation(network, validation, self.passages)
        step_tokens = (
            training.batch_questions * self.questions.lengths.mean()
            + training.fresh_passages * self.passages.lengths.mean()
        )
        most = training.most_passes * len(train.ids) // training.batch_questions
        self.planned = planned_steps(
            training.minutes,
            (_FEWEST_STEPS, most),
            (FORWARD_FLOP + BACKWARD_FLOP + WEIGHTS_FLOP) * network.parameters * step_tokens,
            FORWARD_FLOP * network.parameters * int(self.passages.lengths.sum()),
        )
        self.vectors = torch.empty(0)
        self.embedded: list[tuple[npt.NDArray[np.intp], torch.Tensor]] = []

    def named_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        return self.network.named_parameters()

    def score(self) -> float:
        return self.validation.score()

    def begin(self, kept: Mapping[str, torch.Tensor] | None) -> None:
        if kept is None:
            self.vectors = self.network.encode(self.passages, "passages embedded by the base")
        else:
            self.vectors = kept["passage_vectors"]

    def kept(self) -> dict[str, torch.Tensor]:
        return {"passage_vectors": self.vectors}

    def stepped(self) -> None:
        for passages, vectors in self.embedded:
            self.vectors[torch.from_numpy(passages)] = vectors

    def spare_memory(self) -> bool:
        if self.network.recomputes:
            return False
        self.network.recompute()
        return True

    def gradients(self, step: int, micro_batch: int) -> float:
        rows, fresh = self._chosen(step)
        self.embedded = []
        candidates = self.lists.candidates[rows]
        pool = np.unique(candidates[candidates != NOTHING])
        targets = np.zeros((len(rows), len(pool)), dtype=np.float32)
        row, column = np.nonzero(candidates != NOTHING)
        targets[row, np.searchsorted(pool, candidates[row, column])] = self.targets[rows[row], column]
        known = self.vectors[torch.from_numpy(pool)].to(self.device)
        parts = -(-len(rows) // micro_batch)
        total = 0.0
        for part in range(parts):
            mine = np.arange(len(rows))[part::parts]
            anew = fresh[part::parts]
            passages = known
            if len(anew):
                vectors = self.network.forward(self.passages, anew)
                places = torch.from_numpy(np.searchsorted(pool, anew)).to(self.network.device)
                passages = known.index_copy(0, places, vectors)
                self.embedded.append((anew, vectors.detach().cpu()))
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
        return total

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
