"""Builds a generation of the index in one transaction: loads, indexes and attaches its tables."""

import contextlib
from collections.abc import Iterable, Iterator

import psycopg
import pyarrow as pa
from psycopg import Connection
from psycopg.sql import SQL
from psycopg.types.json import Jsonb

from common.lineage import Lineage
from retrieval.index.binary_copy import InvalidIndexBatch
from retrieval.index.hnsw_graph import HnswGraphConfig, create_hnsw_graphs
from retrieval.index.partitions import (
    attach_partitions,
    copy_index_chunks,
    create_chunk_indexes,
    create_partitions,
    create_posting_indexes,
    insert_index_scopes,
    partition_name,
    read_scope_keys,
    sort_index_chunks,
)
from retrieval.index.postings import fill_postings
from retrieval.index.quarantine import quarantine_chunks
from retrieval.index.rows import IndexRowNumbering, numbered_index_rows
from retrieval.index.types import IndexConflict
from retrieval.store.postgres import DatabaseRow, fetch_postgres_value

INDEX_VERSION = 4
"""Raised when what a generation stores changes: older generations are built anew, then retired."""

_BUILD_LOCK = 0x48656165


@contextlib.contextmanager
def exclusive_index_build(connection: Connection[DatabaseRow]) -> Iterator[None]:
    """Holds the lock that keeps other builds of the index out until the `with` block ends.

    Raises:
        IndexConflict: Another build is running.
    """
    if not fetch_postgres_value(connection, "SELECT pg_try_advisory_lock(%s)", _BUILD_LOCK):
        raise IndexConflict("another build of the index is running; wait for it to end")
    try:
        yield
    finally:
        # The server releases it too when the connection ends, but a moment later.
        with contextlib.suppress(psycopg.Error):
            connection.execute("SELECT pg_advisory_unlock(%s)", (_BUILD_LOCK,))


def begin_generation(
    connection: Connection[DatabaseRow],
    model_digest: str,
    chunker_digest: str,
    dimension: int,
    lineage: Lineage,
    after: int,
) -> int:
    """Begins a generation: returns its number, above `after`, and removes what interrupted builds left."""
    connection.execute("DELETE FROM headwater.index_state WHERE status = 'building'")
    connection.execute(
        "SELECT setval(pg_get_serial_sequence('headwater.index_state', 'generation'), %(after)s) "
        "WHERE %(after)s > (SELECT coalesce(max(generation), 0) FROM headwater.index_state)",
        {"after": after},
    )
    number: int = fetch_postgres_value(
        connection,
        "INSERT INTO headwater.index_state "
        "(model_digest, chunker_digest, index_version, dimension, lineage, status) "
        "VALUES (%s, %s, %s, %s, %s, 'building') RETURNING generation",
        model_digest, chunker_digest, INDEX_VERSION, dimension,
        Jsonb(lineage.model_dump(mode="json")),
    )  # fmt: skip
    return number


def load_generation(
    connection: Connection[DatabaseRow],
    number: int,
    dimension: int,
    batches: Iterable[pa.RecordBatch],
    graph: HnswGraphConfig,
) -> None:
    """Fills and indexes a generation's tables and attaches them, ready to be released.

    Args:
        connection: The owner's connection, in a transaction.
        number: The number of the generation, from `begin_generation`.
        dimension: The length of a vector.
        batches: The chunks; they are read once.
        graph: Which scopes get a graph, and how it is built.

    Raises:
        InvalidIndexBatch: As in `numbered_index_rows`, or two rows have one chunk_id.
    """
    create_partitions(connection, number)
    chunks = partition_name("chunks", number)
    numbering = IndexRowNumbering(number, 1, 0, dimension, read_scope_keys(connection))
    copy_index_chunks(connection, chunks, numbered_index_rows(batches, numbering), freeze=True)
    quarantine_chunks(connection, numbering)
    count = numbering.next_chunk_no
    sort_index_chunks(connection, number)
    try:
        create_chunk_indexes(connection, number)
    except psycopg.errors.UniqueViolation as error:
        raise InvalidIndexBatch(f"two rows have one chunk_id: {error.diag.message_detail}") from error
    insert_index_scopes(connection, numbering.scope_keys)
    fill_postings(connection, number, count)
    create_posting_indexes(connection, number)
    create_hnsw_graphs(connection, number, dimension, graph)
    attach_partitions(connection, number)
    connection.execute(
        SQL(
            "UPDATE headwater.index_state SET status = 'ready', next_chunk_no = %s, changed_at = now() "
            "WHERE generation = %s"
        ),
        (count, number),
    )
