"""The steps of a change within a generation: stage it, make it the next epoch, remove what no epoch shows."""

from collections.abc import Iterable

import psycopg
import pyarrow as pa
from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

from retrieval.index.binary_copy import InvalidIndexBatch
from retrieval.index.build import (
    STORED_COLUMNS,
    RowNumbering,
    copy_chunks,
    insert_scopes,
    numbered_rows,
    partition_name,
)
from retrieval.index.postings import (
    insert_bm25_statistics,
    insert_changed_frequencies,
    insert_postings,
    read_chunk_lexemes,
    remove_postings,
)
from retrieval.store.postgres import DatabaseRow, fetch_value

# What makes a chunk another row; its chunk_id makes it another chunk.
_ATTRIBUTES = [*(name for name in STORED_COLUMNS if name != "chunk_id"), "embedding"]
# What its words are read from.
_SAID = SQL("chunk_no, scope, language, title, heading, text")


def stage_index_changes(
    connection: Connection[DatabaseRow],
    upserts: Iterable[pa.RecordBatch],
    removed: Iterable[str],
    numbering: RowNumbering,
) -> int:
    """Puts a change into temporary tables `incoming` and `removed`; returns the next free chunk number."""
    last_no = numbering.first_chunk_no

    def count(stage: str, rows: int) -> None:
        nonlocal last_no
        last_no = numbering.first_chunk_no + rows

    connection.execute(
        "CREATE TEMPORARY TABLE incoming (LIKE headwater.chunks INCLUDING STORAGE) ON COMMIT DROP; "
        'CREATE TEMPORARY TABLE removed (chunk_id text COLLATE "C" PRIMARY KEY) ON COMMIT DROP'
    )
    copy_chunks(connection, Identifier("incoming"), numbered_rows(upserts, numbering, count), freeze=False)
    with connection.cursor() as cursor, cursor.copy("COPY removed FROM STDIN") as stream:
        for chunk_id in set(removed):
            stream.write_row((chunk_id,))
    try:
        connection.execute("CREATE UNIQUE INDEX ON incoming (chunk_id)")
    except psycopg.errors.UniqueViolation as error:
        raise InvalidIndexBatch(f"two rows have one chunk_id: {error.diag.message_detail}") from error
    both = fetch_value(connection, "SELECT chunk_id FROM incoming JOIN removed USING (chunk_id) LIMIT 1")
    if both:
        raise InvalidIndexBatch(f"chunk {both} is both removed and put in")
    connection.execute("ANALYZE incoming; ANALYZE removed")
    return last_no


def merge_staged_changes(connection: Connection[DatabaseRow], number: int, epoch: int) -> bool:
    """Makes what was staged the rows of `epoch`; returns whether it changes anything."""
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
                RETURNING {said}
            )
            INSERT INTO closed SELECT {said} FROM now_closed
        """).format(epoch=Literal(epoch), number=Literal(number), said=_SAID)
    )
    connection.execute("INSERT INTO headwater.chunks SELECT * FROM incoming")
    insert_scopes(connection, Identifier("incoming"))
    added = read_chunk_lexemes(connection, "terms_added", Identifier("incoming"))
    closed = read_chunk_lexemes(connection, "terms_closed", Identifier("closed"))
    insert_postings(connection, number, added)
    insert_bm25_statistics(connection, number, epoch, added, closed)
    insert_changed_frequencies(connection, number, epoch, added, closed)
    return bool(
        fetch_value(connection, "SELECT EXISTS (SELECT FROM incoming) OR EXISTS (SELECT FROM closed)")
    )


def prune_epochs(connection: Connection[DatabaseRow], number: int, epochs: list[int]) -> int:
    """Removes a generation's rows that none of `epochs` shows; returns how many chunks."""
    connection.execute(
        SQL("""
            CREATE TEMPORARY TABLE dead ON COMMIT DROP AS
            SELECT {said} FROM {chunks}
            WHERE valid_to IS NOT NULL AND NOT EXISTS (
                SELECT FROM unnest({epochs}::bigint[]) AS epoch WHERE valid_from <= epoch AND epoch < valid_to
            )
        """).format(said=_SAID, chunks=partition_name("chunks", number), epochs=Literal(epochs))
    )
    remove_postings(connection, number, read_chunk_lexemes(connection, "terms_dead", Identifier("dead")))
    removed = connection.execute(
        SQL("DELETE FROM {chunks} WHERE chunk_no IN (SELECT chunk_no FROM dead)").format(
            chunks=partition_name("chunks", number)
        )
    ).rowcount
    connection.execute("DROP TABLE dead, terms_dead")  # one generation after another, in one transaction
    # A lexeme that no kept moment knows goes as well: it can be somebody's name.
    frequencies = partition_name("frequencies", number)
    for statement in (
        """
        DELETE FROM {frequencies} s
        USING (
            SELECT ctid, epoch, lead(epoch) OVER (PARTITION BY scope, lexeme ORDER BY epoch) AS next_epoch
            FROM {frequencies}
        ) numbered
        WHERE s.ctid = numbered.ctid AND next_epoch IS NOT NULL AND NOT EXISTS (
            SELECT FROM unnest({epochs}::bigint[]) AS kept
            WHERE numbered.epoch <= kept AND kept < next_epoch
        )
        """,
        """
        DELETE FROM {frequencies} s
        WHERE chunk_count = 0 AND NOT EXISTS (
            SELECT FROM {frequencies} older
            WHERE older.scope = s.scope AND older.lexeme = s.lexeme AND older.epoch < s.epoch
        )
        """,
    ):
        connection.execute(SQL(statement).format(frequencies=frequencies, epochs=Literal(epochs)))
    connection.execute(
        SQL("""
            DELETE FROM headwater.statistics s
            WHERE generation = {number} AND NOT EXISTS (
                SELECT FROM unnest({epochs}::bigint[]) AS kept
                WHERE s.epoch = (
                    SELECT max(epoch) FROM headwater.statistics newest
                    WHERE newest.generation = s.generation AND newest.scope = s.scope
                        AND newest.language = s.language AND newest.epoch <= kept
                )
            )
        """).format(number=Literal(number), epochs=Literal(epochs))
    )
    return removed
