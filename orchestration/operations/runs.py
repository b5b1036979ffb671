"""Runs from the command line: the job that the web UI launches, executed in this process."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import dagster as dg
from dagster import DagsterEventType

from assets.bronze import SOURCES_READ
from orchestration.automation.dead_runs import end_dead_runs, run_process_tags
from orchestration.environment.java import require_java
from orchestration.migrations import state_folder_version
from orchestration.services.dagster_home import dagster_home_instance
from orchestration.services.run_texts import run_failures, said_of_check, step_name, stops_run
from orchestration.settings import Settings, settings_of_next_run
from orchestration.stepping_down import step_down_adapters


class RunFailed(RuntimeError):
    """A run failed; the message says which step or gate, and why."""


class UnknownAssetSelection(ValueError):
    """The asset selection can not be read, or selects no asset."""


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
        UnknownAssetSelection: The selection can not be read, or selects nothing.
        NewerStateFolder: The state folder was made by a newer Headwater.
        UnsupportedJava: There is no Java that Spark runs on.
    """
    require_java()
    from orchestration.automation.jobs import refresh_job

    before = settings_of_next_run(settings).recipe.embedder
    outcome = _execute(settings, refresh_job.name, progress, select=select)
    step_down_adapters(settings, progress)
    if select is not None or outcome.failures or settings_of_next_run(settings).recipe.embedder == before:
        return outcome
    progress(
        "the live model learned from documents that are removed now, and steps down: another run follows"
    )
    again = _execute(settings, refresh_job.name, progress)
    return replace(outcome, seconds=outcome.seconds | again.seconds, failures=again.failures)


def execute_answers_run(settings: Settings, batch: str, progress: Callable[[str], None]) -> RunOutcome:
    """Answers the questions of a batch that have no answer yet, in this process.

    Args:
        settings: The settings of the state folder.
        batch: The name of its question set.
        progress: Called with a line for each step that begins or ends, and about how far it is.

    Raises:
        NewerStateFolder: The state folder was made by a newer Headwater.
    """
    from assets.gold import QUESTION_SETS
    from orchestration.automation.jobs import answers_job

    with dagster_home_instance(settings) as instance:
        instance.add_dynamic_partitions(str(QUESTION_SETS.name), [batch])
    return _execute(settings, answers_job.name, progress, partition=batch)


def _execute(
    settings: Settings,
    job_name: str,
    progress: Callable[[str], None],
    select: str | None = None,
    partition: str | None = None,
) -> RunOutcome:
    """Executes a job in this process, and returns what became of it."""
    state_folder_version(settings.home)
    from orchestration.definitions import build_definitions

    watch = _Watch(progress)
    defs = build_definitions(settings, {"console": watch.definition()})
    job = defs.resolve_job_def(job_name)
    selection = None if select is None else _selected_assets(defs, select)
    with dagster_home_instance(settings) as instance:
        for run_id in end_dead_runs(instance):
            progress(f"run {run_id[:8]} died before it ended; this run continues from what it committed")
        result = job.execute_in_process(
            instance=instance,
            asset_selection=selection,
            partition_key=partition,
            run_config={"loggers": {"console": {}}},  # Dagster asks a logger only when it is configured
            tags=run_process_tags(),
            raise_on_error=False,
        )
    for line in _warnings(result):
        progress(line)
    failures = run_failures(result.all_events)
    if not result.success and not failures:
        failures.append(f"run {result.run_id} failed: see its log in the web UI (`headwater up`)")
    return RunOutcome(result.run_id, watch.seconds, failures, _unread_sources(result))


def _selected_assets(defs: dg.Definitions, select: str) -> list[dg.AssetKey]:
    """Returns the keys of the selected assets; Dagster would take a selection of none for all of them."""
    graph = defs.resolve_asset_graph()
    try:
        # Documents and quarantine are written by one step: selecting one selects both.
        chosen = dg.AssetSelection.from_string(select).required_multi_asset_neighbors().resolve(graph)
        # A set of questions is a partition, which a selection does not name: `headwater answers run` does.
        chosen = {key for key in chosen if not graph.get(key).is_partitioned}
    except dg.DagsterError:  # it can not be parsed, or names an asset that is not there
        chosen = set()
    if not chosen:
        known = ", ".join(sorted(key.to_user_string() for key in graph.materializable_asset_keys))
        raise UnknownAssetSelection(
            f"--select {select} selects no asset: write one such as 'key:\"gold/chunks\"+'; "
            f"the assets are {known}"
        )
    return list(chosen)


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
            message = meta.get("orig_message") or record.getMessage()
            if not message.startswith("Dependencies for step"):  # a line per step after one that failed
                self._progress(f"warning: {message}")
        if event is None or event.step_key is None:
            return
        name, shown = event.step_key, step_name(event.step_key)
        if event.event_type == DagsterEventType.STEP_START:
            self._began[name] = time.monotonic()
            self._progress(f"{shown} …")
        elif event.event_type in (DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE):
            self.seconds[name] = round(time.monotonic() - self._began[name], 2)
            ended = "done" if event.event_type == DagsterEventType.STEP_SUCCESS else "FAILED"
            self._progress(f"{shown} {ended} in {self.seconds[name]:.1f} s")

    def definition(self) -> dg.LoggerDefinition:
        """Returns a Dagster logger with this handler."""

        def build(_: dg.InitLoggerContext) -> logging.Logger:
            logger = logging.Logger("headwater", logging.DEBUG)
            logger.addHandler(self)
            return logger

        return dg.LoggerDefinition(build)


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


def _warnings(result: dg.ExecuteInProcessResult) -> list[str]:
    """Returns a line per failed check that lets pass, but for sources that could not be read."""
    return [
        f"warning: {said_of_check(check)}"
        for event in result.all_events
        if event.event_type == DagsterEventType.ASSET_CHECK_EVALUATION
        for check in [event.asset_check_evaluation_data]
        if not check.passed and not stops_run(check) and check.check_name != SOURCES_READ
    ]
