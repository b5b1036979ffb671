"""Whether a run's process lives: a run whose process was killed would be in progress for ever."""

import dagster as dg
import psutil
from dagster import DagsterRunStatus

PROCESS_TAG = "headwater/process"
_UNFINISHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def this_process() -> str:
    """The pid and start time of this process: a recycled pid has another start time."""
    process = psutil.Process()
    return f"{process.pid}@{process.create_time():.2f}"


def alive(process: str) -> bool:
    """Whether the process that `this_process` named still runs."""
    pid, _, started = process.partition("@")
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == started
    except psutil.NoSuchProcess:
        return False


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
