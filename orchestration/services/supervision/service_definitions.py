"""The services of a state folder: their programs, where their files are, and whether each is ready to use."""

import contextlib
import hashlib
import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from pydantic import BaseModel, SecretStr, ValidationError

from orchestration.services.processes import ServiceError, read_pid_file, running_process
from orchestration.services.supervision.questions import code_server_answers, port_answers, web_server_answers
from orchestration.services.web_guard import web_credentials, web_host

if TYPE_CHECKING:
    from orchestration.settings import Settings

# A Unix socket's address holds 107 bytes.
_LONGEST_SOCKET = 100
_PATH_PREFIX = "HEADWATER_WEB_PATH_PREFIX"

SUPERVISOR = "supervisor"
"""The name of what starts services again, and of its log and its pid file, which names its keeper."""
CODE = "code"
"""The name of the code server among the services."""
POSTGRES = "postgres"
"""The name of the database among the services."""

ANSWER_S = 5.0
"""The longest that who asks for the status waits for one service."""
_REPORT_HOLDS_S = 40
"""A supervisor that has said nothing for longer hangs."""


@dataclass(frozen=True)
class Service:
    """A process that `headwater up` starts.

    Attributes:
        name: Its name, and that of its pid file and log.
        command: The program and its arguments.
        address: Where people reach it.
        healthy: Returns whether it is ready to use.
        answers: Returns whether it answers within so many seconds; what does not for long is ended.
        timeout_s: Seconds that it may take to be ready.
        port: The port that it listens on, if any.
        setting: The setting that names the port.
        on_request: True where it starts only when asked for.
    """

    name: str
    command: tuple[str, ...]
    address: str
    healthy: Callable[[], bool]
    answers: Callable[[float], bool]
    timeout_s: float
    port: int | None = None
    setting: str | None = None
    on_request: bool = False


class SupervisorReport(BaseModel):
    """What the supervisor last saw.

    Attributes:
        pid: Its process group, which is the pid of its keeper.
        looked_s: When, on the machine's monotonic clock, which nobody sets.
        daemon_beats: Whether the daemon's heartbeats go on.
        restarts: How often each service was started again, by name.
        given_up: What each service did too often that is not started again, by name.
        hangs: How often each was ended and started again because it did not answer, by name.
        unanswered: How many questions in a row each leaves unanswered now, by name.
    """

    pid: int
    looked_s: float
    daemon_beats: bool
    restarts: dict[str, int]
    given_up: dict[str, str]
    hangs: dict[str, int]
    unanswered: dict[str, int]


def read_supervisor_report(settings: "Settings") -> SupervisorReport | None:
    """Returns the report of the supervisor; None where none runs, or it hangs."""
    started = read_pid_file(service_pid_file(settings, SUPERVISOR))
    if started is None or running_process(started) is None:
        return None
    try:
        report = SupervisorReport.model_validate_json(supervisor_report_file(settings).read_text())
    except (OSError, ValidationError):
        return None
    fresh = time.monotonic() - report.looked_s < _REPORT_HOLDS_S
    return report if report.pid == started.pid and fresh else None


def supervisor_report_file(settings: "Settings") -> Path:
    """Returns the file that holds the supervisor's report."""
    return run_folder(settings) / "supervisor.json"


def service_definitions(settings: "Settings") -> list[Service]:
    """Returns the services of a state folder, in the order in which they start."""
    socket = code_server_socket(settings.home)
    workspace = settings.home / "run" / "workspace.yaml"
    python = sys.executable
    web = f"http://{web_host(settings)}:{settings.web_port}{web_path_prefix(settings)}"
    logs = ("--log-format", "json") if settings.log_format == "json" else ()
    return [
        Service(
            CODE,
            (
                python, "-m", "dagster", "api", "grpc", "-s", str(socket),
                "-m", "orchestration.definitions", "--use-python-environment-entry-point", *logs,
            ),
            str(socket),
            lambda: code_server_answers(socket, ANSWER_S),
            partial(code_server_answers, socket),
            timeout_s=180,
        ),
        Service(
            "web",
            (
                python, "-W", "ignore", "-m", "orchestration.services.web_server", str(workspace), *logs,
            ),
            web,
            lambda: _code_loaded(web, settings.web_password),
            partial(web_server_answers, f"{web}/server_info"),
            timeout_s=120,
            port=settings.web_port,
            setting="HEADWATER_WEB_PORT",
        ),
        Service(
            "daemon",
            (python, "-m", "dagster._daemon", "run", "-w", str(workspace), *logs),
            "",
            lambda: _daemon_works(settings),
            lambda _: _daemon_works(settings),
            timeout_s=120,
        ),
        Service(
            "thrift",
            (python, "-m", "orchestration.services.jdbc"),
            f"jdbc:hive2://127.0.0.1:{settings.thrift_port}",
            lambda: port_answers(settings.thrift_port, ANSWER_S),
            partial(port_answers, settings.thrift_port),
            timeout_s=180,
            port=settings.thrift_port,
            setting="HEADWATER_THRIFT_PORT",
            on_request=True,
        ),
    ]  # fmt: skip


def service_environment(settings: "Settings") -> dict[str, str]:
    """Returns the environment of a service."""
    return os.environ | {
        "HEADWATER_HOME": str(settings.home),
        "DAGSTER_HOME": str(settings.dagster_home),
        _PATH_PREFIX: web_path_prefix(settings),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # what lies in the folder of this command is no module of a service
    }


def web_path_prefix(settings: "Settings") -> str:
    """Returns the path prefix of the running web UI, which `up --path-prefix` gave it; else the one set."""
    started = read_pid_file(service_pid_file(settings, "web"))
    web = running_process(started) if started else None
    if web is not None:
        with contextlib.suppress(psutil.Error):
            return web.environ().get(_PATH_PREFIX, "")
    return settings.web_path_prefix


def run_folder(settings: "Settings") -> Path:
    """Returns the folder of pid files."""
    return settings.home / "run"


def service_pid_file(settings: "Settings", name: str) -> Path:
    """Returns the pid file of a service."""
    return run_folder(settings) / f"{name}.pid"


def service_log(settings: "Settings", name: str) -> Path:
    """Returns the log of a service."""
    return settings.home / "logs" / f"{name}.log"


def code_server_socket(home: Path) -> Path:
    """Returns the Unix socket of the code server.

    Raises:
        ServiceError: The folder for a state folder with a long path belongs to somebody else.
    """
    path = home / "run" / "code.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET:
        return path
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"headwater-run-{os.geteuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise ServiceError(f"{folder} belongs to somebody else; remove it, or use a shorter state folder")
    return folder / "code.sock"


def _code_loaded(web: str, password: SecretStr | None) -> bool:
    """Returns whether the web UI answers and has loaded the definitions."""
    query = "{workspaceOrError{... on Workspace{locationEntries{locationOrLoadError{__typename}}}}}"
    headers = {"Content-Type": "application/json"}
    if password is not None:
        headers["Authorization"] = web_credentials(password)
    request = urllib.request.Request(  # noqa: S310 - a constant scheme and host
        f"{web}/graphql", json.dumps({"query": query}).encode(), headers
    )
    # A proxy of the environment has no business on loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=ANSWER_S) as response:
            entries = json.load(response)["data"]["workspaceOrError"].get("locationEntries", [])
    except (OSError, ValueError, KeyError, TypeError, urllib.error.URLError):
        return False
    loaded = [(entry["locationOrLoadError"] or {}).get("__typename") for entry in entries]
    return loaded == ["RepositoryLocation"]


def _daemon_works(settings: "Settings") -> bool:
    """Returns what the supervisor saw; where none looks, a daemon that runs counts as one that works."""
    report = read_supervisor_report(settings)
    return report is None or report.daemon_beats
