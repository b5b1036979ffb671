"""Writes files and folders atomically: readers see them complete or not at all."""

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
    """Yields a scratch path that becomes the file `path` when the block ends; the last writer wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Each writer has its own name: with a shared one, the first to finish would move the other's file.
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=path.parent) as scratch:
        fresh = Path(scratch) / path.name
        yield fresh
        flush_path(fresh)
        fresh.replace(path)
    flush_path(path.parent)  # else a power cut can lose the rename


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yields a scratch folder that becomes `folder` when the block ends; the first writer wins.

    It gets the read permissions of its parent folder: other users can read it in an environment, but not in a
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


def flush_path(path: Path) -> None:
    """Makes a file's bytes, or a folder's entries, safe from a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
