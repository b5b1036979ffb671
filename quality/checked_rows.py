"""Evaluates the relation that a suite validates, by DuckDB in this process or by Spark, from the same SQL.

The suites are written in Spark's SQL. For DuckDB, sqlglot translates them: other names of functions, another
syntax of lambdas and of string literals.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

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
