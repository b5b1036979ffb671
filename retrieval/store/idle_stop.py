"""Stops the embedded server after nobody used it: `python -m retrieval.store.idle_stop DATA SECONDS`.

One small process per server waits until nobody used it for long enough, holds off whoever comes meanwhile,
and stops it.
"""

import sys
import time
from pathlib import Path

from retrieval.store.embedded_server import EmbeddedServer
from retrieval.store.server_config import EmbeddedServerConfig
from retrieval.store.server_use import last_use, sole_use


def stop_when_idle(place: Path, idle_s: float) -> bool:
    """Waits until nobody used a server for a time, and stops it.

    Args:
        place: The path of the data folder in the state folder.
        idle_s: Seconds on a clock that nobody sets.

    Returns:
        Whether it stopped the server; False where that ended, or was started anew, before.
    """
    server = EmbeddedServer(place, EmbeddedServerConfig())
    watched = server.pid()
    used_at, used_s = last_use(place), time.monotonic()
    while watched is not None and server.pid() == watched:
        with sole_use(place) as alone:
            if not alone or last_use(place) != used_at:
                used_at, used_s = last_use(place), time.monotonic()
            elif time.monotonic() - used_s >= idle_s:
                server.stop()
                return True
        time.sleep(min(1.0, idle_s / 4))
    return False


if __name__ == "__main__":
    stop_when_idle(Path(sys.argv[1]), float(sys.argv[2]))
