"""How often a service that dies is started again, and after which waits."""

from collections import deque

MOST_RESTARTS = 5
"""A service that ended so often within `WINDOW_S` is given up, until the next `headwater up`."""
WINDOW_S = 300.0
HANGS_WINDOW_S = 3600.0
"""The same for a service that stopped answering so often: it takes minutes to find out each time."""


class RestartBudget:
    """How often a service may still be started again: at once, then after 1, 2, 4 and 8 seconds, then not.

    Args:
        window_s: Seconds for which a restart counts.
    """

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._restarts_s: deque[float] = deque()
        self.total = 0

    def spent(self, now_s: float) -> bool:
        """Returns whether it was started again too often of late."""
        while self._restarts_s and now_s - self._restarts_s[0] > self._window_s:
            self._restarts_s.popleft()
        return len(self._restarts_s) >= MOST_RESTARTS

    def due(self, now_s: float) -> bool:
        """Returns whether it may be started again now; the wait doubles each time."""
        if self.spent(now_s):
            return False
        restarts = len(self._restarts_s)
        return not restarts or now_s - self._restarts_s[-1] >= 2.0 ** (restarts - 1)

    def take(self, now_s: float) -> None:
        """Counts a restart."""
        self._restarts_s.append(now_s)
        self.total += 1
