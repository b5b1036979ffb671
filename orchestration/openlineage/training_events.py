"""Tells an OpenLineage endpoint of snapshots and trainings that commands make, as of Dagster's steps."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from openlineage.client.event_v2 import RunState
from openlineage.client.uuid import generate_new_uuid

from assets.lake.tables import CHUNKS, TRAINING_EXAMPLES
from orchestration.openlineage.endpoint import lineage_endpoint
from orchestration.openlineage.events import (
    LineageDataset,
    LineageJob,
    LineageRecord,
    run_event,
    table_dataset,
    trained_dataset,
)
from training.datasets.training_set import DatasetHeader
from training.registry.lineage import LearnedDataset
from training.registry.versions import ModelVersion


def tell_snapshot(url: str | None, header: DatasetHeader, lake_root: str) -> None:
    """Tells of a snapshot of a training set: the table's version that it was made of, and its digest.

    Args:
        url: The endpoint; None to tell nobody.
        header: The snapshot.
        lake_root: The lake's folder or URI.
    """
    if url is None:
        return
    job = LineageJob(f"snapshot.{header.name}", str(generate_new_uuid()), "SNAPSHOT")
    read = [
        table_dataset(lake_root, name, header.versions[name])
        for name in (TRAINING_EXAMPLES.name, CHUNKS.name)
    ]
    made = trained_dataset("datasets", header.address, header.digest)
    for state, written in ((RunState.START, []), (RunState.COMPLETE, [made])):
        record = LineageRecord(job, state, datetime.now(UTC), read, written)
        lineage_endpoint(url).send(run_event(record))


@contextmanager
def told_training(
    url: str | None,
    model: str,
    dataset: str,
    dataset_digest: str,
    datasets: Sequence[LearnedDataset] = (),
) -> Iterator[Callable[[ModelVersion], None]]:
    """Tells of a training when it begins and when it ends, completed or failed.

    Args:
        url: The endpoint; None to tell nobody.
        model: The model that is trained.
        dataset: The training set's address, or the path of a folder.
        dataset_digest: The digest of what is learned.
        datasets: The training sets, where it is several.

    Yields:
        A function that takes the version that came out.
    """
    made = list[ModelVersion]()
    job = LineageJob(f"train.{model}", str(generate_new_uuid()), "TRAINING")
    learned = [(each.address, each.digest) for each in datasets] or [(dataset, dataset_digest)]
    inputs = [trained_dataset("datasets", *each) for each in learned]

    def tell(state: RunState, error: str | None = None) -> None:
        if url is None:
            return
        read, written = list(inputs), list[LineageDataset]()
        for version in made:
            read.append(trained_dataset("models", version.lineage.base, version.lineage.base_digest))
            written.append(trained_dataset("models", version.name, version.digest))
        record = LineageRecord(job, state, datetime.now(UTC), read, written, error)
        lineage_endpoint(url).send(run_event(record))

    tell(RunState.START)
    try:
        yield made.append
    except BaseException as error:
        tell(RunState.FAIL, type(error).__name__)
        raise
    tell(RunState.COMPLETE)
