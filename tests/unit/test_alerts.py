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
from assets.dagster.retry import is_transient_asset_fault, retry_asset
from orchestration.automation.alerts import FailureAlert
from orchestration.automation.dead_runs import RUN_PROCESS_TAG, RunProcess, end_dead_runs
from orchestration.automation.sensors import dead_runs_sensor, failed_run_sensor
from orchestration.services.run_texts import run_name
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
        resources={"alert": FailureAlert(webhook(service), command)},
    ).for_run_failure()
    failed_run_sensor(context)
    assert service.told == [json.loads(heard.read_text())]  # type: ignore[attr-defined]
    assert service.told[0]["failed"] == "breaks"  # type: ignore[attr-defined]
    assert "secret words" not in heard.read_text()


def test_a_run_of_a_few_assets_is_called_after_them() -> None:
    def named(*assets: str, checks: tuple[str, ...] = (), job: str = "__ASSET_JOB") -> str:
        of_documents = {dg.AssetCheckKey(dg.AssetKey(["silver", "documents"]), name) for name in checks}
        chosen = frozenset(dg.AssetKey(name.split("/")) for name in assets)
        return run_name(
            dg.DagsterRun(
                job, asset_selection=chosen or None, asset_check_selection=frozenset(of_documents) or None
            )
        )

    assert named(job="refresh") == "refresh"
    assert named("gold/chunks") == "gold/chunks"
    assert named("gold/chunks", checks=("row_count",)) == "gold/chunks"
    assert named("a/e", "a/d", "a/c", "a/b", "a/a") == "a/a, a/b, a/c and 2 more"
    assert named(checks=("row_count",)) == "check row_count of silver/documents"
    assert named() == "all assets"


def test_a_webhook_that_fails_does_not_keep_the_program_from_hearing(
    service: HTTPServer, tmp_path: Path
) -> None:
    service.answer = 500  # type: ignore[attr-defined]
    heard = tmp_path / "heard"
    with pytest.raises(ExceptionGroup) as error:
        FailureAlert(webhook(service), ("cp", "/dev/stdin", str(heard))).send(FAILURE)
    assert json.loads(heard.read_text()) == FAILURE
    assert "HTTP 500" in str(error.value.exceptions)
    assert "s3cret" not in str(error.value.exceptions)
    with pytest.raises(ExceptionGroup) as unreachable:
        FailureAlert(SecretStr("http://127.0.0.1:1/hook?key=s3cret")).send(FAILURE)
    assert "s3cret" not in str(unreachable.value.exceptions)
    assert not FailureAlert().is_configured


def attempts(monkeypatch: pytest.MonkeyPatch, *faults: Exception) -> tuple[int, bool]:
    """How often an asset that meets these faults in turn is tried, and whether it is made in the end."""
    monkeypatch.setattr(retry, "_FIRST_WAIT_S", 0.01)
    left, tried = list(faults), []

    @dg.asset
    @retry_asset
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
    with postgres.owner() as connection:
        connection.execute("SET LOCAL statement_timeout = 50")
        with pytest.raises(psycopg.errors.QueryCanceled) as cancelled:
            connection.execute("SELECT pg_sleep(5)")
    assert not is_transient_asset_fault(cancelled.value)


def started_runs(instance: dg.DagsterInstance, *processes: RunProcess) -> list[str]:
    """The ids of runs in progress, one per process."""

    @dg.job
    def refresh() -> None:
        pass

    return [
        instance.create_run_for_job(
            refresh,
            tags={RUN_PROCESS_TAG: process.model_dump_json()},
            status=dg.DagsterRunStatus.STARTED,
        ).run_id
        for process in processes
    ]


def test_a_run_whose_process_was_killed_is_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    killed, ours = RunProcess.of_pid(process.pid), RunProcess.of_pid()
    assert not killed.is_dead
    assert not ours.is_dead
    instance = dg.DagsterInstance.ephemeral()
    runs = started_runs(instance, killed, ours)
    process.kill()
    # Nobody has asked for it yet: its pid is still taken.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    dead_runs_sensor(dg.build_sensor_context(instance))
    process.wait()
    states = [instance.get_run_by_id(run_id).status for run_id in runs]  # type: ignore[union-attr]
    assert states == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED]


def test_a_run_of_another_host_is_left_alone() -> None:
    """Its process can not be seen from here, and its pid means nothing here."""
    code = (
        "from orchestration.automation.dead_runs import RunProcess as P; print(P.of_pid().model_dump_json())"
    )
    command = [
        "unshare",
        "--uts",
        "sh",
        "-c",
        'hostname elsewhere && exec "$@"',
        "sh",
        sys.executable,
        "-c",
        code,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    except FileNotFoundError:
        pytest.skip("this machine has no unshare")
    if "unshare" in done.stderr:
        pytest.skip("this machine lets no namespace be made")
    elsewhere = RunProcess.model_validate_json(done.stdout)
    here = RunProcess.of_pid()
    assert (elsewhere.boot_id, elsewhere.host) != (here.boot_id, here.host)
    instance = dg.DagsterInstance.ephemeral()
    # The same pid on this host has ended, and so has one of before this host was started anew.
    ended = elsewhere.model_copy(update={"host": here.host})
    rebooted = here.model_copy(update={"boot_id": "an-earlier-one"})
    other, *dead = started_runs(instance, elsewhere, ended, rebooted)
    assert sorted(end_dead_runs(instance)) == sorted(dead)
    assert instance.get_run_by_id(other).status == dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]


def test_a_run_goes_on_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    process, began = RunProcess.of_pid(), psutil.boot_time()
    # What the system says of its own start follows the clock.
    monkeypatch.setattr("psutil._psplatform.boot_time", lambda: began - 3600)
    assert not process.is_dead
