"""The tables (partitions) of one generation: created, loaded, indexed, attached, vacuumed and dropped."""

from collections.abc import Iterator, Mapping

import pyarrow as pa
from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

from retrieval.access import SCOPE_GROUPS_SQL, SCOPE_TENANT_SQL
from retrieval.index.binary_copy import binary_copy_stream
from retrieval.index.rows import COPIED_COLUMNS
from retrieval.index.types import IndexConflict
from retrieval.store.postgres import DatabaseRow, fetch_postgres_value

PARTITIONED = ("chunks", "postings", "frequencies")
"""The tables of which each generation is a partition."""


def partition_name(table: str, generation: int) -> Identifier:
    """Returns the name of a generation's partition of a table."""
    return Identifier("headwater", f"{table}_g{generation}")


def create_partitions(connection: Connection[DatabaseRow], generation: int) -> None:
    """Creates a generation's tables without attaching them, so that no reader sees them or waits for them."""
    for table in PARTITIONED:
        _create_partition(connection, table, generation)


def _create_partition(connection: Connection[DatabaseRow], table: str, generation: int) -> None:
    connection.execute(
        SQL(
            "CREATE TABLE {part} (LIKE headwater.{table} INCLUDING STORAGE INCLUDING CONSTRAINTS, "
            "CONSTRAINT one_generation CHECK (generation = {generation})) {options}"
        ).format(
            part=partition_name(table, generation),
            table=Identifier(table),
            generation=Literal(generation),
            # Room on each page lets a chunk be closed in place, without new entries in its indexes. Removed
            # chunks leave the indexes when `clean_hnsw_graph` says so.
            options=SQL("WITH (fillfactor = 90, vacuum_index_cleanup = off)" if table == "chunks" else ""),
        )
    )
    # EXPLAIN of a query for a word would tell how often rows hold it that the reader may not see.
    connection.execute(
        "SELECT headwater.keep_no_statistics(%s)", (partition_name(table, generation).as_string(connection),)
    )


def copy_index_chunks(
    connection: Connection[DatabaseRow], into: Identifier, rows: Iterator[pa.RecordBatch], freeze: bool
) -> None:
    """Loads rows by one binary COPY; `freeze` needs a table that was created in this transaction.

    Raises:
        InvalidIndexBatch: As in `numbered_index_rows`, which yields the rows.
    """
    copy = SQL("COPY {into} ({columns}) FROM STDIN WITH (FORMAT binary, FREEZE {freeze})").format(
        into=into, columns=SQL(", ").join(map(Identifier, COPIED_COLUMNS)), freeze=Literal(freeze)
    )
    with connection.cursor() as cursor, cursor.copy(copy) as stream:
        for piece in binary_copy_stream(rows):
            stream.write(piece)


def sort_index_chunks(connection: Connection[DatabaseRow], generation: int) -> None:
    """Sorts and numbers the loaded chunks by scope, so that a tenant's chunks are on fewer pages.

    Chunks of later changes are stored wherever there is room.
    """
    chunks, unsorted = partition_name("chunks", generation), Identifier(f"unsorted_g{generation}")
    several = SQL("SELECT EXISTS (SELECT FROM {chunks} WHERE scope <> (SELECT scope FROM {chunks} LIMIT 1))")
    if not fetch_postgres_value(connection, several.format(chunks=chunks)):
        return
    connection.execute(SQL("ALTER TABLE {} RENAME TO {}").format(chunks, unsorted))
    _create_partition(connection, "chunks", generation)
    connection.execute(
        SQL(
            "INSERT INTO {chunks} (generation, chunk_no, {others}) "
            "SELECT generation, row_number() OVER (ORDER BY scope, chunk_no) - 1, {others} FROM {unsorted} "
            "ORDER BY scope, chunk_no; DROP TABLE {unsorted}"
        ).format(
            chunks=chunks,
            others=SQL(", ").join(map(Identifier, COPIED_COLUMNS[2:])),
            unsorted=Identifier("headwater", f"unsorted_g{generation}"),
        )
    )


def create_chunk_indexes(connection: Connection[DatabaseRow], generation: int) -> None:
    """Creates the indexes of loaded chunks: by chunk_id and by scope.

    Raises:
        psycopg.errors.UniqueViolation: Two rows have one chunk_id.
    """
    for columns in (
        # No index has valid_to: that keeps closing a row cheap.
        "UNIQUE INDEX ON {} (chunk_id, valid_from)",
        "UNIQUE INDEX ON {} (chunk_no) INCLUDE (generation, scope)",
        "INDEX ON {} (scope)",
    ):
        connection.execute(SQL("CREATE " + columns).format(partition_name("chunks", generation)))


def create_posting_indexes(connection: Connection[DatabaseRow], generation: int) -> None:
    """Creates the indexes of a generation's postings and frequencies, after all rows are inserted."""
    for table, columns in (
        ("postings", "(scope, lexeme, first_no)"),
        ("frequencies", "(scope, lexeme, epoch) INCLUDE (generation, chunk_count)"),
    ):
        connection.execute(
            SQL("CREATE UNIQUE INDEX ON {} " + columns).format(partition_name(table, generation))
        )


def read_scope_keys(connection: Connection[DatabaseRow]) -> dict[str, int]:
    """Returns the key of every scope that is known."""
    return dict(connection.execute("SELECT scope, scope_key FROM headwater.scopes").fetchall())


def insert_index_scopes(connection: Connection[DatabaseRow], scope_keys: Mapping[str, int]) -> None:
    """Inserts the scopes that are not known yet, with their keys, so that their readers find them.

    Raises:
        IndexConflict: Another writer inserted one of them first, with another key.
    """
    connection.execute(
        f"INSERT INTO headwater.scopes (scope, tenant, groups, scope_key) "
        f"SELECT scope, {SCOPE_TENANT_SQL}, {SCOPE_GROUPS_SQL}, scope_key "
        "FROM unnest(%(scopes)s::text[], %(keys)s::bigint[]) AS new (scope, scope_key) "
        "ON CONFLICT DO NOTHING",
        {"scopes": list(scope_keys), "keys": list(scope_keys.values())},
    )
    if any(
        scope_keys[scope] != key for scope, key in read_scope_keys(connection).items() if scope in scope_keys
    ):
        raise IndexConflict(
            "another writer put the first chunks of a tenant or group in: read the state again"
        )


def attach_partitions(connection: Connection[DatabaseRow], generation: int) -> None:
    """Attaches a loaded generation to the partitioned tables; readers of other generations don't wait."""
    for table in PARTITIONED:
        # A grant given by mistake on the partition would bypass the policies of the whole table. Only now,
        # because COPY does not load tables that have policies.
        for statement in (
            "ALTER TABLE {part} ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE {part} FORCE ROW LEVEL SECURITY",
            "CREATE POLICY owner_writes ON {part} TO headwater_owner USING (true)",
        ):
            connection.execute(SQL(statement).format(part=partition_name(table, generation)))
        connection.execute(
            SQL("ALTER TABLE headwater.{table} ATTACH PARTITION {part} FOR VALUES IN ({generation})").format(
                table=Identifier(table),
                part=partition_name(table, generation),
                generation=Literal(generation),
            )
        )
        connection.execute(
            SQL("ALTER TABLE {part} DROP CONSTRAINT one_generation").format(
                part=partition_name(table, generation)
            )
        )


def drop_partitions(connection: Connection[DatabaseRow], generation: int) -> None:
    """Drops a generation's tables; waits for the transactions that read the index."""
    for table in PARTITIONED:
        connection.execute(SQL("DROP TABLE IF EXISTS {}").format(partition_name(table, generation)))


def vacuum_partitions(connection: Connection[DatabaseRow], generation: int) -> None:
    """Vacuums and analyses a generation's tables; entries of removed chunks stay in the chunks' indexes."""
    for table in PARTITIONED:
        connection.execute(SQL("VACUUM (ANALYZE) {}").format(partition_name(table, generation)))
