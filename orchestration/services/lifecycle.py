"""Starts and stops the services of one state folder, and tells how each is.

They are PostgreSQL, Dagster's web UI and daemon with their code server, on request the JDBC endpoint, and
the supervisor, which starts again what dies or hangs. All listen on Unix sockets in the state folder or on
loopback, where HEADWATER_WEB_ADDRESS names no other address for the web UI. The web UI and the daemon share
one code server, so the definitions are loaded once, and its runs stop with it.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil
import psycopg

from orchestration.environment.java import require_java
from orchestration.services.dagster_home import DaemonBeats, write_configured_dagster_home
from orchestration.services.processes import (
    ServiceError,
    StartedProcess,
    is_port_free,
    port_holder,
    process_group,
    read_pid_file,
    running_process,
    start_process,
    started_since_boot_s,
    stop_process_group,
    wait_until_healthy,
)
from orchestration.services.supervision import keeper
from orchestration.services.supervision.questions import postgres_answers
from orchestration.services.supervision.service_definitions import (
    ANSWER_S,
    POSTGRES,
    SUPERVISOR,
    Service,
    SupervisorReport,
    code_server_socket,
    read_supervisor_report,
    run_folder,
    service_definitions,
    service_environment,
    service_log,
    service_pid_file,
    supervisor_report_file,
    web_path_prefix,
)
from orchestration.services.web_guard import WebAccess
from orchestration.services.web_mlflow import mlflow_pages
from retrieval.store.postgres import Postgres

if TYPE_CHECKING:
    from orchestration.settings import Settings

_SUPERVISOR_STARTS_S = 60


@dataclass(frozen=True)
class ServiceStatus:
    """The status of one service.

    Attributes:
        service: Its name.
        pid: The pid of its process; None if it does not run or is not ours.
        address: Where people reach it.
        uptime_s: Seconds since it started; None if it does not run or is not ours.
        healthy: Whether it is ready to use now.
        wanted: Whether it is meant to run: `headwater up` started it, and `headwater down` did not stop it.
        restarts: How often the supervisor started it again.
        given_up: What it did too often where it is not started again, such as to end; else empty.
        fault: Why a database elsewhere can not be reached; else empty.
        hangs: How often the supervisor ended it because it did not answer.
        unanswered: How many questions of the supervisor in a row it leaves unanswered now.
    """

    service: str
    pid: int | None
    address: str
    uptime_s: float | None
    healthy: bool
    wanted: bool = False
    restarts: int = 0
    given_up: str = ""
    fault: str = ""
    hangs: int = 0
    unanswered: int = 0


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
    if (
        "web_path_prefix" in settings.model_fields_set
        and web_path_prefix(settings) != settings.web_path_prefix
    ):
        raise ServiceError(
            f"the web UI runs under the path '{web_path_prefix(settings)}/', not "
            f"'{settings.web_path_prefix}/': `headwater down` first"
        )
    wanted = [
        service
        for service in service_definitions(settings)
        # What was asked for once is started again after it was killed.
        if jdbc or not service.on_request or read_pid_file(service_pid_file(settings, service.name))
    ]
    stopped = [service for service in wanted if _running(settings, service.name) is None]
    if stopped:  # two that start the same service would be in each other's way
        stop_process_group(service_pid_file(settings, SUPERVISOR))
        supervisor_report_file(settings).unlink(missing_ok=True)
    for service in stopped:
        # What a killed leader left behind, its port included.
        stop_process_group(service_pid_file(settings, service.name))
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
    run_folder(settings).mkdir(parents=True, exist_ok=True)
    (run_folder(settings) / "workspace.yaml").write_text(json.dumps(workspace))  # JSON is YAML too
    starting: list[tuple[Service, StartedProcess, int, Callable[[], bool]]] = []
    for service in stopped:
        log = service_log(settings, service.name)
        size_bytes = log.stat().st_size if log.is_file() and log.stat().st_size <= 20_000_000 else 0
        report(f"{service.name}: starting")
        # Heartbeats of the daemon before it would pass for those of this one.
        healthy = DaemonBeats(settings.dagster_home).beating if service.name == "daemon" else service.healthy
        environment = service_environment(settings)
        started = start_process(service.command, service_pid_file(settings, service.name), log, environment)
        starting.append((service, started, size_bytes, healthy))
        # The web UI and the daemon would fill their logs with failures to reach the code server.
        if service.name == "code" or service is stopped[-1]:
            for waited, process, log_from, ready in starting:
                log = service_log(settings, waited.name)
                wait_until_healthy(ready, process, log, waited.timeout_s, log_from)
                report(f"{waited.name}: ready{f' at {waited.address}' if waited.address else ''}")
            starting.clear()
    _start_supervisor(settings)
    return service_statuses(settings)


def _start_supervisor(settings: "Settings") -> None:
    if read_supervisor_report(settings) is not None:
        return
    stop_process_group(service_pid_file(settings, SUPERVISOR))  # one that hangs
    log = service_log(settings, SUPERVISOR)
    size_bytes = log.stat().st_size if log.is_file() else 0
    started = start_process(
        keeper.COMMAND, service_pid_file(settings, SUPERVISOR), log, service_environment(settings)
    )
    wait_until_healthy(
        lambda: read_supervisor_report(settings) is not None, started, log, _SUPERVISOR_STARTS_S, size_bytes
    )


def stop_services(settings: "Settings", report: Callable[[str], None]) -> list[str]:
    """Stops all services, runs in progress and what killed services left behind.

    Returns:
        The names of the services that were stopped; empty if none ran.

    Raises:
        ServiceError, EmbeddedServerError: Something could not be stopped.
    """
    stopped = []
    # The supervisor first, which would start again what is stopped; then the daemon, so that it launches
    # nothing into what is going away.
    if stop_process_group(service_pid_file(settings, SUPERVISOR)):
        stopped.append(SUPERVISOR)
    supervisor_report_file(settings).unlink(missing_ok=True)
    for service in sorted(service_definitions(settings), key=lambda service: service.name != "daemon"):
        started = read_pid_file(service_pid_file(settings, service.name))
        if started and process_group(started):
            report(f"{service.name}: stopping")
        if stop_process_group(service_pid_file(settings, service.name)):
            stopped.append(service.name)
    postgres = Postgres(settings.home, settings.postgres)
    if postgres.server and postgres.server.running():
        report("postgres: stopping")
        postgres.stop()
        stopped.append("postgres")
    code_server_socket(settings.home).unlink(missing_ok=True)
    return stopped


def service_statuses(settings: "Settings") -> list[ServiceStatus]:
    """Returns the status of each service, PostgreSQL first; starts nothing."""
    report = read_supervisor_report(settings)
    found = []
    for service in service_definitions(settings):
        started = _running(settings, service.name)
        wanted = service_pid_file(settings, service.name).exists()
        if service.on_request and not wanted:
            continue
        found.append(
            ServiceStatus(
                service.name,
                started.pid if started else None,
                service.address,
                _uptime_s(started.born_s) if started else None,
                started is not None and service.healthy(),
                wanted,
            )
        )
        if service.name == "web" and mlflow_pages(settings.training_place) is not None:
            # A part of the web UI, at an address of its own: what is wrong with that is said of it.
            address = f"{service.address}/mlflow"
            found.append(replace(found[-1], service="mlflow", address=address, wanted=False))
    up = any(each.wanted for each in found)
    supervisor = _running(settings, SUPERVISOR)
    found.append(
        ServiceStatus(
            SUPERVISOR,
            supervisor.pid if supervisor else None,
            "",
            _uptime_s(supervisor.born_s) if supervisor else None,
            healthy=report is not None,
            wanted=up,
        )
    )
    found.insert(0, _postgres_status(settings, up))
    return [_as_supervised(each, report) for each in found] if report else found


def _as_supervised(found: ServiceStatus, report: SupervisorReport) -> ServiceStatus:
    """Returns the status of a service with what the supervisor saw of it."""
    name = found.service
    return replace(
        found,
        restarts=report.restarts.get(name, 0),
        given_up=report.given_up.get(name, "") if found.pid is None else "",
        hangs=report.hangs.get(name, 0),
        unanswered=report.unanswered.get(name, 0),
    )


def _postgres_status(settings: "Settings", wanted: bool) -> ServiceStatus:
    postgres = Postgres(settings.home, settings.postgres)
    if postgres.server is None:
        url = settings.postgres.url.get_secret_value() if settings.postgres.url else ""
        parts = psycopg.conninfo.conninfo_to_dict(url)
        address = f"{parts.get('host')}:{parts.get('port', 5432)}"
        fault = ""
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.Error as error:
            fault = " ".join(str(error).split()) or type(error).__name__
        return ServiceStatus(POSTGRES, None, address, None, healthy=not fault, wanted=True, fault=fault)
    if not postgres.server.running():
        address = str(postgres.server.data)
        return ServiceStatus(POSTGRES, None, address, None, False, wanted)
    pid = int((postgres.server.data / "postmaster.pid").read_text().split()[0])
    born_s = started_since_boot_s(psutil.Process(pid))
    socket = postgres.server.socket
    answers = socket is not None and postgres_answers(socket, ANSWER_S)
    return ServiceStatus(POSTGRES, pid, str(postgres.server.data), _uptime_s(born_s), answers, wanted)


def _uptime_s(since_boot_s: float) -> float:
    """Returns the age of a process; both sides are counted from the start of the machine."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot_s
    return time.time() - psutil.boot_time() - since_boot_s


def _require_port(service: Service) -> None:
    if service.port is not None and not is_port_free(service.port):
        raise ServiceError(
            f"port {service.port} of 127.0.0.1, which {service.name} needs, is taken by "
            f"{port_holder(service.port)}: stop that, or set {service.setting} to a free port"
        )


def _running(settings: "Settings", name: str) -> StartedProcess | None:
    started = read_pid_file(service_pid_file(settings, name))
    return started if started and running_process(started) else None
