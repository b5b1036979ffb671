"""How often what dies or hangs is started again; that the daemon works is told whatever the clock says."""

import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import psutil
import pytest
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo
from free_ports import free_ports
from pydantic import SecretStr

from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.services.dagster_home import DaemonBeats, write_dagster_home
from orchestration.services.lifecycle import ServiceStatus
from orchestration.services.processes import (
    read_pid_file,
    running_process,
    start_process,
    started_since_boot_s,
    stop_process_group,
)
from orchestration.services.status import service_problem
from orchestration.services.supervision import keeper, service_definitions, supervisor
from orchestration.services.supervision.liveness import ASK_EVERY_S, MOST_UNANSWERED, Question
from orchestration.services.supervision.questions import port_answers
from orchestration.services.supervision.restart_budget import MOST_RESTARTS, WINDOW_S, RestartBudget
from orchestration.services.supervision.service_definitions import (
    CODE,
    SUPERVISOR,
    Service,
    SupervisorReport,
    read_supervisor_report,
    service_pid_file,
    supervisor_report_file,
)
from orchestration.services.supervision.supervisor import Supervisor
from orchestration.settings import Settings
from retrieval.store.postgres import PostgresConfig

KINDS = ("SENSOR", "SCHEDULER", "QUEUED_RUN_COORDINATOR")


def test_restarts_wait_longer_each_time_and_end() -> None:
    budget, now_s, waits_s = RestartBudget(), 1000.0, []
    for _ in range(MOST_RESTARTS):
        begun_s = now_s
        while not budget.due(now_s):
            now_s += 0.25
        waits_s.append(now_s - begun_s)
        budget.take(now_s)
    assert waits_s == [0, 1, 2, 4, 8]
    assert budget.spent(now_s)
    assert not budget.due(now_s + 60)
    assert budget.due(now_s + WINDOW_S + 1)  # it had run well for that long
    assert budget.total == MOST_RESTARTS


@pytest.fixture
def beats(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A daemon that beats when it is told to, at a wall-clock time that it is told."""
    write_dagster_home(tmp_path / "dagster")
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:

        def beat(timestamp: float, daemon: str = "one") -> None:
            for kind in KINDS:
                instance.add_daemon_heartbeat(DaemonHeartbeat(timestamp, kind, daemon, []))

        yield SimpleNamespace(home=tmp_path / "dagster", beat=beat)


def test_a_clock_that_is_set_back_does_not_hide_a_daemon_that_hangs(
    beats: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time()
    beats.beat(later)
    watched = DaemonBeats(beats.home, works=True)
    assert watched.beating()
    now_s = time.monotonic()
    monkeypatch.setattr("time.time", lambda: later - 3600)  # its last heartbeat is of the future now
    monkeypatch.setattr("time.monotonic", lambda: now_s + 100)
    assert not watched.beating()
    beats.beat(later - 3590)  # it went on, by the new clock
    assert watched.beating()


def test_heartbeats_of_the_daemon_before_are_not_those_of_the_next(beats: SimpleNamespace) -> None:
    beats.beat(time.time())
    watched = DaemonBeats(beats.home)
    assert not watched.beating()
    beats.beat(time.time(), "two")
    assert watched.beating()


def test_a_failed_tick_is_no_failed_daemon(beats: SimpleNamespace) -> None:
    watched = DaemonBeats(beats.home)
    with dg.DagsterInstance.from_config(str(beats.home)) as instance:
        for kind in KINDS:
            fault = SerializableErrorInfo("a sensor raised", [], "ValueError") if kind == "SENSOR" else None
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), kind, "one", [fault] if fault else []))
    assert watched.beating()


def test_the_birth_of_a_process_does_not_move_with_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    process = psutil.Process()
    before = started_since_boot_s(process)
    process.create_time()  # psutil keeps it
    booted = psutil.boot_time()
    monkeypatch.setattr("psutil.boot_time", lambda: booted - 3600)
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: booted - 3600)
    assert started_since_boot_s(process) == started_since_boot_s(psutil.Process()) == before


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A state folder whose database is elsewhere, so that no server is started."""
    settings = Settings(
        home=tmp_path / "home", postgres=PostgresConfig(url=SecretStr("postgresql://127.0.0.1:9/none"))
    )
    write_dagster_home(settings.dagster_home)
    (settings.home / "run").mkdir()
    return settings


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now_s: float = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervisor, "time", clock)
    return clock


def supervised(
    settings: Settings, service: Service, monkeypatch: pytest.MonkeyPatch
) -> tuple[Supervisor, Path]:
    """A supervisor of one service, which was started, and the pid file of the service."""
    monkeypatch.setattr(supervisor, "service_definitions", lambda _: [service])
    pid_file = service_pid_file(settings, service.name)
    log = settings.home / "logs" / f"{service.name}.log"
    start_process(service.command, pid_file, log, os.environ)
    return Supervisor(settings), pid_file


def pid(pid_file: Path) -> int:
    started = read_pid_file(pid_file)
    assert started is not None
    return started.pid


def reported(settings: Settings) -> SupervisorReport:
    return SupervisorReport.model_validate_json(supervisor_report_file(settings).read_text())


def ask(watched: Supervisor, clock: Clock, questions: int = 1) -> None:
    """Has a supervisor ask so many questions, and waits for their answers."""
    for _ in range(questions):
        clock.now_s += ASK_EVERY_S
        watched.look()
        for thread in threading.enumerate():
            if isinstance(thread, Question):
                thread.join(60)
        watched.look()


SLOW_SERVER = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    client, _ = server.accept()
    client.recv(1)
    time.sleep(0.2)
    client.close()
"""


def test_what_is_stopped_is_started_again_and_what_is_only_slow_is_left_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    [port] = free_ports(1)
    patience_s = 60.0
    command = (sys.executable, "-S", "-c", SLOW_SERVER, str(port))
    service = Service("web", command, "", lambda: True, lambda _: port_answers(port, patience_s), 1)
    watched, pid_file = supervised(settings, service, monkeypatch)
    try:
        while not port_answers(port, patience_s):
            pass
        first = pid(pid_file)
        ask(watched, clock, 2 * MOST_UNANSWERED)
        assert (pid(pid_file), reported(settings).unanswered) == (first, {})
        os.kill(first, signal.SIGSTOP)
        patience_s = 0.2
        ask(watched, clock, MOST_UNANSWERED - 1)
        assert (pid(pid_file), reported(settings).unanswered) == (first, {"web": MOST_UNANSWERED - 1})
        os.kill(first, signal.SIGCONT)
        patience_s = 60
        ask(watched, clock)
        assert (pid(pid_file), reported(settings).unanswered) == (first, {})
        os.kill(first, signal.SIGSTOP)
        patience_s = 0.2
        ask(watched, clock, MOST_UNANSWERED)
        watched.look()
        report, second = reported(settings), pid(pid_file)
        assert second != first
        assert report.restarts == report.hangs == {"web": 1}
        patience_s = 60
        while not port_answers(port, patience_s):
            pass
        ask(watched, clock, MOST_UNANSWERED)
        assert (pid(pid_file), reported(settings).unanswered) == (second, {})
    finally:
        stop_process_group(pid_file, 0.5)


SLEEPING = (sys.executable, "-S", "-c", "import time; time.sleep(600)")


def test_what_never_answers_has_time_to_start_and_is_given_up_in_the_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    service = Service("web", SLEEPING, "", lambda: False, lambda _: False, timeout_s=5 * ASK_EVERY_S)
    watched, pid_file = supervised(settings, service, monkeypatch)
    watched.look()
    first = pid(pid_file)
    ask(watched, clock, 4 + MOST_UNANSWERED - 1)
    assert (pid(pid_file), reported(settings).hangs) == (first, {})
    ask(watched, clock)
    assert reported(settings).hangs == {"web": 1}
    for _ in range(50):
        if reported(settings).given_up:
            break
        ask(watched, clock)
    report = reported(settings)
    assert report.given_up == {"web": f"did not answer {MOST_RESTARTS + 1} times within 3600 s"}
    assert report.restarts == report.hangs == {"web": MOST_RESTARTS}
    started = read_pid_file(pid_file)
    assert started is not None
    assert running_process(started) is None


def test_the_code_server_is_started_again_when_sources_change_and_no_run_ends_with_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    service = Service(CODE, SLEEPING, "", lambda: True, lambda _: True, timeout_s=1)
    sources = SourceRegistry(settings.sources_file)
    sources.add(Source(name="first", location="/usr/share/doc"))
    watched, pid_file = supervised(settings, service, monkeypatch)

    def after(seconds: int) -> int:
        for _ in range(seconds):
            clock.now_s += 1
            watched.look()
        return pid(pid_file)

    try:
        first = after(10)
        sources.add(Source(name="second", location="/usr/share/man"))
        with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
            job = dg.GraphDefinition(name="refresh").to_job()
            run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
            assert after(10) == first
            instance.report_run_canceled(run)
        second = after(10)
        assert second != first
        assert after(10) == second
        assert reported(settings).restarts == {}  # it did not die
        sources.remove("first")
        assert after(4) == second  # another change may follow
        assert after(4) != second
    finally:
        stop_process_group(pid_file, 0.5)


def test_what_dies_at_once_every_time_is_given_up_with_what_its_log_says(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = (
        sys.executable,
        "-S",
        "-c",
        "print('no table'); print('the disk is broken'); raise SystemExit(1)",
    )
    service = Service("web", dying, "", lambda: False, lambda _: False, 1)
    begun_s = time.monotonic()
    fast = SimpleNamespace(monotonic=lambda: begun_s + 10 * (time.monotonic() - begun_s))
    monkeypatch.setattr(supervisor, "time", fast)
    watched, pid_file = supervised(settings, service, monkeypatch)
    first = read_pid_file(pid_file)
    pids = {first.pid if first else None}
    report_file = supervisor_report_file(settings)
    given_up: dict[str, str] = {}
    while not given_up and time.monotonic() - begun_s < 30:
        watched.look()
        started = read_pid_file(pid_file)
        pids.add(started.pid if started else None)
        given_up = SupervisorReport.model_validate_json(report_file.read_text()).given_up
        time.sleep(0.02)
    assert given_up == {"web": "ended 6 times within 300 s"}
    web = ServiceStatus("web", None, "", None, False, True, MOST_RESTARTS, given_up["web"])
    said = service_problem(web, settings)
    assert said is not None
    assert said.endswith("It ends: the disk is broken | no table | the disk is broken")
    assert len(pids) == 1 + MOST_RESTARTS
    later_s = time.monotonic() + 10 * WINDOW_S  # until the next `headwater up`
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: later_s))
    for _ in range(5):
        watched.look()
    assert SupervisorReport.model_validate_json(report_file.read_text()).restarts == {"web": MOST_RESTARTS}


def test_a_report_counts_while_its_supervisor_lives_and_looks(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = service_pid_file(settings, SUPERVISOR)
    sleeping = (sys.executable, "-S", "-c", "import time; time.sleep(60)")
    started = start_process(sleeping, pid_file, settings.home / "logs" / "s.log", os.environ)
    report = SupervisorReport(
        pid=started.pid,
        looked_s=time.monotonic(),
        daemon_beats=True,
        restarts={},
        given_up={},
        hangs={},
        unanswered={},
    )
    supervisor_report_file(settings).write_text(report.model_dump_json())
    assert read_supervisor_report(settings) == report
    monkeypatch.setattr("time.time", lambda: 0.0)  # the clock has no say
    assert read_supervisor_report(settings) == report
    stale = SimpleNamespace(monotonic=lambda: time.monotonic() + 60)
    with monkeypatch.context() as hanging:
        hanging.setattr(service_definitions, "time", stale)
        assert read_supervisor_report(settings) is None
    psutil.Process(started.pid).kill()
    psutil.Process(started.pid).wait()
    assert read_supervisor_report(settings) is None


@pytest.fixture
def locked(settings: Settings) -> Iterator[None]:
    """Every SQLite database of Dagster's, held by somebody who lets nobody read either."""
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        instance.get_daemon_heartbeats()
        instance.get_runs_count()
    held = [sqlite3.connect(file) for file in settings.dagster_home.rglob("*.db")]
    assert held
    for each in held:
        each.execute("PRAGMA locking_mode = EXCLUSIVE")
        each.execute("BEGIN EXCLUSIVE")
    yield
    for each in held:
        each.close()


@pytest.mark.usefixtures("locked")
def test_what_looks_after_services_lives_while_dagsters_storage_is_locked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service("web", SLEEPING, "", lambda: True, lambda _: True, timeout_s=1)
    watched, pid_file = supervised(settings, service, monkeypatch)
    try:
        for _ in range(2):
            clock.now_s += 10
            watched.look()
        first = pid(pid_file)
        os.kill(first, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(first)], timeout=10)
        watched.look()
        assert pid(pid_file) != first
        assert reported(settings).restarts == {"web": 1}
        assert reported(settings).looked_s == clock.now_s
    finally:
        stop_process_group(pid_file, 0.5)
    assert [each.getMessage() for each in caplog.records if each.exc_info] == [
        "looking after the daemon's heartbeats failed; trying again"
    ]


@pytest.mark.usefixtures("locked")
def test_a_daemon_that_ends_while_its_storage_is_locked_is_not_given_up_for_that(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    service = Service("daemon", SLEEPING, "", lambda: True, lambda _: True, timeout_s=1)
    watched, pid_file = supervised(settings, service, monkeypatch)
    os.kill(pid(pid_file), signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid(pid_file))], timeout=10)
    clock.now_s += 1
    watched.look()
    assert (reported(settings).given_up, reported(settings).restarts) == ({}, {})


def test_supervisor_and_keeper_bring_each_other_back_after_kill_9_and_stop_together(
    settings: Settings,
) -> None:
    pid_file = service_pid_file(settings, SUPERVISOR)
    environment = service_definitions.service_environment(settings) | {
        "HEADWATER_POSTGRES__URL": "postgresql://127.0.0.1:9/none"
    }
    start_process(keeper.COMMAND, pid_file, settings.home / "logs" / "supervisor.log", environment)

    def supervisor_pid(but: int = 0) -> int:
        """Waits until a supervisor other than one reports to the keeper of the pid file."""
        for _ in range(600):
            time.sleep(0.1)
            kept = [each.pid for each in psutil.Process(pid(pid_file)).children()]
            if read_supervisor_report(settings) and kept and but not in (*kept, pid(pid_file)):
                return kept[0]
        raise AssertionError((settings.home / "logs" / "supervisor.log").read_text())

    try:
        first, its_keeper = supervisor_pid(), pid(pid_file)
        os.kill(first, signal.SIGKILL)
        second = supervisor_pid(but=first)
        assert pid(pid_file) == its_keeper
        os.kill(its_keeper, signal.SIGKILL)
        while pid(pid_file) == its_keeper:
            time.sleep(0.05)
        assert pid(pid_file) == second  # which is the keeper now
        third = supervisor_pid(but=its_keeper)
    finally:
        assert stop_process_group(pid_file)
    assert not psutil.pid_exists(third)
