"""Runs from the command line: the job that the web UI launches, executed in this process."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import dagster as dg
from dagster import DagsterEventType
from dagster_shared.error import SerializableErrorInfo

from assets.bronze import SOURCES_READ
from orchestration.automation.dead_runs import end_dead_runs, run_process_tags
from orchestration.environment.java import require_java
from orchestration.migrations import state_folder_version
from orchestration.services.dagster_home import dagster_home_instance
from orchestration.settings import Settings


class RunFailed(RuntimeError):
    """A run failed; the message says which step or gate, and why."""


@dataclass
class RunOutcome:
    """The outcome of a run.

    Attributes:
        run_id: Its id, as the web UI shows it.
        seconds: Wall time of each asset and gate.
        failures: Why it failed, a line per step or gate; empty if it succeeded.
        unread_sources: The sources that could not be read, by name, with the reason; the run went on without
            them, and their documents are as they were.
    """

    run_id: str
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    unread_sources: dict[str, str] = field(default_factory=dict)


def execute_run(settings: Settings, select: str | None, progress: Callable[[str], None]) -> RunOutcome:
    """Brings the lake, the index and the release up to date, in this process.

    Args:
        settings: The settings of the state folder.
        select: An asset selection such as `key:"silver/documents"+`; None for everything.
        progress: Called with a line for each step that begins or ends.

    Raises:
        NewerStateFolder: The state folder was made by a newer Headwater.
        UnsupportedJava: There is no Java that Spark runs on.
    """
    state_folder_version(settings.home)
    require_java()
    from orchestration.automation.jobs import refresh_job
    from orchestration.definitions import build_definitions

    watch = _Watch(progress)
    defs = build_definitions(settings, {"console": watch.definition()})
    job = defs.resolve_job_def(refresh_job.name)
    with dagster_home_instance(settings) as instance:
        for run_id in end_dead_runs(instance):
            progress(f"run {run_id[:8]} died before it ended; this run continues from what it committed")
        selection = None
        if select is not None:
            # Documents and quarantine are written by one step: selecting one selects both.
            chosen = dg.AssetSelection.from_string(select).required_multi_asset_neighbors()
            selection = list(chosen.resolve(defs.resolve_asset_graph()))
        result = job.execute_in_process(
            instance=instance,
            asset_selection=selection,
            run_config={"loggers": {"console": {}}},  # Dagster asks a logger only when it is configured
            tags=run_process_tags(),
            raise_on_error=False,
        )
    unread = _unread_sources(result)
    for fault in unread.values():
        progress(f"warning: {fault}; its documents are as they were")
    return RunOutcome(result.run_id, watch.seconds, _failures(result), unread)


class _Watch(logging.Handler):
    """A log handler that follows the events of a run: it reports steps and keeps their times.

    Attributes:
        seconds: Wall time of each step that ended.
    """

    def __init__(self, progress: Callable[[str], None]) -> None:
        super().__init__(logging.DEBUG)
        self.seconds: dict[str, float] = {}
        self._progress = progress
        self._began: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Handles a log record; only records of steps that begin or end are reported."""
        meta = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        if event is None and record.levelno >= logging.WARNING:
            self._progress(f"warning: {meta.get('orig_message') or record.getMessage()}")
        if event is None or event.step_key is None:
            return
        name = event.step_key
        if event.event_type == DagsterEventType.STEP_START:
            self._began[name] = time.monotonic()
            self._progress(f"{name} …")
        elif event.event_type in (DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE):
            self.seconds[name] = round(time.monotonic() - self._began[name], 2)
            ended = "done" if event.event_type == DagsterEventType.STEP_SUCCESS else "FAILED"
            self._progress(f"{name} {ended} in {self.seconds[name]:.1f} s")

    def definition(self) -> dg.LoggerDefinition:
        """Returns a Dagster logger with this handler."""

        def build(_: dg.InitLoggerContext) -> logging.Logger:
            logger = logging.Logger("headwater", logging.DEBUG)
            logger.addHandler(self)
            return logger

        return dg.LoggerDefinition(build)


def _said(error: SerializableErrorInfo) -> str:
    """Returns the message of an error; a lost connection to the JVM is explained."""
    by_py4j = any("py4j" in line for line in error.stack)
    if by_py4j and error.cls_name in ("ConnectionRefusedError", "ConnectionResetError", "Py4JNetworkError"):
        return (
            "Spark's JVM has ended: it was killed, or the machine had no memory left for it "
            "(HEADWATER_SPARK__DRIVER_MEMORY is its limit); run again: it continues from what was committed"
        )
    return error.message.strip()


def _unread_sources(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Returns why sources could not be read, by the name of the source."""
    return {
        name: str(reason.value)
        for event in result.all_events
        if event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION
        for check in [event.asset_check_evaluation_data]
        if check.check_name == SOURCES_READ
        for name, reason in check.metadata.items()
    }


def _failures(result: dg.ExecuteInProcessResult) -> list[str]:
    """Returns why a run failed: a line per failed step and per failed check that is more than a warning."""
    found = []
    for event in result.all_events:
        if event.event_type == DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            found.append(f"{event.step_key}: {_said(error.cause or error) if error else 'failed'}")
        elif event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed and (check.blocking or check.severity == dg.AssetCheckSeverity.ERROR):
                seen = check.metadata.get("observed")
                detail = check.description or (f"observed {seen.value}" if seen else "no detail")
                found.append(f"gate {check.asset_key.to_user_string()}: {check.check_name} failed ({detail})")
        elif event.event_type == DagsterEventType.RUN_FAILURE and not found and event.job_failure_data.error:
            error = event.job_failure_data.error
            found.append(_said(error.cause or error))
    if not result.success and not found:
        found.append(f"run {result.run_id} failed: see its log in the web UI (`headwater up`)")
    return found
