"""Tells an OpenLineage endpoint what Dagster's runs do: a log handler that follows their events.

Dagster makes it in every process that executes a run, as `dagster.yaml` says, so that runs of the command
line and of services are told alike.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from dagster import AssetMaterialization, DagsterEvent, DagsterEventType
from openlineage.client.event_v2 import RunState

from assets.dagster.models import MODEL_GROUP
from assets.lake.commits import find_commits
from assets.lake.lake import Lake
from assets.lake.spark import SparkConfig
from assets.lake.tables import TABLES
from orchestration.openlineage.endpoint import lineage_endpoint
from orchestration.openlineage.events import (
    LineageDataset,
    LineageJob,
    LineageRecord,
    asset_dataset,
    run_event,
    step_run_id,
    table_dataset,
    trained_dataset,
)

logger = logging.getLogger(__name__)

_RUN_STATES = {
    DagsterEventType.RUN_START: RunState.START,
    DagsterEventType.RUN_SUCCESS: RunState.COMPLETE,
    DagsterEventType.RUN_FAILURE: RunState.FAIL,
    DagsterEventType.RUN_CANCELED: RunState.ABORT,
}
_STEP_STATES = {
    DagsterEventType.STEP_START: RunState.START,
    DagsterEventType.STEP_SUCCESS: RunState.COMPLETE,
    DagsterEventType.STEP_FAILURE: RunState.FAIL,
}
_INPUT_VERSION = "dagster/input_data_version/"
"""The tags by which a materialization says which versions of its inputs it was made from."""


def lineage_handler_settings(url: str, lake: str, home: Path) -> dict[str, object]:
    """Returns the entry of `dagster.yaml` that makes the handler of a state folder's runs."""
    kind = f"{LineageEventHandler.__module__}.{LineageEventHandler.__qualname__}"
    return {"class": kind, "level": "DEBUG", "url": url, "lake": lake, "home": str(home)}


class LineageEventHandler(logging.Handler):
    """Sends an event for each run and step that begins or ends, with what it read and wrote.

    Args:
        url: The endpoint.
        lake: The folder of the tables.
        home: The state folder.
        level: The lowest level of records that are handled.
    """

    def __init__(self, url: str, lake: str, home: str, level: int = logging.DEBUG) -> None:
        super().__init__(level)
        self._endpoint = lineage_endpoint(url)
        self._lake = Lake(lake, SparkConfig(), Path(home) / "spark", Path(home) / "data_docs")
        self._made: dict[tuple[str, str], list[AssetMaterialization]] = defaultdict(list)

    def emit(self, record: logging.LogRecord) -> None:
        """Handles a log record; only those of Dagster's events say anything about lineage."""
        meta = getattr(record, "dagster_meta", None) or {}
        event, run_id = meta.get("dagster_event"), meta.get("run_id")
        if event is None or run_id is None:
            return
        try:
            self._handle(event, run_id, datetime.fromtimestamp(record.created, UTC))
        except Exception as error:  # lineage that can not be told does not stop what it is about
            logger.warning("an OpenLineage event of run %s was not made: %s", run_id, type(error).__name__)

    def _handle(self, event: DagsterEvent, run_id: str, at: datetime) -> None:
        step = (run_id, event.step_key or "")
        if event.event_type == DagsterEventType.ASSET_MATERIALIZATION:
            self._made[step].append(event.step_materialization_data.materialization)
        elif event.event_type in _RUN_STATES:
            job = LineageJob(event.job_name, run_id, "JOB")
            data = event.job_failure_data if event.event_type == DagsterEventType.RUN_FAILURE else None
            error = data.error if data else None
            record = LineageRecord(
                job, _RUN_STATES[event.event_type], at, error=_error_class(error) if error else None
            )
            self._endpoint.send(run_event(record))
        elif event.event_type in _STEP_STATES and event.step_key:
            self._endpoint.send(run_event(self._step_record(event, run_id, at)))

    def _step_record(self, event: DagsterEvent, run_id: str, at: datetime) -> LineageRecord:
        key = str(event.step_key)
        name = f"{event.job_name}.{key}"
        job = LineageJob(name, step_run_id(run_id, key), "ASSET", parent=(run_id, event.job_name))
        state = _STEP_STATES[DagsterEventType(event.event_type_value)]
        made = [] if state is RunState.START else self._made.pop((run_id, key), [])
        inputs = {(each.namespace, each.name): each for one in made for each in self._inputs(one, run_id)}
        error = event.step_failure_data.error if state is RunState.FAIL else None
        return LineageRecord(
            job,
            state,
            at,
            inputs.values(),
            [self._output(one) for one in made],
            _error_class(error) if error else None,
        )

    def _inputs(self, made: AssetMaterialization, run_id: str) -> Iterator[LineageDataset]:
        """Yields what was read for a materialization: by its commit, else by what Dagster says."""
        table = ".".join(made.asset_key.path)
        if table in TABLES:
            commits = find_commits(self._lake, table, run_id)
            newest = commits[0] if commits else self._lake.last_commit(table)
            for name, version in newest.lineage.inputs.items() if newest else ():
                yield table_dataset(self._lake.root, name, version)
            return
        for tag, data_version in (made.tags or {}).items():
            if tag.startswith(_INPUT_VERSION):
                yield self._of_asset(tag.removeprefix(_INPUT_VERSION), data_version)
        for kind, named in (("datasets", "dataset"), ("models", "base")):
            told, digest = made.metadata.get(named), made.metadata.get(f"{named}_digest")
            if told is not None and digest is not None:
                yield trained_dataset(kind, str(told.value), str(digest.value))

    def _output(self, made: AssetMaterialization) -> LineageDataset:
        table = ".".join(made.asset_key.path)
        tags = made.tags or {}
        address, digest = made.metadata.get("version"), made.metadata.get("digest")
        if made.asset_key.path[0] == MODEL_GROUP and address is not None and digest is not None:
            return trained_dataset("models", str(address.value), str(digest.value))
        if table not in TABLES:
            return asset_dataset(made.asset_key.to_user_string(), tags.get("dagster/data_version"))
        rows = made.metadata.get("dagster/row_count")
        found = table_dataset(self._lake.root, table, self._lake.version(table))
        count = int(rows.value) if rows is not None and isinstance(rows.value, int) else None
        return LineageDataset(found.namespace, found.name, found.version, found.table, count)

    def _of_asset(self, asset: str, version: str) -> LineageDataset:
        table = asset.replace("/", ".")
        if table in TABLES:
            return table_dataset(self._lake.root, table, self._lake.version(table))
        return asset_dataset(asset, version)


def _error_class(error: object) -> str:
    cause = getattr(error, "cause", None) or error
    return str(getattr(cause, "cls_name", None) or "Error")
