"""`up`, `status` and `down` of the real services of a state folder."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from dagster import DagsterInstance
from free_ports import free_ports

from orchestration.environment.java import UnsupportedJava
from orchestration.services import lifecycle
from orchestration.services.dagster_home import write_dagster_home
from orchestration.services.processes import ServiceError, is_port_free, process_group, read_pid_file
from orchestration.settings import Settings


@pytest.fixture(scope="module")
def settings(module_folder: Path) -> Iterator[Settings]:
    web_port, thrift_port = free_ports(2)
    with pytest.MonkeyPatch.context() as environment:
        # What the services read, and no run of theirs, is the same as what the test holds.
        environment.setenv("HEADWATER_WEB_PORT", str(web_port))
        environment.setenv("HEADWATER_THRIFT_PORT", str(thrift_port))
        settings = Settings(home=module_folder / "a home")
        yield settings
        lifecycle.stop_services(settings, lambda line: None)


def by_name(found: list[lifecycle.ServiceStatus]) -> dict[str, lifecycle.ServiceStatus]:
    return {status.service: status for status in found}


def asked_by_get(settings: Settings, prefix: str) -> int:
    """The status of a mutation that a page of another site could ask for with an image's address."""
    query = urllib.parse.urlencode({"query": "mutation { terminateRuns(runIds: []) { __typename } }"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(f"http://127.0.0.1:{settings.web_port}{prefix}/graphql?{query}")
    return refused.value.code


def test_a_taken_port_is_named_before_anything_starts(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.thrift_port))
        taken.listen()
        with pytest.raises(ServiceError) as caught:
            lifecycle.start_services(settings, lambda line: None, jdbc=True)
    said = str(caught.value)
    assert f"port {settings.thrift_port} of 127.0.0.1, which thrift needs" in said
    assert f"process {os.getpid()} " in said
    assert "HEADWATER_THRIFT_PORT" in said
    assert not settings.home.exists()


def test_no_java_is_told_before_anything_starts(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UnsupportedJava, match="install Java 17 or 21"):
        lifecycle.start_services(settings, lambda line: None)
    assert not settings.home.exists()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_up_status_kill_up_down(settings: Settings) -> None:
    under_lake = settings.model_copy(update={"web_path_prefix": "/lake"})  # as `up --path-prefix /lake`
    plain = by_name(lifecycle.start_services(under_lake, lambda line: None))
    # The JDBC endpoint starts when it is asked for.
    assert set(plain) == {"postgres", "code", "web", "mlflow", "daemon", "supervisor"}
    assert is_port_free(settings.thrift_port)
    assert asked_by_get(settings, "/lake") == 405
    # Also for a command that was not told the path.
    web = by_name(lifecycle.service_statuses(settings))["web"]
    assert web.healthy
    assert web.address == f"http://127.0.0.1:{settings.web_port}/lake"
    assert plain["mlflow"].address == f"{web.address}/mlflow"
    with pytest.raises(ServiceError, match="under the path '/lake/', not '/other/': `headwater down` first"):
        lifecycle.start_services(Settings(home=settings.home, web_path_prefix="/other"), lambda line: None)

    first = by_name(lifecycle.start_services(settings, lambda line: None, jdbc=True))
    assert set(first) == {"postgres", "code", "web", "mlflow", "daemon", "thrift", "supervisor"}
    assert all(first[name].pid == plain[name].pid for name in plain if name != "supervisor")
    assert all(status.healthy and status.pid for status in first.values())

    copy = settings.home.with_name("copy")
    subprocess.run(["cp", "-a", settings.home, copy], check=True)
    assert lifecycle.stop_services(Settings(home=copy), lambda line: None) == []
    assert all(status.healthy for status in lifecycle.service_statuses(settings))

    ours = [
        process
        for name in ("code", "web", "daemon", "thrift")
        for started in [read_pid_file(settings.home / "run" / f"{name}.pid")]
        if started
        for process in process_group(started)
    ]
    listening = [
        connection.laddr
        for process in ours
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert {settings.web_port, settings.thrift_port} <= {address.port for address in listening}

    told = subprocess.run(
        [str(Path(sys.executable).parent / "headwater"), "up", "--jdbc"],
        env=os.environ | {"HEADWATER_HOME": str(settings.home)},
        capture_output=True,
        text=True,
        check=True,
    )
    file = settings.home / "jdbc.password"
    address = f"jdbc:hive2://127.0.0.1:{settings.thrift_port}"
    assert f"{address}: the user is headwater, the password is in {file}" in told.stdout
    assert file.read_text().strip() not in told.stdout + told.stderr

    again = by_name(lifecycle.start_services(settings, lambda line: None))
    assert {name: status.pid for name, status in again.items()} == {
        name: status.pid for name, status in first.items()
    }

    for name in ("supervisor", "web", "thrift"):  # what it would start again stays dead
        os.kill(first[name].pid or 0, signal.SIGKILL)
        os.waitpid(first[name].pid or 0, 0)
    broken = by_name(lifecycle.service_statuses(settings))
    assert {name for name, status in broken.items() if not status.healthy} == {
        *("web", "mlflow", "thrift", "supervisor")
    }
    # The code server and the daemon went on; what was killed is started again.
    repaired = by_name(lifecycle.start_services(settings, lambda line: None))
    assert all(status.healthy for status in repaired.values())
    assert {name for name in repaired if repaired[name].pid != first[name].pid} == {
        *("web", "mlflow", "thrift", "supervisor")
    }

    for name in ("supervisor", "daemon"):
        os.kill(repaired[name].pid or 0, signal.SIGKILL)
    stopped = lifecycle.stop_services(settings, lambda line: None)
    assert set(stopped) >= {"code", "web", "thrift", "postgres"}
    assert not any(status.pid or status.healthy for status in lifecycle.service_statuses(settings))
    assert lifecycle.stop_services(settings, lambda line: None) == []
    _, alive = psutil.wait_procs(ours, timeout=5)
    assert alive == []


def test_dagster_takes_its_settings(tmp_path: Path) -> None:
    write_dagster_home(tmp_path / "dagster")
    with DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        pools = instance.get_concurrency_config().pool_config
        assert pools.default_pool_limit == 1
        assert str(pools.pool_granularity) == "PoolGranularity.OP"


def test_dagsters_settings_are_written_once(tmp_path: Path) -> None:
    path = write_dagster_home(tmp_path)
    before = path.stat().st_mtime_ns
    write_dagster_home(tmp_path)
    assert path.stat().st_mtime_ns == before
