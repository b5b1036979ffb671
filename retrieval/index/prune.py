"""Deletes the releases, generations and rows that no kept epoch of the index shows."""

from collections.abc import Collection

from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

from retrieval.index.partitions import drop_partitions, partition_name
from retrieval.index.postings import POSTED_COLUMNS, read_chunk_lexemes, remove_postings
from retrieval.index.release_log import lock_log
from retrieval.store.postgres import DatabaseRow


def prune_index(connection: Connection[DatabaseRow], kept: Collection[tuple[int, int]]) -> dict[int, int]:
    """Deletes the releases, generations and rows that no kept epoch shows.

    The live release is always kept. A generation without a kept epoch is dropped, unless it is being built.
    In the other generations the newest epoch is kept too, because the next change starts from it.

    Args:
        connection: The owner's connection, in a transaction with a `lock_timeout`.
        kept: (generation, epoch) pairs.

    Returns:
        The number of chunk rows that were deleted from each remaining generation.

    Raises:
        psycopg.errors.LockNotAvailable: A reader or writer held its lock too long.
    """
    lock_log(connection)
    # Writers of these generations wait, or find that they were overtaken.
    states = connection.execute(
        "SELECT generation, epoch FROM headwater.index_state WHERE status = 'ready' "
        "ORDER BY generation FOR UPDATE"
    ).fetchall()
    live = connection.execute(
        "SELECT generation, epoch FROM headwater.live JOIN headwater.releases USING (release_id)"
    ).fetchone()
    pairs = {*kept, *([(live[0], live[1])] if live else [])}
    connection.execute(
        "DELETE FROM headwater.releases WHERE (generation, epoch) NOT IN "
        "(SELECT * FROM unnest(%s::integer[], %s::bigint[]))",
        ([number for number, _ in pairs], [epoch for _, epoch in pairs]),
    )
    removed: dict[int, int] = {}
    for number, newest in states:
        epochs = sorted(epoch for of_generation, epoch in pairs if of_generation == number)
        if epochs:
            removed[number] = _prune_epochs(connection, number, [*epochs, newest])
        else:
            _retire_generation(connection, number)
    return removed


def _retire_generation(connection: Connection[DatabaseRow], number: int) -> None:
    drop_partitions(connection, number)
    for table in ("statistics", "quarantine"):
        connection.execute(
            SQL("DELETE FROM {} WHERE generation = %s").format(Identifier("headwater", table)), (number,)
        )
    connection.execute(
        "UPDATE headwater.index_state SET status = 'retired', changed_at = now() WHERE generation = %s",
        (number,),
    )


def _prune_epochs(connection: Connection[DatabaseRow], number: int, epochs: list[int]) -> int:
    """Removes a generation's rows that none of `epochs` shows; returns how many chunks."""
    chunks = partition_name("chunks", number)
    connection.execute(
        SQL("""
            CREATE TEMPORARY TABLE dead ON COMMIT DROP AS
            SELECT {posted} FROM {chunks}
            WHERE valid_to IS NOT NULL AND NOT EXISTS (
                SELECT FROM unnest({epochs}::bigint[]) AS epoch WHERE valid_from <= epoch AND epoch < valid_to
            )
        """).format(posted=POSTED_COLUMNS, chunks=chunks, epochs=Literal(epochs))
    )
    remove_postings(connection, number, read_chunk_lexemes(connection, "terms_dead", Identifier("dead")))
    removed = connection.execute(
        SQL("DELETE FROM {chunks} WHERE chunk_no IN (SELECT chunk_no FROM dead)").format(chunks=chunks)
    ).rowcount
    connection.execute("DROP TABLE dead, terms_dead")  # the next generation makes its own in this transaction
    # A lexeme that no kept epoch knows goes as well: it can be somebody's name.
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
        """
        DELETE FROM headwater.statistics s
        WHERE generation = {number} AND NOT EXISTS (
            SELECT FROM unnest({epochs}::bigint[]) AS kept
            WHERE s.epoch = (
                SELECT max(epoch) FROM headwater.statistics newest
                WHERE newest.generation = s.generation AND newest.scope = s.scope
                    AND newest.language = s.language AND newest.epoch <= kept
            )
        )
        """,
    ):
        connection.execute(
            SQL(statement).format(
                frequencies=partition_name("frequencies", number),
                number=Literal(number),
                epochs=Literal(epochs),
            )
        )
    return removed
