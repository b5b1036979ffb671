"""Makes OpenLineage events: names by the specification, versions, and no text of documents.

Names follow https://openlineage.io/docs/spec/naming: a Delta table is its folder, as are training sets and
models; what PostgreSQL holds is named by its asset.
"""

import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    DatasetFacet,
    OutputDatasetFacet,
    RunFacet,
    dataset_version_dataset,
    error_message_run,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    schema_dataset,
)

from assets.lake.tables import TABLES

PRODUCER = f"urn:headwater:{version('headwater')}"


@dataclass(frozen=True)
class LineageDataset:
    """A dataset at a version.

    Attributes:
        namespace: Where it is: `file`, `s3://bucket`, or the namespace of the jobs.
        name: Its name there, such as the path of a table's folder.
        version: Its version; None if it has none.
        table: The declared table, `layer.table`, whose columns are told; None for another thing.
        rows: Its rows; None if they are not known.
    """

    namespace: str
    name: str
    version: str | None = None
    table: str | None = None
    rows: int | None = None


@dataclass(frozen=True)
class LineageJob:
    """A job's run.

    Attributes:
        name: The job's name.
        run_id: The run's id, a UUID.
        kind: What it is: JOB, ASSET, SNAPSHOT or TRAINING.
        parent: The run that it is a part of, with the name of its job; None for a run by itself.
    """

    name: str
    run_id: str
    kind: str
    parent: tuple[str, str] | None = None


@dataclass(frozen=True)
class LineageRecord:
    """What is told of a job's run.

    Attributes:
        job: The job's run.
        state: What became of it.
        at: When, with a time zone.
        inputs: What it read.
        outputs: What it wrote.
        error: The class of the error that ended it: its message can quote documents.
    """

    job: LineageJob
    state: RunState
    at: datetime
    inputs: Iterable[LineageDataset] = ()
    outputs: Iterable[LineageDataset] = field(default=())
    error: str | None = None


def lineage_namespace() -> str:
    """Returns the namespace of the jobs: the official client's OPENLINEAGE_NAMESPACE, or `headwater`."""
    return os.environ.get("OPENLINEAGE_NAMESPACE", "headwater")


def step_run_id(run_id: str, step: str) -> str:
    """Returns the id of a step's run: the same each time for a step of a run."""
    return str(uuid.uuid5(uuid.UUID(run_id), step))


def folder_dataset(folder: str, version: str | None, table: str | None = None) -> LineageDataset:
    """Returns a dataset that is a folder, by its path or its URI."""
    parts = urlsplit(folder)
    if parts.scheme in ("", "file"):
        return LineageDataset("file", parts.path or folder, version, table)
    return LineageDataset(f"{parts.scheme}://{parts.hostname or ''}", parts.path.lstrip("/"), version, table)


def table_dataset(lake_root: str, table: str, version: int) -> LineageDataset:
    """Returns a table of the lake at a version."""
    root = lake_root if "://" in lake_root else str(Path(lake_root).absolute())
    return folder_dataset(f"{root}/{table.replace('.', '/')}", str(version), table)


def asset_dataset(asset: str, version: str | None) -> LineageDataset:
    """Returns what an asset made that is no table, such as `serving/index`."""
    return LineageDataset(lineage_namespace(), asset, version)


def trained_dataset(kind: str, name: str, digest: str) -> LineageDataset:
    """Returns a training set or a model at a version: by its name, or by its path if it is a folder.

    Args:
        kind: `datasets` or `models`.
        name: NAME, NAME@VERSION or NAME@DIGEST, or an absolute path.
        digest: The digest, which is the version.
    """
    if name.startswith("/"):
        return folder_dataset(name, digest)
    return asset_dataset(f"{kind}/{name.partition('@')[0]}", digest)


def run_event(record: LineageRecord) -> RunEvent:
    """Returns the event of a job's run."""
    job, namespace = record.job, lineage_namespace()
    run_facets: dict[str, RunFacet] = {
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
            version=version("dagster"), name="Dagster", producer=PRODUCER
        )
    }
    if job.parent is not None:
        parent_id, parent_name = job.parent
        run_facets["parent"] = parent_run.ParentRunFacet(
            run=parent_run.Run(runId=parent_id),
            job=parent_run.Job(namespace=namespace, name=parent_name),
            producer=PRODUCER,
        )
    if record.error is not None:
        run_facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            message=record.error, programmingLanguage="PYTHON", producer=PRODUCER
        )
    kind = job_type_job.JobTypeJobFacet(
        processingType="BATCH", integration="HEADWATER", jobType=job.kind, producer=PRODUCER
    )
    return RunEvent(
        eventType=record.state,
        eventTime=record.at.isoformat(),
        run=Run(runId=job.run_id, facets=run_facets),
        job=Job(namespace=namespace, name=job.name, facets={"jobType": kind}),
        inputs=[InputDataset(each.namespace, each.name, facets=_facets(each)) for each in record.inputs],
        outputs=[
            OutputDataset(each.namespace, each.name, facets=_facets(each), outputFacets=_written(each))
            for each in record.outputs
        ],
        producer=PRODUCER,
    )


def _facets(dataset: LineageDataset) -> dict[str, DatasetFacet]:
    found: dict[str, DatasetFacet] = {}
    if dataset.version is not None:
        found["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(
            datasetVersion=dataset.version, producer=PRODUCER
        )
    if dataset.table is not None:
        columns = TABLES[dataset.table].schema
        found["schema"] = schema_dataset.SchemaDatasetFacet(
            fields=[
                schema_dataset.SchemaDatasetFacetFields(name=column.name, type=str(column.type))
                for column in columns
            ],
            producer=PRODUCER,
        )
    return found


def _written(dataset: LineageDataset) -> dict[str, OutputDatasetFacet]:
    if dataset.rows is None:
        return {}
    return {
        "outputStatistics": output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
            rowCount=dataset.rows, producer=PRODUCER
        )
    }
