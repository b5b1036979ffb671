"""Who is told of a failure, what is tried again, and how a dead run is found."""

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import dagster as dg
import psutil
import psycopg
import pytest
from pydantic import SecretStr

from assets.dagster import retry
from assets.dagster.retry import is_transient, retried
from orchestration.automation.alerts import Alert
from orchestration.automation.automation import alerts, reaper
from orchestration.automation.liveness import PROCESS_TAG, alive, this_process
from orchestration.services.processes import born_s
from retrieval.store.postgres import DatabaseUnavailable, Postgres

FAILURE = {"run_id": "r", "job": "refresh", "failed": "gold__chunks", "message": "broken"}


@pytest.fixture
def service() -> Iterator[HTTPServer]:
    """A webhook that keeps what it was told, and answers as it is told to."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.told.append(json.loads(body))  # type: ignore[attr-defined]
            self.send_response(self.server.answer)  # type: ignore[attr-defined]
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.told, server.answer = [], 200  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def webhook(service: HTTPServer) -> SecretStr:
    return SecretStr(f"http://127.0.0.1:{service.server_port}/hook?key=s3cret")


def test_a_failed_run_is_told_to_the_webhook_and_the_program(service: HTTPServer, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    command = (sys.executable, "-c", f"import sys; open({str(heard)!r}, 'w').write(sys.stdin.read())")

    @dg.op
    def breaks() -> None:
        raise ValueError("the document said: secret words")

    @dg.job
    def refresh() -> None:
        breaks()

    instance = dg.DagsterInstance.ephemeral()
    result = refresh.execute_in_process(instance=instance, raise_on_error=False)
    event = next(e for e in result.all_events if e.event_type == dg.DagsterEventType.RUN_FAILURE)
    context = dg.build_run_status_sensor_context(
        "alerts",
        event,
        instance,
        result.dagster_run,
        resources={"alert": Alert(webhook(service), command)},
    ).for_run_failure()
    alerts(context)
    assert service.told == [json.loads(heard.read_text())]  # type: ignore[attr-defined]
    assert service.told[0]["failed"] == "breaks"  # type: ignore[attr-defined]
    assert "secret words" not in heard.read_text()


def test_a_webhook_that_fails_does_not_keep_the_program_from_hearing(
    service: HTTPServer, tmp_path: Path
) -> None:
    service.answer = 500  # type: ignore[attr-defined]
    heard = tmp_path / "heard"
    with pytest.raises(ExceptionGroup) as error:
        Alert(webhook(service), ("cp", "/dev/stdin", str(heard))).send(FAILURE)
    assert json.loads(heard.read_text()) == FAILURE
    assert "HTTP 500" in str(error.value.exceptions)
    assert "s3cret" not in str(error.value.exceptions)
    with pytest.raises(ExceptionGroup) as unreachable:
        Alert(SecretStr("http://127.0.0.1:1/hook?key=s3cret")).send(FAILURE)
    assert "s3cret" not in str(unreachable.value.exceptions)
    assert not Alert().wanted


def attempts(monkeypatch: pytest.MonkeyPatch, *faults: Exception) -> tuple[int, bool]:
    """How often an asset that meets these faults in turn is tried, and whether it is made in the end."""
    monkeypatch.setattr(retry, "_FIRST_WAIT_S", 0.01)
    left, tried = list(faults), []

    @dg.asset
    @retried
    def made(context: dg.AssetExecutionContext) -> None:
        tried.append(context.retry_number)
        if left:
            raise left.pop(0)

    result = dg.materialize([made], raise_on_error=False)
    assert tried == list(range(len(tried)))
    return len(tried), result.success


def test_only_what_passes_by_itself_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    away = psycopg.OperationalError("server closed the connection unexpectedly")
    assert attempts(monkeypatch) == (1, True)
    assert attempts(monkeypatch, away, ConnectionResetError()) == (3, True)
    assert attempts(monkeypatch, *[away] * 9) == (4, False)
    assert attempts(monkeypatch, ValueError("bad data")) == (1, False)


@pytest.mark.parametrize(
    "fault",
    [
        psycopg.errors.DiskFull("could not extend file: No space left on device"),
        psycopg.errors.QueryCanceled("canceling statement due to user request"),
        psycopg.errors.OutOfMemory("out of memory"),
        psycopg.errors.LockNotAvailable("canceling statement due to lock timeout"),
        psycopg.errors.ProgramLimitExceeded("string is too long for tsvector"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_fault_of_the_work_itself_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    assert attempts(monkeypatch, fault) == (1, False)


@pytest.mark.parametrize(
    "fault",
    [
        psycopg.errors.AdminShutdown("terminating connection due to administrator command"),
        psycopg.errors.CrashShutdown("terminating connection because of crash of another server process"),
        psycopg.errors.CannotConnectNow("the database system is starting up"),
        psycopg.errors.ConnectionFailure("connection lost"),
        psycopg.errors.ConnectionTimeout("connection timeout expired"),
        psycopg.errors.TooManyConnections("sorry, too many clients already"),
        DatabaseUnavailable("no connection to PostgreSQL within 30 s"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_database_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    assert attempts(monkeypatch, fault) == (2, True)


def test_a_cancelled_statement_of_a_real_server_is_no_transient_fault(postgres: Postgres) -> None:
    with pytest.raises(psycopg.errors.QueryCanceled) as cancelled, postgres.owner() as connection:
        connection.execute("SET LOCAL statement_timeout = 50")
        connection.execute("SELECT pg_sleep(5)")
    assert not is_transient(cancelled.value)


def test_a_run_whose_process_was_killed_is_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    mark = f"{process.pid}@{born_s(psutil.Process(process.pid)):.2f}"
    assert alive(mark)
    assert alive(this_process())

    @dg.job
    def refresh() -> None:
        pass

    instance = dg.DagsterInstance.ephemeral()
    runs = [
        instance.create_run_for_job(refresh, tags={PROCESS_TAG: tag}, status=dg.DagsterRunStatus.STARTED)
        for tag in (mark, this_process())
    ]
    process.kill()
    # Nobody has asked for it yet: its pid is still taken.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    reaper(dg.build_sensor_context(instance))
    process.wait()
    states = [instance.get_run_by_id(run.run_id).status for run in runs]  # type: ignore[union-attr]
    assert states == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED]


def test_a_run_goes_on_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    mark, began = this_process(), psutil.boot_time()
    # What the system says of its own start follows the clock.
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: began - 3600)
    assert alive(mark)
