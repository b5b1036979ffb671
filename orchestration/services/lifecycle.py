"""The services of one state folder: PostgreSQL, Dagster's web UI and daemon, and the JDBC endpoint.

All listen on Unix sockets in the state folder or on loopback, where HEADWATER_WEB_ADDRESS names no other
address for the web UI. The web UI and the daemon share one code server, so the definitions are loaded once,
and its runs stop with it.
"""

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
from pydantic import SecretStr

from orchestration.environment.java import require_java
from orchestration.services.dagster_home import write_configured_dagster_home
from orchestration.services.processes import (
    ServiceError,
    StartedProcess,
    is_listening,
    is_port_free,
    port_holder,
    read_pid_file,
    running_process,
    start_process,
    started_since_boot_s,
    stop_process_group,
    wait_until_healthy,
)
from orchestration.services.web_guard import WebAccess, web_credentials, web_host
from orchestration.services.web_mlflow import mlflow_pages
from retrieval.store.postgres import Postgres

if TYPE_CHECKING:
    from orchestration.settings import Settings

# A Unix socket's address holds 107 bytes.
_LONGEST_SOCKET = 100
_PATH_PREFIX = "HEADWATER_WEB_PATH_PREFIX"


@dataclass(frozen=True)
class Service:
    """A process that `headwater up` starts.

    Attributes:
        name: Its name, and that of its pid file and log.
        command: The program and its arguments.
        address: Where people reach it.
        healthy: Returns whether it is ready to use.
        timeout_s: Seconds that it may take to be ready.
        port: The port that it listens on, if any.
        setting: The setting that names the port.
        on_request: True where it starts only when asked for.
    """

    name: str
    command: tuple[str, ...]
    address: str
    healthy: Callable[[], bool]
    timeout_s: float
    port: int | None = None
    setting: str | None = None
    on_request: bool = False


@dataclass(frozen=True)
class ServiceStatus:
    """The status of one service.

    Attributes:
        service: Its name.
        pid: The pid of its process; None if it does not run or is not ours.
        address: Where people reach it.
        uptime_s: Seconds since it started; None if it does not run or is not ours.
        healthy: Whether it is ready to use now.
    """

    service: str
    pid: int | None
    address: str
    uptime_s: float | None
    healthy: bool


def service_definitions(settings: "Settings") -> list[Service]:
    """Returns the services of a state folder, in the order in which they start."""
    code_socket = _socket(settings.home)
    workspace = settings.home / "run" / "workspace.yaml"
    python = sys.executable
    web = f"http://{web_host(settings)}:{settings.web_port}{_path_prefix(settings)}"
    logs = ("--log-format", "json") if settings.log_format == "json" else ()
    return [
        Service(
            "code",
            (
                python, "-m", "dagster", "api", "grpc", "-s", str(code_socket),
                "-m", "orchestration.definitions", "--use-python-environment-entry-point", *logs,
            ),
            str(code_socket),
            lambda: is_listening(code_socket),
            timeout_s=180,
        ),
        Service(
            "web",
            (
                python, "-W", "ignore", "-m", "orchestration.services.web_server", str(workspace), *logs,
            ),
            web,
            lambda: _code_loaded(web, settings.web_password),
            timeout_s=120,
            port=settings.web_port,
            setting="HEADWATER_WEB_PORT",
        ),
        Service(
            "daemon",
            (python, "-m", "dagster._daemon", "run", "-w", str(workspace), *logs),
            "",
            lambda: _daemon_beats(settings.dagster_home),
            timeout_s=120,
        ),
        Service(
            "thrift",
            (python, "-m", "orchestration.services.jdbc"),
            f"jdbc:hive2://127.0.0.1:{settings.thrift_port}",
            lambda: is_listening(settings.thrift_port),
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
        _PATH_PREFIX: settings.web_path_prefix,
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # what lies in the folder of this command is no module of a service
    }


def start_services(
    settings: "Settings", report: Callable[[str], None], *, jdbc: bool = False
) -> list[ServiceStatus]:
    """Starts the services that do not run yet, and waits until all are ready.

    Args:
        settings: The settings of the state folder; services read the same from their environment.
        report: Called with a line for each service that starts or is ready.
        jdbc: True to start the JDBC endpoint too, which lets one user with a password read the lake.

    Raises:
        UnsupportedJava: There is no Java that Spark runs on.
        ServiceError: A port is taken, the web UI wants a password or runs under another path, or a service
            did not start; what was started stays, and `up` goes on from there.
        DatabaseError, EmbeddedServerError: PostgreSQL can not be used.
    """
    WebAccess.of_settings(settings)
    if "web_path_prefix" in settings.model_fields_set and _path_prefix(settings) != settings.web_path_prefix:
        raise ServiceError(
            f"the web UI runs under the path '{_path_prefix(settings)}/', not "
            f"'{settings.web_path_prefix}/': `headwater down` first"
        )
    wanted = [
        service
        for service in service_definitions(settings)
        # What was asked for once is started again after it was killed.
        if jdbc or not service.on_request or read_pid_file(_pid_file(settings, service.name))
    ]
    stopped = [service for service in wanted if _running(settings, service) is None]
    for service in stopped:
        stop_process_group(
            _pid_file(settings, service.name)
        )  # what a killed leader left behind, its port included
    for service in stopped:
        _require_port(service)
    require_java()
    postgres = Postgres(settings.home, settings.postgres)
    if postgres.server and not postgres.server.running():
        report("postgres: starting")
    with postgres.owner():
        pass
    postgres.close()
    write_configured_dagster_home(settings)
    workspace = {"load_from": [{"grpc_server": {"socket": wanted[0].address, "location_name": "headwater"}}]}
    _run_folder(settings).mkdir(parents=True, exist_ok=True)
    (_run_folder(settings) / "workspace.yaml").write_text(json.dumps(workspace))  # JSON is YAML too
    starting: list[tuple[Service, StartedProcess, int]] = []
    for service in stopped:
        log = _log(settings, service.name)
        size_bytes = log.stat().st_size if log.is_file() and log.stat().st_size <= 20_000_000 else 0
        report(f"{service.name}: starting")
        environment = service_environment(settings)
        started = start_process(service.command, _pid_file(settings, service.name), log, environment)
        starting.append((service, started, size_bytes))
        # The web UI and the daemon would fill their logs with failures to reach the code server.
        if service.name == "code" or service is stopped[-1]:
            for waited, process, log_from in starting:
                log = _log(settings, waited.name)
                wait_until_healthy(waited.healthy, process, log, waited.timeout_s, log_from)
                report(f"{waited.name}: ready{f' at {waited.address}' if waited.address else ''}")
            starting.clear()
    return service_statuses(settings)


def stop_services(settings: "Settings", report: Callable[[str], None]) -> list[str]:
    """Stops all services, runs in progress and what killed services left behind.

    Returns:
        The names of the services that were stopped; empty if none ran.

    Raises:
        ServiceError, EmbeddedServerError: Something could not be stopped.
    """
    stopped = []
    # The daemon first, so that it launches nothing into what is going away.
    for service in sorted(service_definitions(settings), key=lambda service: service.name != "daemon"):
        report(f"{service.name}: stopping")
        if stop_process_group(_pid_file(settings, service.name)):
            stopped.append(service.name)
    postgres = Postgres(settings.home, settings.postgres)
    if postgres.server and postgres.server.running():
        report("postgres: stopping")
        postgres.stop()
        stopped.append("postgres")
    _socket(settings.home).unlink(missing_ok=True)
    return stopped


def service_statuses(settings: "Settings") -> list[ServiceStatus]:
    """Returns the status of each service, PostgreSQL first; starts nothing."""
    found = [_postgres_status(settings)]
    for service in service_definitions(settings):
        started = _running(settings, service)
        if service.on_request and read_pid_file(_pid_file(settings, service.name)) is None:
            continue
        found.append(
            ServiceStatus(
                service.name,
                started.pid if started else None,
                service.address,
                _uptime_s(started.born_s) if started else None,
                started is not None and service.healthy(),
            )
        )
        if service.name == "web" and mlflow_pages(settings.training_place) is not None:
            # A part of the web UI, at an address of its own.
            found.append(replace(found[-1], service="mlflow", address=f"{service.address}/mlflow"))
    return found


def _postgres_status(settings: "Settings") -> ServiceStatus:
    postgres = Postgres(settings.home, settings.postgres)
    if postgres.server is None:
        url = settings.postgres.url.get_secret_value() if settings.postgres.url else ""
        parts = psycopg.conninfo.conninfo_to_dict(url)
        try:
            psycopg.connect(url, connect_timeout=5).close()
            healthy = True
        except psycopg.Error:
            healthy = False
        return ServiceStatus(
            "postgres", None, f"{parts.get('host')}:{parts.get('port', 5432)}", None, healthy
        )
    if not postgres.server.running():
        return ServiceStatus("postgres", None, str(postgres.server.data), None, healthy=False)
    pid = int((postgres.server.data / "postmaster.pid").read_text().split()[0])
    return ServiceStatus(
        "postgres",
        pid,
        str(postgres.server.data),
        _uptime_s(started_since_boot_s(psutil.Process(pid))),
        healthy=True,
    )


def _uptime_s(since_boot_s: float) -> float:
    return time.time() - psutil.boot_time() - since_boot_s


def _require_port(service: Service) -> None:
    if service.port is not None and not is_port_free(service.port):
        raise ServiceError(
            f"port {service.port} of 127.0.0.1, which {service.name} needs, is taken by "
            f"{port_holder(service.port)}: stop that, or set {service.setting} to a free port"
        )


def _running(settings: "Settings", service: Service) -> StartedProcess | None:
    started = read_pid_file(_pid_file(settings, service.name))
    return started if started and running_process(started) else None


def _path_prefix(settings: "Settings") -> str:
    """Returns the path prefix of the running web UI, which `up --path-prefix` gave it; else the one set."""
    started = read_pid_file(_pid_file(settings, "web"))
    web = running_process(started) if started else None
    if web is not None:
        with contextlib.suppress(psutil.Error):
            return web.environ().get(_PATH_PREFIX, "")
    return settings.web_path_prefix


def _run_folder(settings: "Settings") -> Path:
    return settings.home / "run"


def _pid_file(settings: "Settings", name: str) -> Path:
    return _run_folder(settings) / f"{name}.pid"


def _log(settings: "Settings", name: str) -> Path:
    return settings.home / "logs" / f"{name}.log"


def _socket(home: Path) -> Path:
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
        with opener.open(request, timeout=5) as response:
            entries = json.load(response)["data"]["workspaceOrError"].get("locationEntries", [])
    except (OSError, ValueError, KeyError, TypeError, urllib.error.URLError):
        return False
    loaded = [(entry["locationOrLoadError"] or {}).get("__typename") for entry in entries]
    return loaded == ["RepositoryLocation"]


def _daemon_beats(dagster_home: Path) -> bool:
    """Returns whether each kind of daemon reported within the last minute, and none reported an error."""
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(dagster_home)) as instance:
        beats = instance.get_daemon_heartbeats()
    fresh = [beat for beat in beats.values() if time.time() - beat.timestamp < 60]
    return len(fresh) >= 3 and not any(beat.errors for beat in fresh)
