"""What can happen to a training's job: it is killed, or the disk is full, at its second checkpoint."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.jobs import checkpoints
from training.jobs.checkpoints import CheckpointNotWritten, Checkpoints, Standing


def train_until_killed(train: Callable[[], object]) -> None:
    """Trains, and is killed right after the second checkpoint was written."""
    save, saved = Checkpoints.save, []

    def killed_later(self: Checkpoints, *given: object) -> None:
        save(self, *given)  # type: ignore[arg-type]
        saved.append(given)
        if len(saved) == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Checkpoints, "save", killed_later)
        with pytest.raises(KeyboardInterrupt):
            train()


def train_until_the_disk_is_full(train: Callable[[], object], folder: Path) -> Standing:
    """Trains until the second checkpoint finds no room; returns how far the one before is."""
    written, write = [], checkpoints.save_file

    def disk_is_full(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        if path.name == "checkpoint.safetensors":
            written.append(path)
            if len(written) == 2:
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device")
        write(tensors, path, metadata)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoints, "save_file", disk_is_full)
        with pytest.raises(CheckpointNotWritten, match=r"No space left.*make room"):
            train()
    found = Checkpoints(folder).load()
    assert found is not None
    return found[0]
