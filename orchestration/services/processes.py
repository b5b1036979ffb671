"""Processes that outlive the command that started them: start, find, and stop with their children.

Each leads a process group of its own, and a file remembers its pid together with when it started: after a
crash or a reboot another process can have the same pid, never both. That is counted from the system's start,
for the clock may be set. The file also names the folder that it was written in, so that a copy of the folder
has no part in the original's processes.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from common.atomic_files import PRIVATE_UMASK, atomic_file

_TICK_S = 0.02
"""Start times are counted in ticks of a hundredth of a second."""


class ServiceError(RuntimeError):
    """A service could not be started or stopped, or its port is taken."""


@dataclass(frozen=True)
class StartedProcess:
    """A process that was started, as its pid file names it.

    Attributes:
        pid: The pid of the process, which is also that of its process group.
        born_s: When the process started, as `started_since_boot_s` tells it.
        folder: The device and inode of the pid file's folder, which a move keeps and a copy does not; None
            in the files of older versions.
    """

    pid: int
    born_s: float
    folder: tuple[int, int] | None = None


def started_since_boot_s(process: psutil.Process) -> float:
    """Returns the seconds from the start of the machine to that of a process; the clock may be set.

    Raises:
        psutil.NoSuchProcess: It has ended.
    """
    if not sys.platform.startswith("linux"):
        return process.create_time() - psutil.boot_time()
    # psutil adds the time of the start of the machine as the clock has it now, and keeps the sum.
    try:
        ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(process.pid) from error
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def read_pid_file(path: Path) -> StartedProcess | None:
    """Returns the process that a pid file names.

    Returns:
        None if the file is missing, was cut off by a crash, or was copied here with its folder.
    """
    try:
        named = json.loads(path.read_text())
        started = StartedProcess(
            named["pid"], named["born_s"], named.get("folder") and tuple(named["folder"])
        )
        return started if started.folder in (None, _folder_identity(path)) else None
    except (FileNotFoundError, NotADirectoryError, ValueError, LookupError, TypeError):
        return None


def _folder_identity(path: Path) -> tuple[int, int]:
    folder = path.parent.stat()
    return folder.st_dev, folder.st_ino


def running_process(started: StartedProcess) -> psutil.Process | None:
    """Returns the process while it runs; None once it ended, even if another process has its pid now."""
    try:
        process = psutil.Process(started.pid)
        if abs(started_since_boot_s(process) - started.born_s) > _TICK_S:
            return None
        return process if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def process_group(started: StartedProcess) -> list[psutil.Process]:
    """Returns the running processes of its group, also if only the first of them was killed."""
    try:
        if abs(started_since_boot_s(psutil.Process(started.pid)) - started.born_s) > _TICK_S:
            return []  # given to another process: the kernel does that only when the group is empty
    except psutil.NoSuchProcess:
        pass
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if (
                os.getpgid(process.pid) == started.pid
                and started_since_boot_s(process) > started.born_s - _TICK_S
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(process)
    return found


def start_process(
    command: Sequence[str], pid_file: Path, log: Path, environment: Mapping[str, str]
) -> StartedProcess:
    """Starts a process in a session of its own, with its output appended to a log.

    Args:
        command: The program and its arguments.
        pid_file: The file that will name the process.
        log: The file for its output; one above 20 MB is first renamed to `.old.log`.
        environment: Its whole environment.
    """
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.is_file() and log.stat().st_size > 20_000_000:
        log.replace(log.with_suffix(".old.log"))
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
            umask=PRIVATE_UMASK,
        )
    return write_pid_file(pid_file, process.pid)


def write_pid_file(pid_file: Path, pid: int) -> StartedProcess:
    """Has a pid file name a process, which leads its process group, and returns what it says."""
    born_s = started_since_boot_s(psutil.Process(pid))
    started = StartedProcess(pid, born_s, _folder_identity(pid_file))
    with atomic_file(pid_file) as fresh:
        fresh.write_text(json.dumps(asdict(started)))
    return started


def stop_process_group(pid_file: Path, grace_s: float = 15.0, *, keep_file: bool = False) -> bool:
    """Stops a process group and removes its pid file: terminates it, then kills what is left.

    Args:
        pid_file: What `start_process` wrote; the same again does nothing.
        grace_s: Seconds between terminating and killing.
        keep_file: Whether the pid file stays, because its process is started again.

    Returns:
        Whether any process of the group ran.

    Raises:
        ServiceError: A process survived, or belongs to another user.
    """
    started = read_pid_file(pid_file)
    running = process_group(started) if started else []
    if started and running:
        try:
            os.killpg(started.pid, signal.SIGTERM)
            _, alive = psutil.wait_procs(running, timeout=grace_s)
            # Asked again for who is there: a process may have started another meanwhile.
            if alive or process_group(started):
                os.killpg(started.pid, signal.SIGKILL)
                psutil.wait_procs(process_group(started), timeout=5)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            raise ServiceError(
                f"process group {started.pid} of {pid_file.stem} belongs to another user: stop it as them"
            ) from error
        if left := process_group(started):
            pids = ", ".join(str(process.pid) for process in left)
            raise ServiceError(f"{pid_file.stem} could not be stopped: processes {pids} survived")
    if not keep_file:
        pid_file.unlink(missing_ok=True)
    return bool(running)


def wait_until_healthy(
    healthy: Callable[[], bool], started: StartedProcess, log: Path, timeout_s: float, log_from: int = 0
) -> None:
    """Waits until a process is ready to use.

    Args:
        healthy: Returns whether it is ready; called four times per second.
        started: The process.
        log: Its log, which the error quotes.
        timeout_s: Seconds that it may take.
        log_from: Offset in the log, in bytes, at which the output of this process begins.

    Raises:
        ServiceError: It ended, or was not ready in time; the message quotes the end of its log.
    """
    deadline_s = time.monotonic() + timeout_s
    while not healthy():
        # Not `running_process`: as our own child it would stay a zombie, and is reaped here.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(started.pid, os.WNOHANG)
        ended = running_process(started) is None
        if ended or time.monotonic() > deadline_s:
            what = "ended before it was ready" if ended else f"was not ready within {timeout_s:g} s"
            with log.open("rb") as file:
                file.seek(log_from)
                said = file.read()[-3000:].decode(errors="replace").strip()
            raise ServiceError(f"{log.stem} {what}; its log {log} ends:\n{said}")
        time.sleep(0.25)


def port_holder(port: int) -> str:
    """Returns a description of the process that listens on a port; `another process` if it is not visible."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listens and connection.pid:
                process = psutil.Process(connection.pid)
                return f"process {process.pid} ({' '.join(process.cmdline())[:120] or process.name()})"
    except psutil.Error:
        pass
    return "another process"


def is_port_free(port: int) -> bool:
    """Returns whether a service could listen on this port of loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
