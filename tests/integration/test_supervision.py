"""Services that are killed are back; status tells what is wrong with them meanwhile and what to do."""

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest
from free_ports import free_ports
from typer.testing import CliRunner, Result

from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.cli.main import app
from orchestration.services import lifecycle
from orchestration.services.lifecycle import ServiceStatus, service_statuses
from orchestration.services.status import state_status
from orchestration.services.supervision.questions import postgres_answers
from orchestration.services.supervision.restart_budget import MOST_RESTARTS
from orchestration.services.supervision.service_definitions import (
    read_supervisor_report,
    service_definitions,
)
from orchestration.settings import Settings, open_configured_lake
from retrieval.store.postgres import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(400)]


@dataclass(frozen=True)
class Started:
    """A state folder whose services run, and the seconds that each took to be ready."""

    settings: Settings
    cold_s: dict[str, float]


@pytest.fixture(scope="module")
def started(module_folder: Path) -> Iterator[Started]:
    web_port, thrift_port = free_ports(2)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HEADWATER_HOME", str(module_folder / "home"))
        environment.setenv("HEADWATER_WEB_PORT", str(web_port))
        environment.setenv("HEADWATER_THRIFT_PORT", str(thrift_port))
        settings = Settings()
        settings.home.mkdir()
        open_configured_lake(settings)
        begun_s: dict[str, float] = {}
        cold_s: dict[str, float] = {}

        def report(line: str) -> None:
            name, _, what = line.partition(": ")
            now_s = time.monotonic()
            if "postgres" in begun_s and "postgres" not in cold_s:
                cold_s["postgres"] = now_s - begun_s["postgres"]
            if what == "starting":
                begun_s[name] = now_s
            elif what.startswith("ready"):
                cold_s[name] = now_s - begun_s[name]

        lifecycle.start_services(settings, report)
        yield Started(settings, cold_s)
        lifecycle.stop_services(settings, lambda line: None)


def of(settings: Settings, name: str) -> ServiceStatus:
    return next(each for each in service_statuses(settings) if each.service == name)


def wait_for(what: Callable[[], object], within_s: float = 120) -> float:
    begun_s = time.monotonic()
    while not what():
        assert time.monotonic() - begun_s < within_s, "not in time"
        time.sleep(0.1)
    return time.monotonic() - begun_s


def status() -> Result:
    return CliRunner().invoke(app, ["status"])


def problems(settings: Settings) -> str:
    return "\n".join(state_status(settings).problems)


def works(settings: Settings, name: str) -> bool:
    """Whether a service does what it is there for, the web UI with its code server included."""
    if name == "postgres":
        postgres = Postgres(settings.home, settings.postgres)
        with postgres.maintenance() as connection:
            connection.execute("SELECT 1")
        postgres.close()
        return True
    return of(settings, name).healthy and of(settings, "web").healthy


def test_all_is_well(started: Started) -> None:
    wait_for(lambda: works(started.settings, "daemon"))
    done = status()
    assert done.exit_code == 0, done.output
    assert "nothing is wrong" in done.output


@pytest.mark.parametrize("name", ["postgres", "code", "web", "daemon"])
def test_a_killed_service_is_back(started: Started, name: str) -> None:
    settings = started.settings
    wait_for(lambda: works(settings, "daemon"))
    before = of(settings, name)
    assert before.pid
    os.kill(before.pid, signal.SIGKILL)
    killed_s = time.monotonic()
    wait_for(lambda: of(settings, name).pid not in (None, before.pid), 10)
    restarted_s = time.monotonic() - killed_s
    wait_for(lambda: works(settings, name))
    useful_s = time.monotonic() - killed_s
    cold_s = started.cold_s[name]
    print(f"{name}: again after {restarted_s:.1f} s, useful after {useful_s:.1f} s, cold {cold_s:.1f} s")
    assert restarted_s < 2
    assert useful_s < 1.5 * cold_s + 1
    assert of(settings, name).restarts == 1


def test_a_service_that_is_starting_again_is_told(started: Started) -> None:
    daemon = of(started.settings, "daemon")
    os.kill(daemon.pid or 0, signal.SIGKILL)
    done = status()
    assert done.exit_code == 1
    assert "daemon is starting, for" in done.output or "daemon was killed and is being started" in done.output
    wait_for(lambda: of(started.settings, "daemon").healthy)


def source_assets(settings: Settings) -> set[str]:
    """The sources that the web UI has in its asset graph."""
    query = json.dumps(
        {
            "query": '{assetNodes(group: {groupName: "sources", repositoryName: "__repository__", '
            'repositoryLocationName: "headwater"}) {assetKey {path}}}'
        }
    ).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{settings.web_port}/graphql", query, {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=20) as response:
        nodes = json.load(response)["data"]["assetNodes"]
    return {node["assetKey"]["path"][-1] for node in nodes}


def test_a_source_that_is_added_is_in_the_graph(started: Started) -> None:
    settings = started.settings
    before = of(settings, "code")
    SourceRegistry(settings.sources_file).add(Source(name="new", location="s3a://bucket/folder"))
    took_s = wait_for(lambda: of(settings, "web").healthy and source_assets(settings) == {"new"})
    print(f"in the graph after {took_s:.1f} s")
    wait_for(lambda: problems(settings) == "")
    assert of(settings, "code").pid != before.pid
    assert of(settings, "code").restarts == before.restarts


def test_what_is_stopped_answers_nothing_though_its_process_runs(started: Started) -> None:
    settings = started.settings
    answers = {each.name: each.answers for each in service_definitions(settings)}
    postgres = Postgres(settings.home, settings.postgres).server
    assert postgres is not None
    assert postgres.socket is not None
    answers["postgres"] = partial(postgres_answers, postgres.socket)
    names = ("code", "web", "postgres")
    assert {name: answers[name](20) for name in names} == dict.fromkeys(names, True)
    pids = [of(settings, name).pid or 0 for name in names]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert {name: answers[name](1) for name in names} == dict.fromkeys(names, False)
        said = problems(settings)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    for name in names:  # one that has just begun may be starting yet
        assert f"{name} runs but does not answer: see " in said or f"{name} is starting, for" in said
    wait_for(lambda: problems(settings) == "")


def test_killed_with_the_keeper_of_the_supervisor_a_service_is_back(started: Started) -> None:
    settings = started.settings
    before = {name: of(settings, name).pid for name in ("supervisor", "daemon", "code")}
    for pid in before.values():
        os.kill(pid or 0, signal.SIGKILL)
    wait_for(lambda: not {of(settings, name).pid for name in before} & {None, *before.values()})
    wait_for(lambda: problems(settings) == "")


def test_killed_with_supervisor_and_keeper_it_stays_dead_and_up_takes_over(started: Started) -> None:
    settings = started.settings
    keeper = psutil.Process(of(settings, "supervisor").pid)
    [supervisor] = [each for each in keeper.children() if each.cmdline()[-1].endswith(".supervisor")]
    pids = [supervisor.pid, keeper.pid, *(of(settings, name).pid for name in ("daemon", "code"))]
    for pid in pids:
        os.kill(pid or 0, signal.SIGKILL)
    wait_for(lambda: of(settings, "code").pid is None)
    said = problems(settings)
    assert "the supervisor does not run, so no service that dies is started again: `headwater up`" in said
    assert "daemon was killed and does not run: `headwater up`" in said
    assert "code was killed and does not run: `headwater up`" in said
    assert status().exit_code == 1
    lifecycle.start_services(settings, lambda line: None)
    wait_for(lambda: problems(settings) == "")


def test_a_service_that_dies_again_and_again_is_given_up(started: Started) -> None:
    settings = started.settings
    web = of(settings, "web").pid
    for _ in range(MOST_RESTARTS + 1):
        os.kill(web or 0, signal.SIGKILL)
        wait_for(partial(gone_or_again, settings, web), 30)
        web = of(settings, "web").pid
    assert web is None
    said = problems(settings)
    assert f"web ended {MOST_RESTARTS + 1} times within 300 s and is not started again: mend what" in said
    assert f"{settings.home / 'logs' / 'web.log'} says, then `headwater up`. It ends:" in said
    lifecycle.start_services(settings, lambda line: None)
    wait_for(lambda: problems(settings) == "")


def gone_or_again(settings: Settings, killed: int | None) -> bool:
    report = read_supervisor_report(settings)
    return of(settings, "web").pid not in (None, killed) or bool(report and "web" in report.given_up)


def test_after_down_status_says_what_went_live_and_that_services_are_stopped(started: Started) -> None:
    settings = started.settings
    said: list[str] = []
    stopped = lifecycle.stop_services(settings, said.append)
    assert stopped == ["supervisor", "daemon", "code", "web", "postgres"]
    # The JDBC endpoint never ran.
    assert said == [f"{name}: stopping" for name in stopped[1:]]
    done = status()
    assert done.exit_code == 0, done.output
    assert "the services are stopped: `headwater up` starts them" in done.output
    assert "nothing is wrong" in done.output
    assert not any(each.wanted or each.pid for each in service_statuses(settings))
