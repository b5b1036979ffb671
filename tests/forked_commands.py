"""Command lines in forks of a process that has imported what they import, which is most of a short command.

Each is a process of its own, with its own environment and streams, as a user's is.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

_TESTS = Path(__file__).parent
_IMPORTED = ("orchestration.definitions", "orchestration.operations.ingest", "quality.gx", "delta.tables")
"""Nothing that reads the environment when it is imported, as `orchestration.cli` does."""


def run_forked(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    together: bool = False,
    module: str = "forked_commands",
    timeout_s: int = 600,
    imported: tuple[str, ...] = _IMPORTED,
) -> subprocess.CompletedProcess[str]:
    """Runs a command line until it ends, dies, or is killed by SIGALRM after `timeout_s`.

    Args:
        arguments: Those of `headwater`.
        environment: All its variables.
        together: Whether `stdout` gets both streams.
        module: The module whose `headwater` is called with the arguments.
        timeout_s: How long it may take.
        imported: What the process that forks imports; there is one for each such list.
    """
    asking, answering = _parent(imported)
    with contextlib.ExitStack() as opened:
        said, errors = (
            opened.enter_context(tempfile.NamedTemporaryFile("r", errors="replace")) for _ in range(2)
        )
        asked = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "streams": [said.name, said.name if together else errors.name],
            "module": module,
            "timeout_s": timeout_s,
        }
        asking.write(json.dumps(asked) + "\n")
        asking.flush()
        code = int(answering.readline())
        return subprocess.CompletedProcess(arguments, code, said.read(), errors.read())


def headwater(arguments: Sequence[str]) -> None:
    from orchestration.cli.main import main

    sys.argv = ["headwater", *arguments]
    main()


@cache
def _parent(imported: tuple[str, ...]) -> tuple[IO[str], IO[str]]:
    """The streams of a process that forks; it ends when this one does, and they are closed."""
    started = subprocess.Popen(
        [sys.executable, __file__, *imported],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (_TESTS.parent, _TESTS)))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdin
    assert started.stdout
    return started.stdin, started.stdout


def _serve(imported: Sequence[str]) -> None:
    for name in imported:
        importlib.import_module(name)
    if "quality.gx" in imported:
        importlib.import_module("quality.gx").import_great_expectations()
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.environ.clear()
            os.environ.update(asked["environment"])
            os.setsid()
            signal.alarm(asked["timeout_s"])
            opened = [os.open(os.devnull, os.O_RDONLY)]
            opened += [os.open(name, os.O_WRONLY | os.O_APPEND) for name in asked["streams"]]
            for target, source in enumerate(opened):
                os.dup2(source, target)
                os.close(source)
            importlib.import_module(asked["module"]).headwater(asked["arguments"])
            return
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1:])
