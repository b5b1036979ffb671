"""The state folder's version: an older one is brought up to date, a newer one is left alone."""

import json
from collections.abc import Callable
from pathlib import Path

MIGRATIONS: list[Callable[[Path], None]] = [
    # 0 to 1: the first state folders had no version. New tables are made by `Lake.ensure`, and columns have
    # not changed, so there is nothing else to do.
    lambda home: None,
]
"""What makes a folder of version N one of version N + 1. Each can be run again after it was cut off."""

STATE_VERSION = len(MIGRATIONS)


class NewerState(RuntimeError):
    """The state folder was made by a newer Headwater than this one."""


def bring_up_to_date(home: Path) -> None:
    """Runs the migrations that a state folder has not seen; a new folder gets the newest version.

    Raises:
        NewerState: The folder is of a later version; nothing was touched.
    """
    file = home / "state.json"
    version = json.loads(file.read_text())["version"] if file.is_file() else 0
    if version > STATE_VERSION:
        raise NewerState(
            f"{home} has state version {version} and this Headwater knows {STATE_VERSION}: update Headwater, "
            "or name another folder with HEADWATER_HOME"
        )
    home.mkdir(parents=True, exist_ok=True)
    for number in range(version, STATE_VERSION):
        MIGRATIONS[number](home)
        unfinished = file.with_suffix(".new")
        unfinished.write_text(json.dumps({"version": number + 1}) + "\n")
        unfinished.replace(file)
