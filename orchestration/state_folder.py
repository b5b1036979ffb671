"""Where the state folder is: named by HEADWATER_HOME, found upwards, or in the user's data folder."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from platformdirs import user_data_path

STATE_FOLDER_NAME = ".headwater"
"""The name of a state folder that is found from the folders below the one that it lies in."""

_VARIABLE = "HEADWATER_HOME"


class StateFolderError(RuntimeError):
    """There is no state folder, or it can not be used; the message says where it was looked for."""


def named_state_folder() -> Path | None:
    """Returns the folder that HEADWATER_HOME names; None where it is unset or empty."""
    named = os.environ.get(_VARIABLE)
    return Path(named).expanduser().absolute() if named else None


def default_state_folder() -> Path:
    """Returns the state folder where none is named; it need not exist.

    That is the nearest `.headwater` of the caller's in the working directory or above it, as Git finds its
    repository, else the user's data folder. One that belongs to somebody else is passed over: who can write
    to `/tmp` could otherwise hand everybody below it a lake.
    """
    own = (folder for folder in _above() if folder.stat().st_uid == os.geteuid())
    return next(own, None) or user_data_path("headwater", appauthor=False)


def require_state_folder(home: Path) -> None:
    """Makes sure that there is a state folder that the caller can work in.

    Args:
        home: The state folder of the settings.

    Raises:
        StateFolderError: It is missing, no folder, somebody else's, or can not be written.
    """
    if not os.path.lexists(home):
        raise StateFolderError(_missing(home))
    if not home.is_dir():
        raise StateFolderError(f"the state folder {home} is no folder: name another with {_VARIABLE}")
    owner, user = home.stat().st_uid, os.geteuid()
    if owner != user:
        raise StateFolderError(
            f"the state folder {home} belongs to user {owner}, and you are {user}: work as its owner, or "
            f"name a folder of your own with {_VARIABLE}"
        )
    if not os.access(home, os.W_OK | os.X_OK):
        why = "is on a file system that is read-only" if _is_read_only(home) else "is closed to its owner"
        raise StateFolderError(
            f"the state folder {home} {why}: make it writable, or name another with {_VARIABLE}"
        )


def make_state_folder(home: Path) -> None:
    """Makes the state folder where it is missing, for its owner alone.

    Raises:
        StateFolderError: It can not be made, or not be worked in.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        pass  # what is there instead is told below
    except OSError as error:
        raise StateFolderError(
            f"the state folder {home} can not be made ({error.strerror}): name another with {_VARIABLE}"
        ) from error
    require_state_folder(home)


def _above() -> Iterator[Path]:
    """The folders `.headwater` in the working directory and above it, the nearest first."""
    with contextlib.suppress(FileNotFoundError):  # the working directory was deleted
        here = Path.cwd()
        for folder in (here, *here.parents):
            with contextlib.suppress(OSError):  # one that can not be looked into
                if (folder / STATE_FOLDER_NAME).is_dir():
                    yield folder / STATE_FOLDER_NAME


def _missing(home: Path) -> str:
    if named_state_folder() is not None:
        return (
            f"there is no state folder {home}, which {_VARIABLE} names: `headwater ingest PATH` makes it, "
            "or name another"
        )
    here = Path.cwd() if Path().is_dir() else "the working directory"
    passed = "".join(f" ({folder} belongs to user {folder.stat().st_uid})" for folder in _above())
    return (
        f"there is no state folder: looked for a {STATE_FOLDER_NAME} of yours in {here} and above it{passed}"
        f", and for {home}; go to where it is, or name it with {_VARIABLE}. `headwater ingest PATH` makes "
        f"{home}, or one here after `mkdir {STATE_FOLDER_NAME}`"
    )


def _is_read_only(home: Path) -> bool:
    return bool(os.statvfs(home).f_flag & os.ST_RDONLY)
