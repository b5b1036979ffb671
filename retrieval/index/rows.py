"""Turns batches of chunks into rows of the index; checks them, and leaves out rows that can't be stored."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from secrets import randbits

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.access import SCOPE_SEPARATOR, encode_scopes
from retrieval.index.binary_copy import InvalidIndexBatch, copied_vectors

INDEX_COLUMNS = pa.schema(
    [
        pa.field("char_start", pa.int32(), nullable=False),
        pa.field("char_end", pa.int32(), nullable=False),
        pa.field("ordinal", pa.int32(), nullable=False),
        pa.field("token_count", pa.int32(), nullable=False),
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("tenant", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("heading", pa.string()),
        pa.field("content_sha256", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("text_sha256", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
    ]
)
"""The columns of a batch, in any order, beside `vector`: (fixed-size) lists of float32 of one length."""

GROUPS_COLUMN = pa.field("access_groups", pa.string())
"""An optional column: each row's `encode_access_groups`. Without it, everybody of the tenant may read it."""

FIT_COLUMN = pa.field("training_fit", pa.bool_())
"""An optional column: whether the row's document is fit for training. Without it, and where NULL, it is."""

STORED_COLUMNS = ["scope" if name == "tenant" else name for name in INDEX_COLUMNS.names]
"""The columns of `headwater.chunks` that come from a batch, without the vector."""

COPIED_COLUMNS = [
    *("generation", "chunk_no", "valid_from"),
    *(*STORED_COLUMNS, "embedding", "scope_key", FIT_COLUMN.name),
]
"""The columns of `headwater.chunks` that a load fills, in the order of `numbered_index_rows`."""

MAX_FIELD_BYTES = 100_000
"""The longest title, heading or text: PostgreSQL's `to_tsvector` refuses a value whose words, with their
positions, take more than 1 MiB, and no value of this length reaches that."""
MAX_SCOPE_BYTES = 1_600
"""The longest tenant with its groups: with a lexeme it is a key of a B-tree (at most 2,704 bytes)."""

_WORDS = ("title", "heading", "text")


@dataclass(frozen=True)
class QuarantinedChunk:
    """A chunk that can't be indexed, and why.

    Attributes:
        chunk_id: The chunk.
        doc_id: Its document.
        tenant: The document's tenant.
        uri: Where the document came from.
        expectation: The name of the expectation that the chunk does not meet.
        reason: What is wrong with the chunk, without its content.
    """

    chunk_id: str
    doc_id: str
    tenant: str
    uri: str
    expectation: str
    reason: str


@dataclass
class IndexRowNumbering:
    """The state of one load: what its rows have in common, the next row number, and the quarantined chunks.

    Attributes:
        generation: The number of the generation that is loaded.
        epoch: The first epoch that shows the rows.
        next_chunk_no: The number of the next row.
        dimension: The length of a vector.
        scope_keys: The key of each scope; scopes that are new receive one.
        quarantined: The chunks that were left out so far.
    """

    generation: int
    epoch: int
    next_chunk_no: int
    dimension: int
    scope_keys: dict[str, int]
    quarantined: list[QuarantinedChunk] = field(default_factory=list)


def numbered_index_rows(
    batches: Iterable[pa.RecordBatch], numbering: IndexRowNumbering
) -> Iterator[pa.RecordBatch]:
    """Checks batches of chunks and yields them with `COPIED_COLUMNS`, without the rows that can't be indexed.

    Args:
        batches: Batches with `INDEX_COLUMNS`, `vector`, and optionally `GROUPS_COLUMN` and `FIT_COLUMN`.
        numbering: Gives the rows their numbers; it is advanced, and receives the chunks that are left out.

    Raises:
        InvalidIndexBatch: A column is missing or has another type, a value is missing, a vector is not
            usable, or its length is not that of the generation.
    """
    for batch in batches:
        missing = {*INDEX_COLUMNS.names, "vector"} - set(batch.schema.names)
        if missing:
            raise InvalidIndexBatch(f"a batch of chunks has no column {', '.join(sorted(missing))}")
        columns = {column.name: _checked(batch, column) for column in INDEX_COLUMNS}
        dimension = copied_vectors(batch.column("vector")).shape[1]
        if batch.num_rows and dimension != numbering.dimension:
            raise InvalidIndexBatch(
                f"a batch holds vectors of {dimension} numbers and the index is for {numbering.dimension}: "
                "they come from different models"
            )
        rows = pa.RecordBatch.from_arrays(
            [
                *(columns[name] if name != "tenant" else _scopes(batch, columns[name]) for name in columns),
                batch.column("vector"),
                _fit(batch),
            ],
            names=[*STORED_COLUMNS, "embedding", FIT_COLUMN.name],
        )
        refused = _refused(rows)
        if refused:
            numbering.quarantined += [_quarantined(rows, row, *why) for row, why in refused.items()]
            rows = rows.filter(pa.array([row not in refused for row in range(rows.num_rows)]))
        count, first = rows.num_rows, numbering.next_chunk_no
        numbering.next_chunk_no += count
        yield pa.RecordBatch.from_arrays(
            [
                pa.array(np.full(count, numbering.generation, np.int32)),
                pa.array(np.arange(first, first + count, dtype=np.int64)),
                pa.array(np.full(count, numbering.epoch, np.int64)),
                *rows.columns[:-1],
                _scope_keys(rows.column("scope"), numbering.scope_keys),
                rows.column(FIT_COLUMN.name),
            ],
            names=COPIED_COLUMNS,
        )


def _checked(batch: pa.RecordBatch, declared: pa.Field) -> pa.Array:
    column = batch.column(declared.name)
    try:
        column = column.cast(declared.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InvalidIndexBatch(
            f"column {declared.name!r} is {batch.schema.field(declared.name).type}: {error}"
        ) from error
    if column.null_count and not declared.nullable:
        raise InvalidIndexBatch(
            f"column {declared.name!r} lacks a value in {column.null_count} rows of a batch"
        )
    return column


def _scopes(batch: pa.RecordBatch, tenants: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring(tenants, SCOPE_SEPARATOR)).as_py():
        raise InvalidIndexBatch("column 'tenant' holds the control character that ends a tenant's name")
    if GROUPS_COLUMN.name not in batch.schema.names:
        return tenants
    return encode_scopes(tenants, _checked(batch, GROUPS_COLUMN))


def _fit(batch: pa.RecordBatch) -> pa.BooleanArray:
    if FIT_COLUMN.name not in batch.schema.names:
        return pa.repeat(pa.scalar(True), batch.num_rows)
    return pc.fill_null(_checked(batch, FIT_COLUMN), True)


def _scope_keys(scopes: pa.StringArray, known: dict[str, int]) -> pa.Int64Array:
    """Returns the key of each scope, and gives new scopes a random one, which says nothing of their names."""
    encoded = scopes.dictionary_encode()
    keys = [known.setdefault(scope, randbits(63)) for scope in encoded.dictionary.to_pylist()]
    return pa.array(keys, pa.int64()).take(encoded.indices)


def _refused(rows: pa.RecordBatch) -> dict[int, tuple[str, str]]:
    """Returns the rows that PostgreSQL would refuse, each with an expectation's name and a reason."""
    refused: dict[int, tuple[str, str]] = {}
    limits = dict.fromkeys(_WORDS, MAX_FIELD_BYTES) | {"scope": MAX_SCOPE_BYTES}
    for name in STORED_COLUMNS:
        column = rows.column(name)
        if not pa.types.is_string(column.type):
            continue
        for row in pc.indices_nonzero(pc.match_substring(pc.fill_null(column, ""), "\0")).to_pylist():
            refused.setdefault(row, (f"{name}_without_nul", f"its {name} holds a NUL character"))
        if name in limits:
            sizes = pc.fill_null(pc.binary_length(column), 0)
            for row in pc.indices_nonzero(pc.greater(sizes, limits[name])).to_pylist():
                reason = (
                    f"its {name} has {sizes[row].as_py():,} bytes; at most {limits[name]:,} can be indexed"
                )
                refused.setdefault(row, (f"{name}_bytes", reason))
    return refused


def _quarantined(rows: pa.RecordBatch, row: int, expectation: str, reason: str) -> QuarantinedChunk:
    # PostgreSQL can't store a NUL, and this is written down there.
    chunk_id, doc_id, scope, uri = (
        rows.column(name)[row].as_py().replace("\0", "\N{REPLACEMENT CHARACTER}")
        for name in ("chunk_id", "doc_id", "scope", "uri")
    )
    return QuarantinedChunk(chunk_id, doc_id, scope.partition(SCOPE_SEPARATOR)[0], uri, expectation, reason)
