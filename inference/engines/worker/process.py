"""What every worker's process does: it is private and offline, tells Dagster, and ends with who started it.

Beside the standard library it needs dagster-pipes.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dagster_pipes import PipesContext, PipesEnvVarParamsLoader, open_dagster_pipes

from common.atomic_files import PRIVATE_UMASK

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
_WATCHED_EACH_S = 0.5


@contextmanager
def worker_process(ends_with_parent: bool) -> Iterator[PipesContext | None]:
    """Makes this process a worker's, and yields its connection to Dagster's run; None without one.

    Its log goes to the run, and else to the terminal.

    Args:
        ends_with_parent: Whether it ends when the process that started it has ended.
    """
    os.umask(PRIVATE_UMASK)
    for name, value in _OFFLINE.items():
        os.environ.setdefault(name, value)
    if ends_with_parent:
        end_with_parent()
    logging.getLogger().setLevel(logging.INFO)
    with _log_and_pipes() as pipes:
        yield pipes


def end_with_parent() -> None:
    """Ends this process when the one that started it has ended: nobody would read what it makes."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCHED_EACH_S)
        os._exit(1)  # what it has written is whole at any time

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _log_and_pipes() -> Iterator[PipesContext | None]:
    log = logging.getLogger()
    if not PipesEnvVarParamsLoader().is_dagster_pipes_process():
        logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
        yield None
        return
    with open_dagster_pipes() as context:
        handlers = list(context.log.handlers)
        log.handlers += handlers
        try:
            yield context
        finally:
            log.handlers = [each for each in log.handlers if each not in handlers]
