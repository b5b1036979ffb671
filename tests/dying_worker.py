"""A worker's Python that kills the worker, or the process that started it, at chosen points."""

import sys
from pathlib import Path

_DYING = """
import os, signal, sys
sys.path[:0] = os.environ["PYTHONPATH"].split(":")
from pathlib import Path
from inference.engines.torch import worker
from inference.engines.torch.model import Decoder
from inference.engines.worker.prompt_files import AnswerFile

plan, computed = Path({folder!r}) / "plan", Path({folder!r}) / "computed"
left = plan.read_text().split()
plan.write_text(" ".join(left[1:]))
function, when, nth = (left or ["none:before:0"])[0].split(":")
add = AnswerFile.add

def counted_add(self, answer):
    add(self, answer)
    with computed.open("a") as file:
        file.write(f"{{answer.prompt_id}}\\n")

AnswerFile.add = counted_add
owner = Decoder if function == "hidden" else AnswerFile
original, calls = getattr(owner, function, None), []

def dying(self, *arguments):
    calls.append(1)
    if len(calls) == int(nth) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(self, *arguments)
    if len(calls) == int(nth) and when in ("after", "parent"):
        os.kill(os.getppid() if when == "parent" else os.getpid(), signal.SIGKILL)
    return result

if original:
    setattr(owner, function, dying)
sys.exit(worker.main(sys.argv[3:]))
"""


def dying_python(folder: Path, plan: str) -> Path:
    """Returns a worker's Python whose workers are killed by a plan, a point for each start.

    A point is a function of `AnswerFile`, or the decoder's `hidden`, `before` or `after` whose call the
    worker is killed, or `parent` for the process that started it, and which call that is, such as
    `add:before:1`. The prompts that were computed are in the file `computed` of the folder, a line each.
    """
    (folder / "plan").write_text(plan)
    (folder / "dying.py").write_text(_DYING.format(folder=str(folder)))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{folder / "dying.py"}" "$@"\n')
    python.chmod(0o700)
    return python
