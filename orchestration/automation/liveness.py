"""Whether a run's process lives: a run whose process was killed would be in progress for ever."""

import dagster as dg
import psutil
from dagster import DagsterRunStatus

from orchestration.services.processes import born_s

PROCESS_TAG = "headwater/process"
_UNFINISHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def this_process() -> str:
    """The pid and start time of this process: a recycled pid has another start time."""
    return _mark(psutil.Process())


def alive(process: str) -> bool:
    """Whether the process that `this_process` named still runs."""
    pid, _, _ = process.partition("@")
    try:
        found = psutil.Process(int(pid))
        # One that was killed stays in the table until its parent has asked for it.
        return _mark(found) == process and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _mark(process: psutil.Process) -> str:
    return f"{process.pid}@{born_s(process):.2f}"


def reap(instance: dg.DagsterInstance) -> list[str]:
    """Fails the runs whose process died, and gives their place in the pools back.

    Returns:
        Their run ids.
    """
    dead = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        process = run.tags.get(PROCESS_TAG)
        if process is not None and not alive(process):
            instance.report_run_failed(run, f"its process ({process}) died")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            dead.append(run.run_id)
    return dead
