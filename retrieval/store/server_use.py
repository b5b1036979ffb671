"""Who uses the embedded server: a lock on a file beside its data.

Users share the lock, which the system takes back when a process ends, however it ends. Who wants to stop the
server takes it alone.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def shared_use(place: Path) -> Iterator[None]:
    """Shares the lock of the server of a data folder until the `with` block, or the process, ends."""
    with _users_file(place).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        os.utime(file.fileno())  # that somebody came is seen, also by who looks later
        yield
        os.utime(file.fileno())


@contextlib.contextmanager
def sole_use(place: Path) -> Iterator[bool]:
    """Yields whether nobody uses the server, and then lets nobody begin to until the block ends."""
    try:
        file = _users_file(place).open("a")
    except OSError:  # the state folder is gone
        yield False
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def last_use(place: Path) -> int:
    """Returns a stamp that differs after each use; it is compared with itself alone."""
    try:
        return _users_file(place).stat().st_mtime_ns
    except OSError:
        return 0


def _users_file(place: Path) -> Path:
    return place.with_name(place.name + ".users")
