"""SQL over the lake, read-only: with DuckDB and no JVM, or the same on Spark."""

import itertools
import re

import duckdb
import pyarrow as pa

from assets.lake.commits import lineage_table
from assets.lake.delta import register
from assets.lake.lake import Lake
from assets.lake.tables import LAYERS, TABLES

_NAME = re.compile(rf"\b({'|'.join(LAYERS)})\.(\w+)(?:@(\d+))?")


class StatementRefused(ValueError):
    """The statement would write, or is more than one statement."""


class InvalidSearchQuery(ValueError):
    """The query can not be parsed, or names a table or column that does not exist."""


def query_with_duckdb(lake: Lake, statement: str) -> pa.Table:
    """Runs one query with DuckDB and returns its rows.

    Args:
        lake: The lake; its tables are `layer.table`, and `layer.table@N` is a table as of version N.
        statement: One SELECT, DESCRIBE, SHOW or EXPLAIN; it can reach no file outside the lake.

    Raises:
        ReadOnly: When it would write, or is more than one statement.
        InvalidSearchQuery: When it can not be parsed or names what is not there.
    """
    names, rewritten = _versions(statement)
    with duckdb.connect() as connection:
        _check_reads(connection, rewritten)
        for layer in LAYERS:
            connection.execute(f"create schema {layer}")
        for name, version in names | {(name, None) for name in TABLES}:
            if name != "ops.lineage" and name not in TABLES:
                continue
            view = _view(name, version)
            source = f"source_{name.replace('.', '_')}_{version}"
            try:
                data = lineage_table(lake) if name == "ops.lineage" else lake.delta(name, version)
            except KeyError as error:
                raise InvalidSearchQuery(str(error.args[0])) from error
            register(connection, source, data)
            connection.execute(f"create view {view} as from {source}")
        connection.execute("set allowed_directories = [?]", [f"{lake.root}/"])
        connection.execute("set enable_external_access = false; set lock_configuration = true")
        try:
            return connection.sql(rewritten).to_arrow_table()
        except duckdb.Error as error:
            raise InvalidSearchQuery(f"{error}\nTables: {', '.join([*TABLES, 'ops.lineage'])}") from error


def query_with_spark(lake: Lake, statement: str) -> pa.Table:
    """Runs one query on Spark; arguments, names and errors are those of `query_with_duckdb`."""
    names, rewritten = _versions(statement)
    with duckdb.connect() as connection:
        _check_reads(connection, rewritten)
    spark = lake.spark
    for layer in LAYERS:
        spark.sql(f"create database if not exists {layer}")
    for name, version in names:
        view = f"headwater_{name.replace('.', '_')}_{version if version is not None else 'newest'}"
        if name == "ops.lineage":
            spark.createDataFrame(lineage_table(lake)).createOrReplaceTempView(view)
        elif name in TABLES:
            lake.frame(name, version).createOrReplaceTempView(view)
        else:
            raise InvalidSearchQuery(f"no table {name}. Tables: {', '.join([*TABLES, 'ops.lineage'])}")
        rewritten = rewritten.replace(_view(name, version), view)
    try:
        return spark.sql(rewritten).toArrow()
    except Exception as error:
        raise InvalidSearchQuery(str(error).splitlines()[0]) from error


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
        name, at = f"{layer}.{table}", int(version) if version else None
        names.add((name, at))
        pieces += [statement[last : match.start()], _view(name, at)]
        last = match.end()
    return names, "".join([*pieces, statement[last:]])


def _check_reads(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    try:
        statements = connection.extract_statements(statement)
    except duckdb.Error as error:
        raise InvalidSearchQuery(str(error)) from error
    if len(statements) != 1:
        raise StatementRefused(f"one query at a time: this is {len(statements)} statements")
    kind = statements[0].type
    if kind not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise StatementRefused(
            f"the lake is read-only here: a {kind.name} statement was refused; "
            f"its tables are written by the asset graph (`headwater run`)"
        )
