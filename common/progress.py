"""Says how far long work is: how much is done, how fast, and the time left, as records of the log.

During a run Dagster takes these records into the run's log, and so into the web UI. The command line shows
them in the terminal.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_FIRST_S = 2.0
"""Work that takes no longer says nothing."""
_INTERVAL_S = 5.0
_POLLED_EACH_S = 1.0


class Progress:
    """The progress of one piece of work, logged after two seconds and then every five.

    Counting costs next to nothing, but is meant for batches and files, not for rows.

    Attributes:
        total: How much there is to do; None while that is not known.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        """Begins to count.

        Args:
            what: What is counted, such as "documents parsed".
            total: How much there is to do, if it is known already.
        """
        self.total = total
        self._what, self._done = what, 0
        self._began = time.monotonic()
        self._due = self._began + _FIRST_S
        self._said: int | None = None

    def advance(self, count: int = 1) -> None:
        """Counts what was done since the last call."""
        self.reach(self._done + count)

    def reach(self, done: int) -> None:
        """Says how much is done in all."""
        self._done = done if self.total is None else min(done, self.total)
        now = time.monotonic()
        if now >= self._due and self._done != self._said:
            self._due, self._said = now + _INTERVAL_S, self._done
            logger.info("%s", progress_line(self._what, self._done, self.total, now - self._began))


def progress_line(
    what: str, done: int, total: int | None, seconds: float, before: int = 0, until: int | None = None
) -> str:
    """Returns a line such as "documents parsed: 1,200 of 4,000 (30%), 40/s, about 1 min 10 s left".

    Args:
        what: What is counted.
        done: How much is done in all.
        total: How much there is to do; None while that is not known.
        seconds: The time since the beginning of this process's part.
        before: How much was done before it.
        until: How much will be done when it ends, where that is less than `total`.
    """
    rate = (done - before) / seconds if seconds > 0 else 0.0
    speed = f", {rate:.3g}/s" if 0 < rate < 100 else f", {rate:,.0f}/s" if rate else ""
    if 0 < rate < 0.1:
        speed = f", {60 * rate:.2g} per minute"
    if not total:
        return f"{what}: {done:,}{speed}"
    end = total if until is None else until
    left = f", about {_duration((end - done) / rate)} left" if rate and done < end else ""
    return f"{what}: {done:,} of {total:,} ({done / total:.0%}){speed}{left}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@contextmanager
def polled_progress(poll: Callable[[], None]) -> Iterator[None]:
    """Calls a function each second until the `with` block ends, for work that is done elsewhere.

    Args:
        poll: Asks how far the work is, and says so by `Progress.reach`. It runs in a thread of its own.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_POLLED_EACH_S):
            try:
                poll()
            except Exception:  # the work may have ended, with what was asked about it
                logger.debug("progress is not known", exc_info=True)

    watcher = threading.Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
