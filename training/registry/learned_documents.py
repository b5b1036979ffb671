"""The ids of the documents that a version learned from, in a file that is signed with the version's others.

They stay with the model when its training set is removed, so that a document that is removed later is still
found in every model that learned from it. An id is a hash; the file holds nothing of the documents.
"""

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_FILE = "learned_documents.parquet"
_SCHEMA = pa.schema([pa.field("doc_id", pa.string(), nullable=False)])


def write_learned_documents(model: Path, doc_ids: Collection[str]) -> None:
    """Writes the ids of the documents that a model learned from into its folder; without any, nothing."""
    if doc_ids:
        rows = pa.table({"doc_id": sorted(set(doc_ids))}, _SCHEMA)
        pq.write_table(rows, model / _FILE, compression="zstd")


def read_learned_documents(model: Path) -> set[str]:
    """Returns the ids of the documents that a model learned from; none for one that learned from a folder."""
    file = model / _FILE
    return set(pq.read_table(file, schema=_SCHEMA)["doc_id"].to_pylist()) if file.is_file() else set()
