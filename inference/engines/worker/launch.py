"""Starts a worker: a process with a Python of its own, which imports only some packages of ours."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from inference.engines.protocol import EngineError

Launch = Callable[[Sequence[str], Mapping[str, str]], None]
"""Runs a command with additional environment variables until it ends; raises EngineError where it fails."""


def launch_worker(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs a worker as a process of this one, and shows what it logs.

    Raises:
        EngineError: It fails, or can't be started.
    """
    try:
        status = subprocess.run(command, env=os.environ | environment, stdout=sys.stderr).returncode
    except OSError as error:
        raise EngineError(f"the worker {command[0]} can not be started: {error}") from error
    if status:
        raise EngineError(f"the worker ended with status {status}: its log above says why")


def link_packages(folder: Path, packages: Sequence[ModuleType]) -> Path:
    """Makes a folder with links to the packages of ours that a worker imports, and returns it.

    The folder that holds them may hold all of this environment, and the worker has its own.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for package in packages:
        [source] = package.__path__
        (folder / package.__name__).symlink_to(source)
    return folder
