"""What can happen to a training's job: it is killed, or the disk is full, at its second checkpoint."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.jobs import checkpoints
from training.jobs.checkpoints import CheckpointNotWritten, Checkpoints, Standing

_DYING_ONCE = """
import os, signal, sys
from pathlib import Path
from training import worker
from training.jobs.checkpoints import Checkpoints

died, save, saved = Path({died!r}), Checkpoints.save, []

def dying_save(self, *given):
    save(self, *given)
    saved.append(given)
    if len(saved) == 2 and not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save = dying_save
sys.exit(worker.main(sys.argv[3:]))
"""


def python_that_dies_once(folder: Path, python: Path = Path(sys.executable)) -> Path:
    """Returns a worker's Python; the first training by it is killed right after its second checkpoint."""
    (folder / "dying.py").write_text(_DYING_ONCE.format(died=str(folder / "died")))
    script = folder / "python-that-dies-once"
    script.write_text(f'#!/bin/sh\nexec "{python}" "{folder / "dying.py"}" "$@"\n')
    script.chmod(0o700)
    return script


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
