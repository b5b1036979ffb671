"""Writes the index's rows to files, and restores an index from such files, which hold no code.

A dump of `pg_dump` is a program that a restore runs, with its functions. Here each table is one file of
binary COPY, which holds only values. A restore creates the schema as for a new database, loads the rows as
the owner, who is not a superuser, and indexes them as a build does.
"""

from pathlib import Path

import psycopg
from psycopg import Connection, sql
from psycopg.sql import SQL, Identifier
from pydantic import BaseModel

from common.progress import Progress
from retrieval.index.hnsw_graph import HnswGraphConfig, create_hnsw_graphs
from retrieval.index.partitions import (
    PARTITIONED,
    attach_partitions,
    create_chunk_indexes,
    create_partitions,
    create_posting_indexes,
    partition_name,
)
from retrieval.store.postgres import DatabaseRow, fetch_postgres_value
from retrieval.store.schema import log_pointer_tables, restore_pointer_tables

_TABLES = (
    "index_state", "releases", "release_log", "statistics", "quarantine", "scopes", "access_key",
)  # fmt: skip
"""The tables that are no partitions, each after those that it refers to."""

_BEFORE_LOG = ("live", "live_history")
"""What a dump of a schema before version 9 has in place of `release_log`."""

_ROWS = {"index_state": "WHERE status <> 'building'"}
_PIECE_BYTES = 1 << 20


class InvalidIndexDump(RuntimeError):
    """The files of a dump do not hold rows of this schema's tables."""


class IndexDump(BaseModel):
    """The contents of an index dump.

    Attributes:
        dimensions: The length of the vectors of each dumped generation, by the generation's number.
        last_generation: The highest number that a generation has had.
        columns: The columns of each table's files, in order.
    """

    dimensions: dict[int, int]
    last_generation: int
    columns: dict[str, tuple[str, ...]]

    def files(self) -> list[str]:
        """Returns the names of the dump's files."""
        parts = [f"{table}_g{number}" for number in self.dimensions for table in PARTITIONED]
        return [f"{name}.copy" for name in (*_TABLES, *parts)]


def dump_index(connection: Connection[DatabaseRow], folder: Path) -> IndexDump:
    """Writes the rows of one snapshot of the index to files; writers are not blocked.

    Args:
        connection: The owner's connection, at the start of a transaction.
        folder: The folder for the files.
    """
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    # It takes no snapshot: what is dropped before it is also gone from what is read next.
    connection.execute(
        SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(
            SQL(", ").join(SQL("ONLY ") + Identifier("headwater", table) for table in PARTITIONED)
        )
    )
    ready = connection.execute(
        "SELECT generation, dimension FROM headwater.index_state WHERE status = 'ready' ORDER BY generation"
    ).fetchall()
    dump = IndexDump(
        dimensions=dict(ready),
        last_generation=fetch_postgres_value(
            connection,
            "SELECT coalesce(pg_sequence_last_value("
            "pg_get_serial_sequence('headwater.index_state', 'generation')::regclass), 0)",
        ),
        columns={table: _columns(connection, table) for table in (*_TABLES, *PARTITIONED)},
    )
    progress = Progress("files of the index written", len(dump.files()))
    for table in _TABLES:
        name = Identifier("headwater", table)
        _copy_out(connection, name, dump.columns[table], folder / f"{table}.copy", _ROWS.get(table, ""))
        progress.advance()
    for number in dump.dimensions:
        for table in PARTITIONED:
            file = folder / f"{table}_g{number}.copy"
            _copy_out(connection, partition_name(table, number), dump.columns[table], file)
            progress.advance()
    return dump


def restore_index(
    connection: Connection[DatabaseRow],
    folder: Path,
    dump: IndexDump,
    graph: HnswGraphConfig,
) -> None:
    """Fills a new database's tables from the files of a dump, and indexes them.

    Args:
        connection: The owner's connection, in a transaction.
        folder: The folder of the files.
        dump: The contents of the dump, from `dump_index`.
        graph: Which scopes get a graph, and how it is built.

    Raises:
        InvalidIndexDump: The files do not hold rows of these tables.
    """
    before_log = "release_log" not in dump.columns and "live" in dump.columns
    tables = [each for each in _TABLES if not (before_log and each == "release_log")]
    if before_log:
        tables += _BEFORE_LOG
        restore_pointer_tables(connection)
    for table in (*tables, *PARTITIONED):
        if not dump.columns.get(table) or set(dump.columns[table]) - set(_columns(connection, table)):
            raise InvalidIndexDump(f"{table} of the dump has other columns than headwater.{table}")
    connection.execute("DELETE FROM headwater.access_key")
    progress = Progress("files of the index read", len(dump.files()))
    try:
        for table in tables:
            _insert(connection, table, dump.columns[table], folder / f"{table}.copy")
            progress.advance()
        connection.execute(
            "SELECT setval(pg_get_serial_sequence('headwater.index_state', 'generation'), %(last)s) "
            "WHERE %(last)s > 0",
            {"last": dump.last_generation},
        )
        connection.execute(
            "SELECT setval(pg_get_serial_sequence('headwater.release_log', 'move_id'), max(move_id)) "
            "FROM headwater.release_log HAVING max(move_id) > 0"
        )
        if before_log:
            log_pointer_tables(connection)
        for number, dimension in dump.dimensions.items():
            create_partitions(connection, number)
            for table in PARTITIONED:
                file = folder / f"{table}_g{number}.copy"
                _copy_in(connection, partition_name(table, number), dump.columns[table], file)
                progress.advance()
            create_chunk_indexes(connection, number)
            create_posting_indexes(connection, number)
            create_hnsw_graphs(connection, number, dimension, graph)
            attach_partitions(connection, number)
    except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError) as error:
        raise InvalidIndexDump(f"rows do not fit the index's tables: {error.diag.message_primary}") from error


def _columns(connection: Connection[DatabaseRow], table: str) -> tuple[str, ...]:
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
        "ORDER BY attnum",
        (f"headwater.{table}",),
    ).fetchall()
    return tuple(row[0] for row in rows)


def _copy_out(
    connection: Connection[DatabaseRow],
    table: sql.Composable,
    columns: tuple[str, ...],
    file: Path,
    rows: str = "",
) -> None:
    query = SQL("COPY (SELECT {columns} FROM {table} " + rows + ") TO STDOUT WITH (FORMAT binary)").format(
        columns=SQL(", ").join(map(Identifier, columns)), table=table
    )
    with file.open("wb") as body, connection.cursor() as cursor, cursor.copy(query) as stream:
        for piece in stream:
            body.write(piece)


def _copy_in(
    connection: Connection[DatabaseRow], table: sql.Composable, columns: tuple[str, ...], file: Path
) -> None:
    query = SQL("COPY {table} ({columns}) FROM STDIN WITH (FORMAT binary)").format(
        table=table, columns=SQL(", ").join(map(Identifier, columns))
    )
    with file.open("rb") as body, connection.cursor() as cursor, cursor.copy(query) as stream:
        while piece := body.read(_PIECE_BYTES):
            stream.write(piece)


def _insert(connection: Connection[DatabaseRow], table: str, columns: tuple[str, ...], file: Path) -> None:
    """Loads a table that has rows or policies, which COPY does not load."""
    names = SQL(", ").join(map(Identifier, columns))
    connection.execute(
        SQL("CREATE TEMPORARY TABLE loaded (LIKE {}) ON COMMIT DROP").format(Identifier("headwater", table))
    )
    _copy_in(connection, Identifier("loaded"), columns, file)
    connection.execute(
        SQL(
            "INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM loaded; "
            "DROP TABLE loaded"
        ).format(table=Identifier("headwater", table), names=names)
    )
