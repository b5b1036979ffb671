"""Files and folders that are there whole or not at all, however many processes write them at once."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PRIVATE_UMASK = 0o077
"""The umask of every process of ours: what it makes is its owner's alone."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A scratch path that becomes the file `path` when the block ends; the last writer's is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for each writer: under a shared one, the first to finish takes the other's file away.
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as scratch:
        fresh = Path(scratch) / path.name
        yield fresh
        _flush(fresh)
        fresh.replace(path)
    _flush(path.parent)  # else a power cut can lose the rename


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A scratch folder that becomes `folder` when the block ends; the first writer's is kept.

    Whoever may read the folder that it is in may read it: other users of an environment, but nobody else in a
    state folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        yield scratch
        mode = folder.parent.stat().st_mode & 0o777
        for path in (scratch, *scratch.rglob("*")):
            path.chmod(mode if path.is_dir() else mode & 0o666)
        try:
            scratch.rename(folder)
        except OSError:
            if not any(folder.glob("*.xml")):
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
