"""SQL over the lake, read-only: with DuckDB and no JVM, or the same on Spark.

Both run in a process of their own that can write no file of the lake (`sql_worker`).
"""

import itertools
import re
from pathlib import Path

import duckdb
import pyarrow as pa

from assets.lake.delta import register_delta_table
from assets.lake.lake import Lake
from assets.lake.tables import LAYERS, TABLES

_NAME = re.compile(rf"\b({'|'.join(LAYERS)})\.(\w+)(?:@(\d+))?", re.IGNORECASE)
_SHOW_TABLES = re.compile(r"\s*show\s+(all\s+)?tables\s*;?\s*", re.IGNORECASE)
_ALL_TABLES = pa.table({"name": sorted([*TABLES, "ops.lineage"])})
_SPILL = 4
"""DuckDB may put this many times its memory on disk."""

READ_ONLY = "the lake is read-only here; its tables are written by the asset graph (`headwater run`)"


class SqlStatementRefused(ValueError):
    """The statement would write, or is more than one statement."""


class InvalidSqlStatement(ValueError):
    """The query can not be answered as it is written."""


def query_with_duckdb(
    lake: Lake, statement: str, lineage: pa.Table, memory_bytes: int, scratch: Path, confined: bool
) -> pa.RecordBatchReader:
    """Answers one query with DuckDB.

    DuckDB lets a statement write wherever it lets it read, `EXPLAIN ANALYZE COPY … TO` included. So it reads
    the lake's files itself only where the system keeps this process from writing them. Elsewhere it reaches
    no file at all, and is handed the tables as Arrow.

    Args:
        lake: The lake; its tables are `layer.table`, and `layer.table@N` is a table as of version N.
        statement: One SELECT, DESCRIBE, SHOW or EXPLAIN; it can reach no file outside the lake.
        lineage: The rows of `ops.lineage`.
        memory_bytes: The most memory that DuckDB may take.
        scratch: An empty folder for what does not fit into it.
        confined: Whether the system keeps this process from writing anywhere else than in `scratch`.

    Raises:
        SqlStatementRefused: It would write, or is more than one statement.
        InvalidSqlStatement: It can not be parsed, names what is not there, or takes too much memory.
    """
    names, rewritten = _versions(statement)
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_bytes}B",
        "temp_directory": str(scratch),
        "max_temp_directory_size": f"{_SPILL * memory_bytes}B",
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "python_enable_replacements": False,
    }
    connection = duckdb.connect(config=config)
    _check_reads(connection, rewritten)
    for layer in LAYERS:
        connection.execute(f"create schema {layer}")
    for name, version in names | {(name, None) for name in TABLES}:
        if name != "ops.lineage" and name not in TABLES:
            continue
        view = _view(name, version)
        source = f"source_{name.replace('.', '_')}_{version}"
        try:
            data = lineage if name == "ops.lineage" else lake.delta(name, version)
        except KeyError as error:
            raise InvalidSqlStatement(str(error.args[0])) from error
        register_delta_table(connection, source, data, read_files=confined)
        connection.execute(f"create view {view} as from {source}")
    if confined:
        connection.execute("set allowed_directories = [?]", [f"{lake.root}/"])
    connection.execute("set enable_external_access = false; set lock_configuration = true")
    if _SHOW_TABLES.fullmatch(statement):  # DuckDB would show what the views are made of
        return _ALL_TABLES.to_reader()
    try:
        return connection.sql(rewritten).to_arrow_reader()
    except duckdb.Error as error:
        raise explain_sql_error(error) from error


def explain_sql_error(error: Exception) -> ValueError:
    """Returns DuckDB's error message, with advice on what to do."""
    text = str(error)
    if isinstance(error, duckdb.OutOfMemoryException):
        return InvalidSqlStatement(f"{text.splitlines()[0]}; the limit is HEADWATER_SQL__MEMORY")
    if "Permission denied" in text or "Read-only file system" in text:
        return SqlStatementRefused(f"{READ_ONLY}: {text}")
    if isinstance(error, duckdb.PermissionException):
        return SqlStatementRefused(f"the lake is read-only here, and a query reaches no other file: {text}")
    return InvalidSqlStatement(f"{text}\nTables: {', '.join([*TABLES, 'ops.lineage'])}")


def query_with_spark(lake: Lake, statement: str, lineage: pa.Table) -> pa.Table:
    """Answers one query with Spark; the names, arguments and errors are those of `query_with_duckdb`.

    Spark's own parser says what the statement is, and the plan that was checked is the one that is executed.
    """
    from orchestration.environment.spark_plan import SqlPlanRefused, checked_sql_frame

    if _SHOW_TABLES.fullmatch(statement):  # Spark would show those of its own catalog
        return _ALL_TABLES
    names, rewritten = _versions(statement)
    spark = lake.spark
    for name, version in names:
        view = f"headwater_{name.replace('.', '_')}_{version if version is not None else 'newest'}"
        if name == "ops.lineage":
            spark.createDataFrame(lineage).createOrReplaceTempView(view)
        elif name in TABLES:
            try:
                lake.frame(name, version).createOrReplaceTempView(view)
            except KeyError as error:
                raise InvalidSqlStatement(str(error.args[0])) from error
        else:
            raise InvalidSqlStatement(f"no table {name}. Tables: {', '.join([*TABLES, 'ops.lineage'])}")
        rewritten = rewritten.replace(_view(name, version), view)
    try:
        return checked_sql_frame(spark, rewritten).toArrow()
    except SqlPlanRefused as error:
        raise SqlStatementRefused(str(error)) from error
    except Exception as error:
        raise InvalidSqlStatement(str(error).splitlines()[0]) from error


def _view(name: str, version: int | None) -> str:
    """Returns the name of the view of a table at a version."""
    layer, _, table = name.partition(".")
    return f'{layer}."{table}"' if version is None else f'{layer}."{table}@{version}"'


def _versions(statement: str) -> tuple[set[tuple[str, int | None]], str]:
    """Returns the tables that a statement names, and the statement with their views instead."""
    masked = list(statement)
    tokens = [*duckdb.tokenize(statement), (len(statement), None)]
    for (start, kind), (end, _) in itertools.pairwise(tokens):
        if kind in (duckdb.token_type.string_const, duckdb.token_type.comment):
            masked[start:end] = " " * (end - start)
    names, pieces, last = set(), [], 0
    for match in _NAME.finditer("".join(masked)):
        layer, table, version = match.groups()
        layer, table = layer.lower(), table.lower()
        name, at = f"{layer}.{table}", int(version) if version else None
        names.add((name, at))
        pieces += [statement[last : match.start()], _view(name, at)]
        last = match.end()
    return names, "".join([*pieces, statement[last:]])


def _check_reads(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Refuses early, in words, what would be refused by the system; nothing else depends on it."""
    try:
        statements = connection.extract_statements(statement)
    except duckdb.Error as error:
        raise InvalidSqlStatement(str(error)) from error
    if not statements:
        raise InvalidSqlStatement('the query is empty: write one, such as "select count(*) from gold.chunks"')
    if len(statements) != 1:
        raise SqlStatementRefused(f"one query at a time: this is {len(statements)} statements")
    kind = statements[0].type
    if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise SqlStatementRefused(f"a {kind.name} statement was refused: {READ_ONLY}")
