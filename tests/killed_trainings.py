"""A training by the command line that is killed (SIGKILL) at a point: `forked_commands` runs it.

    POINT ARGUMENTS…      POINT is MODULE:FUNCTION,COUNT,MOMENT: at the COUNT-th call, `before` or `after` it

Without a point it is let through. The product does not know this file, which wraps its functions.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any


def headwater(arguments: Sequence[str]) -> None:
    assert sys.modules["pyspark"] is None  # `without_spark`, before anything else was imported
    point, *command = arguments
    if point:
        _kill_at(point)
    from orchestration.cli.main import main

    sys.argv = ["headwater", *command]
    main()


def _kill_at(point: str) -> None:
    where, count, moment = point.split(",")
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    function, calls = getattr(owner, name), [0]

    def killed(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if moment == "before" and calls[0] == int(count):
            os.kill(os.getpid(), signal.SIGKILL)
        returned = function(*given, **named)
        if moment == "after" and calls[0] == int(count):
            os.kill(os.getpid(), signal.SIGKILL)
        return returned

    setattr(owner, name, killed)
