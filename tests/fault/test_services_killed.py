"""What a run of the services comes to when its process, the code server or the daemon is killed."""

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from fault.report import Report
from fault.states import States, differences
from orchestration.automation.dead_runs import RUN_PROCESS_TAG
from orchestration.services import lifecycle
from orchestration.services.dagster_home import dagster_home_instance
from orchestration.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[1]))
from free_ports import free_ports

FAULTS = bool(os.environ.get("HEADWATER_FAULT"))
LAUNCH = """
mutation($job: String!) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "headwater", repositoryName: "__repository__", jobName: $job},
    runConfigData: {}
  }) { ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""
WAIT_S = 600


@pytest.fixture
def settings(states: States) -> Iterator[Settings]:
    _ = states.changed_end
    home = states.copy(states.behind, "services")
    web_port, thrift_port = free_ports(2)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HEADWATER_WEB_PORT", str(web_port))
        environment.setenv("HEADWATER_THRIFT_PORT", str(thrift_port))
        settings = Settings(home=home)
        yield settings
        lifecycle.stop_services(settings, print)


def launch(settings: Settings) -> str:
    asked = json.dumps({"query": LAUNCH, "variables": {"job": "refresh"}}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{settings.web_port}/graphql", asked, {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    said: list[dict[str, Any]] = []

    def launched() -> bool:
        # A web UI whose code server was started anew takes a moment to see that.
        with opener.open(request, timeout=60) as response:
            said.append(json.load(response)["data"]["launchRun"])
        print(said[-1], flush=True)
        return "run" in said[-1]

    wait_for(launched)
    return str(said[-1]["run"]["runId"])


def wait_for(what: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline_s, "not in time"
        time.sleep(1)


def run_of(settings: Settings, run_id: str) -> dg.DagsterRun:
    with dagster_home_instance(settings) as instance:
        run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


def worker(settings: Settings) -> tuple[str, int]:
    """A run that is at work, and its process: the one that was launched, or a sensor's before it."""
    found: list[tuple[str, int]] = []

    def look() -> bool:
        with dagster_home_instance(settings) as instance:
            runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        for run in runs:
            pid = json.loads(run.tags.get(RUN_PROCESS_TAG, "{}")).get("pid")
            if pid and psutil.pid_exists(pid):
                found.append((run.run_id, pid))
        return bool(found)

    wait_for(look)
    return found[0]


def killed(settings: Settings, service: str) -> None:
    status = next(each for each in lifecycle.service_statuses(settings) if each.service == service)
    assert status.pid
    process = psutil.Process(status.pid)
    process.kill()
    process.wait(60)  # the signal is sent, and the process may still be there


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.skipif(not FAULTS, reason="`make fault`")
def test_run_worker_code_server_and_daemon_are_killed(
    settings: Settings, states: States, report: Report
) -> None:
    lifecycle.start_services(settings, print)
    launch(settings)
    run_id, pid = worker(settings)
    family = psutil.Process(pid).children(recursive=True)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: run_of(settings, run_id).is_finished)
    first = run_of(settings, run_id).status
    wait_for(lambda: not [each for each in family if each.is_running() and each.status() != "zombie"])

    launch(settings)
    run_id, _ = worker(settings)
    killed(settings, "code")
    lifecycle.start_services(settings, print)
    wait_for(lambda: run_of(settings, run_id).is_finished)
    second = run_of(settings, run_id).status

    killed(settings, "daemon")
    run_id = launch(settings)
    time.sleep(5)
    assert run_of(settings, run_id).status == dg.DagsterRunStatus.QUEUED
    lifecycle.start_services(settings, print)
    wait_for(lambda: run_of(settings, run_id).is_finished)
    third = run_of(settings, run_id).status

    with dagster_home_instance(settings) as instance:
        # What the sensors began meanwhile ends as well.
        wait_for(lambda: all(run.is_finished for run in instance.get_runs(limit=20)))
    lifecycle.stop_services(settings, print)
    wrong = differences(settings.home, states.changed_end)
    for fault, status in (
        ("run worker killed", first),
        ("code server killed under a run", second),
        ("daemon killed, a run launched meanwhile", third),
    ):
        report.add("run of the services", fault, "", wrong, f"that run ends as {status.value}")
    assert not wrong
    assert (first, third) == (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS)
