"""Training sets: asks for one, has its examples made, and keeps a snapshot of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from assets.answers.batches import AnswerBatches
from assets.lake.lake import Lake
from assets.lake.tables import TRAINING_EXAMPLES
from assets.sources.source_registry import SourceRegistry
from assets.training_sets.rated_answers import count_good_answers, rated_answers
from assets.training_sets.snapshots import mark_removed, snapshot_training_set
from assets.training_sets.step import evaluation_questions
from common.counts import counted
from orchestration.openlineage.training_events import tell_snapshot
from orchestration.operations.runs import RunFailed, execute_run
from orchestration.settings import Settings, open_configured_lake
from training.datasets.export import ExportFormat, export_dataset
from training.datasets.requests import DatasetRequests
from training.datasets.training_set import (
    DatasetHeader,
    dataset_headers,
    find_dataset,
    open_dataset,
    removed_documents,
)


@dataclass(frozen=True)
class DatasetState:
    """A snapshot, and which of its documents were removed since."""

    header: DatasetHeader
    removed: list[str]

    def to_dict(self) -> dict[str, object]:
        """Returns it as `--json` prints it."""
        return {
            "address": self.header.address,
            **self.header.model_dump(mode="json"),
            "removed_documents": self.removed,
        }


def make_dataset(
    settings: Settings,
    name: str,
    tenant: str | None,
    examples: Path | None,
    progress: Callable[[str], None],
) -> DatasetHeader:
    """Brings the examples of a training set up to the live release, and returns a snapshot of them.

    Args:
        settings: The settings of the state folder.
        name: The training set; it is asked for if it was not before, and no longer where that fails.
        tenant: Its tenant; None for that of before, or `default`.
        examples: A file of the user's own examples; None for those of before.
        progress: Called with a line for each step that begins or ends.

    Raises:
        RunFailed: The examples could not be made, or do not pass the checks.
        InvalidDatasetRequest: The name is not valid, or names the set of another tenant.
        InvalidExamples: A line of the file is no example; the message names it.
    """
    requests = DatasetRequests(settings.datasets_folder)
    new = name not in {each.name for each in requests.all()}
    request = requests.add(name, tenant, examples)
    key = TRAINING_EXAMPLES.name.replace(".", "/")
    run = execute_run(settings, f'key:"{key}"', progress)
    if run.failures:
        if new:  # else every later run would fail for a set that was never made
            requests.remove(name)
        raise RunFailed("\n".join(run.failures))
    lake = open_configured_lake(settings)
    rated = rated_answers(lake, requests.tenants)
    asked = evaluation_questions(
        SourceRegistry(settings.sources_file), AnswerBatches(settings.batches_dir), rated
    )
    if said := _what_became_of_good_answers(lake, request.tenant, rated):
        progress(said)
    header = snapshot_training_set(
        lake, settings.datasets_folder, request, asked, settings.recipe.training_sets
    )
    tell_snapshot(settings.openlineage_url, header, lake.root)
    return header


def _what_became_of_good_answers(lake: Lake, tenant: str, rated: pa.Table) -> str | None:
    """Returns how many answers that are rated good became examples, and why not the others; None without."""
    good, of_groups = count_good_answers(lake, tenant)
    usable = pc.sum(pc.equal(rated["tenant"], tenant)).as_py() or 0
    learned = lake.query(
        "select count(*) as n from e where tenant = ? and answer_id is not null and left_out is null",
        [tenant],
        e=lake.delta(TRAINING_EXAMPLES.name),
    )["n"][0].as_py()
    reasons = {
        "given to users with groups": of_groups,
        "with personal data or a number in brackets, or given again since": good - of_groups - usable,
        "whose passages changed, lie in several splits, are not for training or near held-out texts": (
            usable - learned
        ),
    }
    left_out = "".join(f"; {count} {reason}" for reason, count in reasons.items() if count)
    return f"{counted(good, 'answer')} rated good, {learned} of them examples{left_out}" if good else None


def list_datasets(settings: Settings) -> list[DatasetState]:
    """Returns all snapshots, newest first, each with the documents that were removed since."""
    folder = settings.datasets_folder
    headers = dataset_headers(folder)
    if headers:
        mark_removed(open_configured_lake(settings), folder, headers)
    return [DatasetState(header, removed_documents(folder, header)) for header in headers]


def show_dataset(settings: Settings, name: str) -> DatasetState:
    """Returns a snapshot, with the documents that were removed since.

    Raises:
        UnknownDataset: There is none of that name.
    """
    folder = settings.datasets_folder
    header = find_dataset(folder, name)
    mark_removed(open_configured_lake(settings), folder, [header])
    return DatasetState(header, removed_documents(folder, header))


def export_named_dataset(settings: Settings, name: str, target: Path, form: ExportFormat) -> list[Path]:
    """Writes a snapshot to a folder; see `export_dataset`.

    Raises:
        UnknownDataset: There is none of that name.
        DatasetHasRemovedDocuments: It holds documents that were removed since.
        ExportRefused: It can not be written there.
    """
    state = show_dataset(settings, name)
    opened = open_dataset(settings.datasets_folder, state.header.address)
    return export_dataset(opened, target, form)
