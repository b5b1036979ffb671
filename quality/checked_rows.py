"""Evaluates the relation that a suite validates, by DuckDB in this process or by Spark, from the same SQL.

The suites are written in Spark's SQL. For DuckDB, sqlglot translates them: other names of functions, another
syntax of lambdas and of string literals.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from quality.expectations import Expectation
from quality.suites import Suite

if TYPE_CHECKING:
    import duckdb
    from pyspark.sql import DataFrame

Parameters: TypeAlias = Mapping[str, str | int | float]


def checked_rows_in_duckdb(
    connection: "duckdb.DuckDBPyConnection", suite: Suite, parameters: Parameters
) -> pa.Table:
    """Returns a suite's relation, evaluated by DuckDB.

    Args:
        connection: A DuckDB connection with each table of the suite, under its name without the layer.
        suite: The suite.
        parameters: A value for each of the suite's parameters.

    Raises:
        KeyError: A parameter is not given.
    """
    import sqlglot

    names = {name: name for name in _short_names(suite)} | {name: f":{name}" for name in suite.parameters}
    (query,) = sqlglot.transpile(suite.query.format(**names), read="spark", write="duckdb")
    return connection.sql(query, params=_values(suite, parameters)).to_arrow_table()


def failing_rows_in_duckdb(
    connection: "duckdb.DuckDBPyConnection", suite: Suite, expectation: Expectation, shown: str, limit: int
) -> tuple[int, list[str]] | None:
    """Returns how many rows do not meet an expectation, and one column of the first of them.

    Args:
        connection: As of `checked_rows_in_duckdb`.
        suite: A suite without parameters.
        expectation: One of its expectations.
        shown: A column of the suite's rows that says which row it is.
        limit: The most rows that are shown.

    Returns:
        None where the expectation is one of the whole table, and no row can be said to fail it.
    """
    import sqlglot

    fails = _fails(expectation)
    if fails is None:
        return None
    [(column, sql)] = expectation.columns.items()
    names = {name: name for name in _short_names(suite)}
    rows = f"SELECT {shown} AS shown, {sql} AS {column} FROM ({suite.rows}) AS checked".format(**names)
    failing = f"SELECT shown, count(*) OVER () AS failing FROM ({rows}) AS r WHERE {fails}"
    query = f"{failing} ORDER BY shown LIMIT {limit}"
    (translated,) = sqlglot.transpile(query, read="spark", write="duckdb")
    found = connection.sql(translated).fetchall()
    return (found[0][1], [row[0] for row in found]) if found else (0, [])


def _fails(expectation: Expectation) -> str | None:
    """Returns the condition of the rows that do not meet an expectation of single values, over its column."""
    arguments = expectation.kwargs
    column = arguments.get("column")
    if expectation.type == "expect_column_values_to_be_in_set" and arguments["value_set"] == [True]:
        return f"NOT {column}"
    if expectation.type == "expect_column_values_to_not_be_null":
        return f"{column} IS NULL"
    if expectation.type == "expect_column_values_to_be_between":
        bounds = (("min_value", "<"), ("max_value", ">"))
        return " OR ".join(f"{column} {sign} {arguments[name]}" for name, sign in bounds if name in arguments)
    return None


def checked_rows_in_spark(
    frames: "Mapping[str, DataFrame]", suite: Suite, parameters: Parameters
) -> "DataFrame":
    """Returns a suite's relation as a Spark frame, which every action on it evaluates.

    Args:
        frames: The suite's tables, by their names.
        suite: The suite.
        parameters: A value for each of the suite's parameters.

    Raises:
        KeyError: A table or a parameter is not given.
    """
    # Braces in the SQL take frames by their views, and values as quoted literals.
    fills: dict[str, Any] = {
        short: frames[name] for name, short in zip(_tables(suite), _short_names(suite), strict=True)
    }
    session = frames[suite.table].sparkSession
    return session.sql(suite.query, **fills, **_values(suite, parameters))


def _tables(suite: Suite) -> tuple[str, ...]:
    return (suite.table, *suite.reads)


def _short_names(suite: Suite) -> list[str]:
    return [name.partition(".")[2] for name in _tables(suite)]


def _values(suite: Suite, parameters: Parameters) -> dict[str, Any]:
    return {name: parameters[name] for name in suite.parameters}
