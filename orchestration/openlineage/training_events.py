"""Tells an OpenLineage endpoint of a training that a command runs, as of the steps of Dagster's runs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from openlineage.client.event_v2 import RunState
from openlineage.client.uuid import generate_new_uuid

from orchestration.openlineage.endpoint import lineage_endpoint
from orchestration.openlineage.events import (
    LineageDataset,
    LineageJob,
    LineageRecord,
    run_event,
    trained_dataset,
)
from training.registry.versions import ModelVersion


@contextmanager
def told_training(
    url: str | None, model: str, dataset: str, dataset_digest: str
) -> Iterator[Callable[[ModelVersion], None]]:
    """Tells of a training when it begins and when it ends, completed or failed.

    Args:
        url: The endpoint; None to tell nobody.
        model: The model that is trained.
        dataset: The training set's address, or the path of a folder.
        dataset_digest: The digest of what is learned.

    Yields:
        A function that takes the version that came out.
    """
    made = list[ModelVersion]()
    job = LineageJob(f"train.{model}", str(generate_new_uuid()), "TRAINING")
    inputs = [trained_dataset("datasets", dataset, dataset_digest)]

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
