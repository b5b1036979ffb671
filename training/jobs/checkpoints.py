"""Checkpoints of a job: all that it needs to go on exactly where it ended, in one file of safetensors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, Field
from safetensors import safe_open
from safetensors.torch import save_file

from common.atomic_files import atomic_file
from training.job_folder import worker_folder
from training.registry.lineage import BETWEEN_DATASETS

_DESCRIBED = "job.json"


class Standing(BaseModel):
    """How far a job is.

    Attributes:
        step: Steps of the optimiser that were made.
        best_score: The best validation so far; None before the first.
        best_step: The step of that.
        worse: How many validations since were not better.
        micro_batch: Questions that are computed at once.
        seconds: The time that it took so far.
        steps: The steps of the validations.
        losses: The mean loss between two validations, one after another.
        scores: Each validation's score.
        peak_bytes: The most memory that the process had.
    """

    step: int = 0
    best_score: float | None = None
    best_step: int = 0
    worse: int = 0
    micro_batch: int
    seconds: float = 0.0
    steps: list[int] = Field(default_factory=list)
    losses: list[float] = Field(default_factory=list)
    scores: list[float] = Field(default_factory=list)
    peak_bytes: int = 0


class CheckpointNotWritten(OSError):
    """A checkpoint could not be written; the one before is as it was."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one job.

    Attributes:
        folder: The job's folder.
    """

    folder: Path

    @property
    def _last(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def _best(self) -> Path:
        return self.folder / "best.safetensors"

    @property
    def begun(self) -> bool:
        """Whether the job was stopped and can go on."""
        return self._last.is_file()

    def save(self, standing: Standing, tensors: Mapping[str, torch.Tensor]) -> None:
        """Writes a checkpoint in the place of the last one, or leaves that as it was.

        Raises:
            CheckpointNotWritten: The disk is full, or takes nothing.
        """
        self._write(self._last, tensors, {"standing": standing.model_dump_json()})

    def load(self) -> tuple[Standing, dict[str, torch.Tensor]] | None:
        """Returns the last checkpoint, or None before the first."""
        if not self._last.is_file():
            return None
        with safe_open(self._last, "pt") as file:
            standing = Standing.model_validate_json(file.metadata()["standing"])
            # Copies: a mapped file's tensors begin anywhere, and sums over them can round in another way.
            return standing, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118

    def save_best(self, step: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Keeps the weights of the best step so far.

        Raises:
            CheckpointNotWritten: As for `save`.
        """
        self._write(self._best, weights, {"step": str(step)})

    def load_best(self) -> dict[str, torch.Tensor]:
        """Returns the weights of the best step."""
        with safe_open(self._best, "pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118

    def remove(self) -> None:
        """Removes what only a job that goes on needs."""
        self._last.unlink(missing_ok=True)
        self._best.unlink(missing_ok=True)

    def _write(self, path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
        try:
            with atomic_file(path) as fresh:
                save_file({name: each.contiguous() for name, each in tensors.items()}, fresh, metadata)
        except Exception as error:  # safetensors has errors of its own for what the system refuses
            raise CheckpointNotWritten(
                f"no checkpoint could be written to {path}: {error}; the one before is as it was: make room, "
                "and run the same command again"
            ) from error


def describe_job(folder: Path, described: Mapping[str, object]) -> None:
    """Writes what a job is about into its folder."""
    with atomic_file(folder / _DESCRIBED) as fresh:
        fresh.write_text(json.dumps(dict(described), indent=2, default=str) + "\n", encoding="utf-8")


def stopped_on_other_snapshots(folder: Path) -> list[str]:
    """Returns the snapshots of training sets that jobs which were stopped learn from, sorted.

    They are the jobs that differ from one that was described in nothing but the snapshots.

    Args:
        folder: The described job's folder, named by model and digest; those of the others are beside it.
    """
    this = json.loads((folder / _DESCRIBED).read_bytes())
    if Path(this["dataset"]).is_absolute():
        return []  # a file or folder, which has no snapshots
    found = []
    for file in folder.parent.glob(f"{folder.name.rpartition('-')[0]}-*/{_DESCRIBED}"):
        other = json.loads(file.read_bytes())
        same = _without_snapshots(other) == _without_snapshots(this)
        begun = Checkpoints(file.parent).begun or Checkpoints(worker_folder(file.parent)).begun
        if same and other["dataset"] != this["dataset"] and begun:
            found.append(str(other["dataset"]))
    return sorted(found)


def _without_snapshots(described: dict[str, object]) -> dict[str, object]:
    learned = str(described["dataset"]).split(BETWEEN_DATASETS)
    return described | {"dataset": [address.partition("@")[0] for address in learned]}
