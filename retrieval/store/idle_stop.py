"""Stops the embedded server after nobody used it: `python -m retrieval.store.idle_stop DATA SECONDS`.

Who uses a server holds a shared lock on a file beside its data, which the system takes back when a process
ends, however it ends. One small process per server waits until that lock was free for long enough, takes it
for itself alone, so that nobody comes meanwhile, and stops the server.
"""

import contextlib
import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]


def server_users_file(place: Path) -> Path:
    """Returns the file that is locked by whoever uses the server of a data folder."""
    return place.with_name(place.name + ".users")


def start_idle_watch(place: Path, idle_s: float) -> None:
    """Starts the process that stops a running server after nobody used it for `idle_s` seconds.

    Where it can not be started, the server runs until it is stopped.

    Args:
        place: The path of the data folder in the state folder.
        idle_s: Seconds.
    """
    try:
        subprocess.Popen(
            [sys.executable, "-m", "retrieval.store.idle_stop", str(place), str(idle_s)],
            # What lies in its working folder is no module of it, and no setting is in its environment.
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(_ROOT), "PYTHONSAFEPATH": "1"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            umask=0o077,
        )
    except OSError as error:
        logger.warning("PostgreSQL will not stop by itself when nobody uses it: %s", error)


def stop_when_idle(place: Path, idle_s: float) -> bool:
    """Waits until nobody used a server for a time, and stops it.

    Args:
        place: The path of the data folder in the state folder.
        idle_s: Seconds on a clock that nobody sets.

    Returns:
        Whether it stopped the server; False where that ended, or was started anew, before.
    """
    from retrieval.store.embedded_server import EmbeddedServer
    from retrieval.store.server_config import EmbeddedServerConfig

    server = EmbeddedServer(place, EmbeddedServerConfig())
    watched = server.pid()
    used_at, used_s = _last_use(place), time.monotonic()
    while watched is not None and server.pid() == watched:
        with _alone(place) as alone:
            if not alone or _last_use(place) != used_at:
                used_at, used_s = _last_use(place), time.monotonic()
            elif time.monotonic() - used_s >= idle_s:
                server.stop()
                return True
        time.sleep(min(1.0, idle_s / 4))
    return False


def _last_use(place: Path) -> int:
    """A stamp that differs after each use; it is compared with itself alone."""
    try:
        return server_users_file(place).stat().st_mtime_ns
    except OSError:
        return 0


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[bool]:
    """Yields whether nobody uses the server, and then lets nobody begin to until the block ends."""
    try:
        file = server_users_file(place).open("a")
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


if __name__ == "__main__":
    stop_when_idle(Path(sys.argv[1]), float(sys.argv[2]))
