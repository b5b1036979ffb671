"""Snapshots of the examples of a tenant, and which of them hold documents that were removed since."""

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import CHUNKS, DOCUMENTS, TRAINING_EXAMPLES
from assets.training_sets.checks import training_set_faults
from training.datasets.config import TrainingSetConfig
from training.datasets.requests import DatasetRequest
from training.datasets.training_set import (
    EXAMPLE_SCHEMA,
    SPLITS,
    DatasetHeader,
    dataset_headers,
    mark_removed_documents,
    snapshot_folder,
    write_dataset,
)

UNKNOWN_LICENCE = "unknown"

_EXAMPLES = """
    with chosen as (
        select * from examples where tenant = $tenant and left_out is null
    ), texts as (
        select named.example_id, list(c.text order by named.place) as texts
        from (
            select example_id, unnest(chunk_ids) as chunk_id, generate_subscripts(chunk_ids, 1) as place
            from chosen
        ) named join chunks c on c.chunk_id = named.chunk_id group by named.example_id
    )
    select e.split, e.language, e.example_id, e.kind, e.query_kind, e.question,
        coalesce(e.positive, t.texts[1]) as positive,
        case when e.kind = 'retrieval_pair' and e.doc_id is not null then t.texts[2:] else e.negatives end
            as negatives,
        case when e.kind = 'ranked_list' then t.texts else []::varchar[] end as candidates,
        e.scores, e.teacher, e.chunk_ids, e.doc_ids, e.licence
    from chosen e left join texts t on t.example_id = e.example_id
"""
_REMOVED = "select distinct doc_id from learned anti join documents using (doc_id) order by 1"


class TrainingSetRefused(ValueError):
    """The examples of a tenant do not pass the checks; the message says which and why."""


def snapshot_training_set(
    lake: Lake,
    folder: Path,
    request: DatasetRequest,
    evaluation_questions: pa.Table,
    config: TrainingSetConfig,
) -> DatasetHeader:
    """Writes a snapshot of the newest examples of a training set's tenant, and returns its header.

    The checks are made here again: what blocked a run blocks the snapshot, whoever asks for it.

    Raises:
        TrainingSetRefused: The examples do not pass the checks; nothing was written.
        LookupError: No example was ever made.
    """
    version = lake.version(TRAINING_EXAMPLES.name)
    commit = lake.last_commit(TRAINING_EXAMPLES.name)
    if commit is None:
        raise LookupError(f"{TRAINING_EXAMPLES.name} has not been made yet: run `headwater run`")
    faults = training_set_faults(lake, version, request.tenant, evaluation_questions, config)
    if faults:
        said = "; ".join(f"{fault.check}: {fault.reason}" for fault in faults)
        raise TrainingSetRefused(f"no snapshot of {request.name} (tenant {request.tenant}) is made: {said}")
    rows = lake.query(
        _EXAMPLES,
        {"tenant": request.tenant},
        examples=lake.delta(TRAINING_EXAMPLES.name, version),
        chunks=lake.delta(CHUNKS.name, commit.lineage.inputs[CHUNKS.name]),
    )
    described = DatasetHeader(
        name=request.name,
        digest="",
        tenant=request.tenant,
        recipe=config.model_dump(),
        versions=lake.pinned(TRAINING_EXAMPLES.name, version),
        code_version=CODE_VERSION,
        run_id=commit.lineage.run_id,
        made_at=datetime.now(UTC),
        files={},
        splits={split: pc.sum(pc.equal(rows["split"], split)).as_py() or 0 for split in SPLITS},
        kinds=_counted(rows["kind"]),
        query_kinds=_counted(rows.filter(pc.equal(rows["kind"], "retrieval_pair"))["query_kind"]),
        licences=_counted(pc.fill_null(rows["licence"], UNKNOWN_LICENCE)),
        languages=list(_counted(rows["language"].drop_null())),
        documents=len(pc.unique(pc.list_flatten(rows["doc_ids"]))),
    )
    columns = EXAMPLE_SCHEMA.names
    return write_dataset(
        folder,
        described,
        {split: rows.filter(pc.equal(rows["split"], split)).select(columns) for split in SPLITS},
    )


def mark_removed(lake: Lake, folder: Path, headers: Sequence[DatasetHeader] | None = None) -> None:
    """Says of each snapshot which of its documents were removed since; by default of all snapshots."""
    for header in dataset_headers(folder) if headers is None else headers:
        at = snapshot_folder(folder, header)
        files = [str(at / f"{split}.parquet") for split in header.files]
        examples = pa.concat_tables(pq.read_table(file, columns=["doc_ids"]) for file in files)
        named = pc.unique(pc.list_flatten(examples["doc_ids"]))
        mark_removed_documents(folder, header, documents_no_longer_held(lake, named.to_pylist()))


def documents_no_longer_held(lake: Lake, doc_ids: Collection[str]) -> list[str]:
    """Returns those of some documents that the lake has no text of any more, sorted.

    They were deleted at their source, their source or tenant was removed, or they are quarantined since.
    """
    if not doc_ids:
        return []
    learned = pa.table({"doc_id": pa.array(doc_ids, pa.string())})
    return lake.query(_REMOVED, learned=learned, documents=lake.delta(DOCUMENTS.name))["doc_id"].to_pylist()


def _counted(values: pa.ChunkedArray) -> dict[str, int]:
    """Returns how often each value occurs, the most frequent first."""
    counts = Counter({each["values"]: each["counts"] for each in values.value_counts().to_pylist()})
    return dict(counts.most_common())
