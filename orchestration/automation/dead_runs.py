"""Ends runs whose process died: otherwise they stay in progress for ever and keep their pool slots."""

import socket
from functools import cache
from pathlib import Path
from typing import Self

import dagster as dg
import psutil
from dagster import DagsterRunStatus
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestration.services.processes import started_since_boot_s

RUN_PROCESS_TAG = ".dagster/headwater_process"
"""The tag of a run that holds its `RunProcess`, as JSON; the web UI shows no tag that begins like this."""

_UNFINISHED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")


class RunProcess(BaseModel):
    """The process that executes a run, with enough details that no other process is mistaken for it.

    Attributes:
        host: The machine's name and, where it has one, its machine-id (systemd's machine-id(5)).
        boot_id: The id of the machine's boot; empty if the system has none.
        pid: The process id.
        started_s: The start time of the process in seconds since boot, which tells it from a later process
            with its pid.
    """

    model_config = ConfigDict(frozen=True)

    host: str
    boot_id: str
    pid: int
    started_s: float

    @classmethod
    def of_pid(cls, pid: int | None = None) -> Self:
        """Returns the identity of a running process of this machine; of this process by default.

        Raises:
            psutil.NoSuchProcess: No process has this pid.
        """
        process = psutil.Process(pid)
        return cls(
            host=_host(),
            boot_id=_boot_id(),
            pid=process.pid,
            started_s=round(started_since_boot_s(process), 2),
        )

    @property
    def is_dead(self) -> bool:
        """Returns whether the process has ended; False if it runs on another host, where that is unknown."""
        if self.host != _host():
            return False
        try:
            # One that was killed stays in the table until its parent has asked for it.
            zombie = psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
            return zombie or RunProcess.of_pid(self.pid) != self
        except psutil.NoSuchProcess:
            return True


@cache
def _host() -> str:
    machine_id = _MACHINE_ID.read_text().strip() if _MACHINE_ID.is_file() else ""
    return f"{socket.gethostname()} {machine_id}".strip()


@cache
def _boot_id() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.is_file() else ""


def run_process_tags() -> dict[str, str]:
    """Returns the tags of a run that this process executes."""
    return {RUN_PROCESS_TAG: RunProcess.of_pid().model_dump_json()}


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Marks runs whose process died on this host as failed, frees their pool slots, and returns their ids.

    Runs on other hosts are ended by the daemon there, or by the next run there.
    """
    dead = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        process = _tagged_process(run)
        if process is not None and process.is_dead:
            instance.report_run_failed(run, f"its process ({process.pid} of {process.host}) died")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            dead.append(run.run_id)
    return dead


def _tagged_process(run: dg.DagsterRun) -> RunProcess | None:
    """The process that a run's tag names; None where it names none that can be judged."""
    try:
        return RunProcess.model_validate_json(run.tags.get(RUN_PROCESS_TAG, ""))
    except ValidationError:
        return None
