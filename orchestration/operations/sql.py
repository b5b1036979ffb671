"""SQL over the lake, read-only: with DuckDB and no JVM, or the same on Spark.

Both run in a process of their own that can write no file of the lake (`sql_worker`).
"""

import difflib
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa

from assets.lake.delta import register_delta_table
from assets.lake.lake import Lake
from assets.lake.tables import LAYERS, TABLES

_NAME = re.compile(rf"\b({'|'.join(LAYERS)})\.(\w+)(?:@(-?\w*))?", re.IGNORECASE)
_SHOW_TABLES = re.compile(r"\s*show\s+(all\s+)?tables\s*;?\s*", re.IGNORECASE)
_LINEAGE = "ops.lineage"
_NAMES = sorted([*TABLES, _LINEAGE])
_ALL_TABLES = pa.table({"name": _NAMES})
_SPILL = 4
"""DuckDB may put this many times its memory on disk."""
_VERSION_MARK = "$"
"""Stands for the @ of `layer.table@N` in DuckDB, whose names may hold it: no place in the query moves."""
_NO_TABLE = re.compile(r"Table with name (\S+) does not exist")
_NO_COLUMN = re.compile(
    r'Referenced column "(?P<name>[^"]*)" |does not have a column named "(?P<other>[^"]*)"|'
    r'Column "(?P<joined>[^"]*)" does not exist'
)
_MEANT = re.compile(r"(?:Did you mean|Candidate bindings:) (.*?)\??$", re.MULTILINE)
_LINE = re.compile(r"^LINE \d+: (.*)\n( *)(\^+)", re.MULTILINE)
_SPARK_VIEW = re.compile(rf"headwater_({'|'.join(LAYERS)})_(\w+)_(newest|\d+)")
_SPARK_CODE = re.compile(r"^\[[\w.]+\] | SQLSTATE: \w+")

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
    names, rewritten = _versions(statement, lake, _view)
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
        if name != _LINEAGE and name not in TABLES:
            continue
        view = _view(name, version)
        source = f"source_{name.replace('.', '_')}_{version}"
        data = lineage if name == _LINEAGE else lake.delta(name, version)
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
        raise explain_sql_error(error, statement) from error


def explain_sql_error(error: Exception, statement: str = "") -> ValueError:
    """Returns DuckDB's error in words: what is wrong, where in the query, and what to do.

    Args:
        error: The error.
        statement: The query, as it was written.
    """
    text = re.sub(r"(?<=\w)\$(?=\d)", "@", str(error))
    if isinstance(error, duckdb.OutOfMemoryException):
        return InvalidSqlStatement(f"{text.splitlines()[0]}; the limit is HEADWATER_SQL__MEMORY")
    if "Permission denied" in text or "Read-only file system" in text:
        return SqlStatementRefused(f"{READ_ONLY}: {text}")
    if isinstance(error, duckdb.PermissionException):
        return SqlStatementRefused(f"the lake is read-only here, and a query reaches no other file: {text}")
    if isinstance(error, duckdb.IOException) and "No files found" in text and "@" in statement:
        return InvalidSqlStatement(
            "the files of this version are no longer kept (HEADWATER_RETENTION_DAYS): name a later one"
        )
    if found := _NO_TABLE.search(text):
        written = re.search(rf'[\w."]*\b{re.escape(found[1])}', statement, re.IGNORECASE)
        return _no_table(written[0].replace('"', "") if written else found[1])
    meant = _MEANT.search(text)
    candidates = [each.strip(' "') for each in meant[1].split(",")] if meant else []
    if found := _NO_COLUMN.search(text):
        return InvalidSqlStatement(f"there is no column {_column_fault(found, candidates, statement)}")
    suggestion = f"; did you mean {candidates[0]}?" if candidates else ""
    said, _, _ = _MEANT.sub("", text).partition("\nLINE ")
    said = " ".join(re.sub(r"^[\w ]+ Error: ", "", said).split()).rstrip("!")
    place = _LINE.search(text)
    if place is None:
        return InvalidSqlStatement(f"{said}{suggestion}")
    column = len(place[2]) - (place.start(1) - place.start())
    return InvalidSqlStatement(f"{said}{suggestion}\n  {place[1]}\n  {' ' * column}{place[3]}")


def _no_table(name: str) -> InvalidSqlStatement:
    like = [each for each in _NAMES if each.partition(".")[2] == name.rpartition(".")[2].lower()]
    like = like or difflib.get_close_matches(name.lower(), _NAMES, 1, 0.8)
    suggestion = f"; did you mean {like[0]}?" if like else ""
    return InvalidSqlStatement(f"there is no table {name}{suggestion}\nTables: {', '.join(_NAMES)}")


def _column_fault(found: re.Match[str], candidates: list[str], statement: str) -> str:
    """Returns a column that is not there, with what helps: what is there, or how a text is written."""
    name = found["name"] or found["other"] or found["joined"] or ""
    # DuckDB offers its nearest columns, however far those are.
    like = difflib.get_close_matches(name.lower(), candidates, 1, 0.6)
    suggestion = f"; did you mean {like[0]}?" if like else ""
    tables = list(dict.fromkeys(match[0].partition("@")[0].lower() for match in _NAME.finditer(statement)))
    listed = " and ".join(f'`headwater sql "describe {table}"`' for table in tables if table in TABLES)
    said = f"{name}{suggestion}"
    if f'"{name}"' in statement:
        said += f"{'' if suggestion else ';'} a text is written in single quotes: '{name}'"
    return f"{said}\n{listed} lists the columns there are" if listed else said


def query_with_spark(lake: Lake, statement: str, lineage: pa.Table) -> pa.Table:
    """Answers one query with Spark; the names, arguments and errors are those of `query_with_duckdb`.

    Spark's own parser says what the statement is, and the plan that was checked is the one that is executed.
    """
    from orchestration.environment.spark_plan import SqlPlanRefused, checked_sql_frame

    if _SHOW_TABLES.fullmatch(statement):  # Spark would show those of its own catalog
        return _ALL_TABLES
    names, rewritten = _versions(statement, lake, _spark_view)
    spark = lake.spark
    for name, version in names:
        view = _spark_view(name, version)
        if name == _LINEAGE:
            spark.createDataFrame(lineage).createOrReplaceTempView(view)
        elif name in TABLES:
            lake.frame(name, version).createOrReplaceTempView(view)
        else:
            raise _no_table(name)
    try:
        return checked_sql_frame(spark, rewritten).toArrow()
    except SqlPlanRefused as error:
        raise SqlStatementRefused(_as_written(str(error))) from error
    except Exception as error:
        raise InvalidSqlStatement(_as_written(str(error))) from error


def _as_written(text: str) -> str:
    """Returns the first line of an error of Spark's, with the names that the query gives tables."""
    first = _SPARK_CODE.sub("", text.strip().partition("\n")[0])
    return _SPARK_VIEW.sub(
        lambda view: f"{view[1]}.{view[2]}" + ("" if view[3] == "newest" else f"@{view[3]}"), first
    )


def _view(name: str, version: int | None) -> str:
    """Returns the name of the view of a table at a version."""
    return name if version is None else f"{name}{_VERSION_MARK}{version}"


def _spark_view(name: str, version: int | None) -> str:
    """Returns the same for Spark."""
    return f"headwater_{name.replace('.', '_')}_{'newest' if version is None else version}"


def _versions(
    statement: str, lake: Lake, view: Callable[[str, int | None], str]
) -> tuple[set[tuple[str, int | None]], str]:
    """Returns the tables that a statement names, and the statement with their views instead.

    Raises:
        InvalidSqlStatement: A table has no such version.
    """
    masked = list(statement)
    tokens = [*duckdb.tokenize(statement), (len(statement), None)]
    for (start, kind), (end, _) in itertools.pairwise(tokens):
        if kind in (duckdb.token_type.string_const, duckdb.token_type.comment):
            masked[start:end] = " " * (end - start)
    names, pieces, last = set(), [], 0
    for match in _NAME.finditer("".join(masked)):
        layer, table, version = match.groups()
        name = f"{layer}.{table}".lower()
        at = None if version is None else _checked_version(lake, name, version)
        names.add((name, at))
        pieces += [statement[last : match.start()], view(name, at)]
        last = match.end()
    return names, "".join([*pieces, statement[last:]])


def _checked_version(lake: Lake, name: str, version: str) -> int:
    """Returns the version that `layer.table@version` means.

    Raises:
        InvalidSqlStatement: It is no number, or the table has no such version any more or yet.
    """
    if name == _LINEAGE:
        raise InvalidSqlStatement(f"{name} has no versions: it lists the commits of all versions")
    if name not in TABLES:
        raise _no_table(name)
    try:
        if version.isdecimal():
            return lake.delta(name, int(version)).version()
    except KeyError as error:
        raise InvalidSqlStatement(str(error.args[0])) from error
    newest = lake.version(name)
    raise InvalidSqlStatement(
        f"{name}@{version} names no version: write a number from 0 to {newest}, such as {name}@{newest}"
    )


def _check_reads(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Refuses early, in words, what would be refused by the system; nothing else depends on it."""
    try:
        statements = connection.extract_statements(statement)
    except duckdb.Error as error:
        raise explain_sql_error(error, statement) from error
    if not statements:
        raise InvalidSqlStatement('the query is empty: write one, such as "select count(*) from gold.chunks"')
    if len(statements) != 1:
        raise SqlStatementRefused(f"one query at a time: this is {len(statements)} statements")
    kind = statements[0].type
    if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise SqlStatementRefused(f"a {kind.name} statement was refused: {READ_ONLY}")
