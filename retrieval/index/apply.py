"""Applies a change to a generation: stages it in temporary tables, then merges it as the next epoch."""

from collections.abc import Iterable

import psycopg
import pyarrow as pa
from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

from retrieval.index.binary_copy import InvalidIndexBatch
from retrieval.index.partitions import copy_index_chunks, insert_index_scopes
from retrieval.index.postings import (
    POSTED_COLUMNS,
    insert_bm25_statistics,
    insert_changed_frequencies,
    insert_postings,
    read_chunk_lexemes,
)
from retrieval.index.quarantine import replace_quarantined
from retrieval.index.rows import FIT_COLUMN, STORED_COLUMNS, IndexRowNumbering, numbered_index_rows
from retrieval.index.types import IndexConflict, IndexState
from retrieval.store.postgres import DatabaseRow, fetch_postgres_value

# A chunk in which one of these differs is put in anew; with another chunk_id it is another chunk.
_ATTRIBUTES = [*(name for name in STORED_COLUMNS if name != "chunk_id"), "embedding", FIT_COLUMN.name]


def lock_index_state(connection: Connection[DatabaseRow], state: IndexState) -> int:
    """Returns the number of a generation's next chunk row, which no other writer changes meanwhile.

    Raises:
        IndexConflict: The generation is no longer at `state.epoch`.
    """
    row = connection.execute(
        "SELECT epoch, next_chunk_no, status FROM headwater.index_state WHERE generation = %s FOR UPDATE",
        (state.generation,),
    ).fetchone()
    if row is None or row[2] != "ready" or row[0] != state.epoch:
        now = f"is {row[2]} at epoch {row[0]}" if row else "is gone"
        raise IndexConflict(
            f"generation {state.generation} {now}, and the change was worked out from epoch {state.epoch}"
        )
    return int(row[1])


def stage_index_changes(
    connection: Connection[DatabaseRow],
    upserts: Iterable[pa.RecordBatch],
    removed: Iterable[str],
    numbering: IndexRowNumbering,
) -> None:
    """Writes a change into the temporary tables `incoming` and `removed`.

    A chunk that can't be indexed is quarantined; if an earlier version of it is indexed, that is removed.

    Args:
        connection: The owner's connection, in a transaction.
        upserts: Batches of new and changed chunks.
        removed: The ids of the chunks to remove.
        numbering: Gives the new rows their numbers, and is advanced past them.

    Raises:
        InvalidIndexBatch: As in `numbered_index_rows`; or two rows have one chunk_id, or one is also removed.
    """
    connection.execute(
        "CREATE TEMPORARY TABLE incoming (LIKE headwater.chunks INCLUDING STORAGE) ON COMMIT DROP; "
        'CREATE TEMPORARY TABLE removed (chunk_id text COLLATE "C" PRIMARY KEY) ON COMMIT DROP'
    )
    copy_index_chunks(
        connection, Identifier("incoming"), numbered_index_rows(upserts, numbering), freeze=False
    )
    with connection.cursor() as cursor, cursor.copy("COPY removed FROM STDIN") as stream:
        for chunk_id in set(removed):
            stream.write_row((chunk_id,))
    try:
        connection.execute("CREATE UNIQUE INDEX ON incoming (chunk_id)")
    except psycopg.errors.UniqueViolation as error:
        raise InvalidIndexBatch(f"two rows have one chunk_id: {error.diag.message_detail}") from error
    both = fetch_postgres_value(
        connection, "SELECT chunk_id FROM incoming JOIN removed USING (chunk_id) LIMIT 1"
    )
    if both:
        raise InvalidIndexBatch(f"chunk {both} is both removed and put in")
    connection.execute("ANALYZE incoming; ANALYZE removed")
    replace_quarantined(connection, numbering)


def merge_staged_changes(connection: Connection[DatabaseRow], numbering: IndexRowNumbering) -> bool:
    """Merges the staged rows into their generation as its next epoch; returns whether anything changed."""
    number, epoch = numbering.generation, numbering.epoch
    connection.execute(
        SQL("""
            DELETE FROM incoming USING headwater.chunks old
            WHERE old.generation = {number} AND old.valid_to IS NULL AND old.chunk_id = incoming.chunk_id
                AND ({ours}) IS NOT DISTINCT FROM ({theirs})
        """).format(
            number=Literal(number),
            ours=SQL(", ").join(Identifier("old", name) for name in _ATTRIBUTES),
            theirs=SQL(", ").join(Identifier("incoming", name) for name in _ATTRIBUTES),
        )
    )
    connection.execute(
        "CREATE TEMPORARY TABLE closed "
        "(chunk_no bigint, scope text, language text, title text, heading text, text text) ON COMMIT DROP"
    )
    connection.execute(
        SQL("""
            WITH now_closed AS (
                UPDATE headwater.chunks SET valid_to = {epoch}
                WHERE generation = {number} AND valid_to IS NULL
                    AND chunk_id IN (SELECT chunk_id FROM incoming UNION ALL SELECT chunk_id FROM removed)
                RETURNING {posted}
            )
            INSERT INTO closed SELECT {posted} FROM now_closed
        """).format(epoch=Literal(epoch), number=Literal(number), posted=POSTED_COLUMNS)
    )
    connection.execute("INSERT INTO headwater.chunks SELECT * FROM incoming")
    insert_index_scopes(connection, numbering.scope_keys)
    added = read_chunk_lexemes(connection, "terms_added", Identifier("incoming"))
    closed = read_chunk_lexemes(connection, "terms_closed", Identifier("closed"))
    insert_postings(connection, number, added)
    insert_bm25_statistics(connection, number, epoch, added, closed)
    insert_changed_frequencies(connection, number, epoch, added, closed)
    return bool(
        fetch_postgres_value(
            connection, "SELECT EXISTS (SELECT FROM incoming) OR EXISTS (SELECT FROM closed)"
        )
    )
