"""Validates rows with Great Expectations, by its pandas engine or its Spark engine.

Great Expectations' richer result formats contain failing values, and so do its exceptions. So a result here
has only counts, and the class of an exception: no value of a row is in results, Data Docs or logs.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import duckdb

from quality.checked_rows import Parameters, checked_rows_in_duckdb, checked_rows_in_spark
from quality.data_docs import data_docs_page, write_data_docs
from quality.expectations import Expectation
from quality.gate import ExpectationResult
from quality.suites import Suite

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

Tables: TypeAlias = "Mapping[str, DataFrame] | duckdb.DuckDBPyConnection"
"""Frames by table name, or a connection that has each table under the part of its name after the dot."""

_COUNTS = ("element_count", "unexpected_count", "unexpected_percent", "missing_count", "missing_percent")
_COUNTING = re.compile(r"row_count|column_count|value_count|proportion|unexpected_rows")
"""Types of expectations whose observed value is a number of rows, columns or distinct values."""
_NAME = "headwater_name"
"""Where an expectation's name stands in what Great Expectations carries of it."""


class ExpectationNotEvaluated(RuntimeError):
    """An expectation of a Headwater suite could not be evaluated, so the table must not pass its gate."""


def run_gate_suite(
    tables: Tables, suite: Suite, docs_dir: Path | None = None, parameters: Parameters | None = None
) -> list[ExpectationResult]:
    """Returns the results of validating a table against its suite.

    Args:
        tables: The suite's table and the other tables that it reads.
        suite: The suite.
        docs_dir: The folder for Data Docs, which get a subfolder with the table's name; None for no Data
            Docs.
        parameters: A value for each of the suite's parameters.

    Returns:
        One result per expectation, in the suite's order.

    Raises:
        KeyError: A table or a parameter of the suite is not given.
        ExpectationNotEvaluated: Great Expectations could not evaluate an expectation.
    """
    page = data_docs_page(docs_dir, suite.table) if docs_dir else None
    if isinstance(tables, duckdb.DuckDBPyConnection):
        # Importing it takes seconds of Python, and the query may take seconds of DuckDB: both at once.
        with ThreadPoolExecutor(1) as pool:
            importing = pool.submit(import_great_expectations)
            arrow = checked_rows_in_duckdb(tables, suite, parameters or {})
            importing.result()
        import pandas as pd

        results = validate_with_gx(
            arrow.to_pandas(types_mapper=pd.ArrowDtype), suite.table, suite.expectations, page
        )
    else:
        frame = checked_rows_in_spark(tables, suite, parameters or {}).persist()
        try:
            results = validate_with_gx(frame, suite.table, suite.expectations, page)
        finally:
            frame.unpersist()
    for each in results:
        if each.error is not None:
            raise ExpectationNotEvaluated(f"{suite.table}: {each.name} could not be evaluated: {each.error}")
    return results


def import_great_expectations() -> ModuleType:
    """Imports Great Expectations with its telemetry off and without its log messages, which quote values."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read once, at import
    gx = import_module("great_expectations")
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
    return gx


def ephemeral_gx_context() -> Any:
    """Returns a Great Expectations context in memory: no files, no progress bars, no telemetry."""
    gx = import_great_expectations()
    types = gx.data_context.types.base
    return gx.get_context(
        mode="ephemeral",
        # The default configuration has a docs site in a temporary folder that nothing would remove.
        project_config=types.DataContextConfig(
            store_backend_defaults=types.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            progress_bars=types.ProgressBarsConfig(globally=False),
            analytics_enabled=False,
        ),
    )


def validate_with_gx(
    rows: "pd.DataFrame | DataFrame",
    name: str,
    expectations: Sequence[Expectation],
    page: Path | None,
    users_own: bool = False,
) -> list[ExpectationResult]:
    """Returns the results of validating a pandas or Spark frame by Great Expectations' engine for it.

    Args:
        rows: The pandas or Spark frame.
        name: The name of the validation in its Data Docs.
        expectations: The expectations.
        page: The path of the Data Docs page; None for no page.
        users_own: True for a user's expectations. They may validate any column, so only counts are returned.

    Returns:
        One result per expectation, in their order.
    """
    import pandas as pd

    context = ephemeral_gx_context()
    gx = import_great_expectations()
    in_pandas = isinstance(rows, pd.DataFrame)
    sources = context.data_sources
    source = sources.add_pandas("rows") if in_pandas else sources.add_spark("rows", persist=False)
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    suite = gx.ExpectationSuite(name=name, expectations=[gx_expectation(each) for each in expectations])
    definition = gx.ValidationDefinition(name=name, data=batch, suite=context.suites.add(suite))
    with _silent(None if isinstance(rows, pd.DataFrame) else rows.sparkSession):
        outcome = context.validation_definitions.add(definition).run(
            batch_parameters={"dataframe": rows},
            result_format={"result_format": "BASIC", "exclude_unexpected_values": True},
        )
    errors: dict[str, str | None] = {}
    for each in outcome.results:
        errors[each.expectation_config.meta[_NAME]] = _error(each.exception_info)
        _keep_counts(each, users_own)
    found = {each.expectation_config.meta.pop(_NAME): each for each in outcome.results}
    if page is not None:
        write_data_docs(page, outcome)
    return [
        ExpectationResult(
            each.name,
            bool(found[each.name].success) and errors[each.name] is None,
            each.severity,
            _observed(found[each.name].result),
            errors[each.name],
        )
        for each in expectations
    ]


def gx_expectation(expectation: Expectation) -> Any:
    """Returns the Great Expectations object for an expectation.

    Raises:
        ExpectationNotFoundError: Great Expectations has no expectation of that type.
        ValidationError: The arguments do not fit that type.
    """
    from great_expectations.expectations.registry import get_expectation_impl

    return get_expectation_impl(expectation.type)(
        **expectation.kwargs,
        severity="critical" if expectation.severity == "error" else "warning",
        description=f"{expectation.in_words}. {expectation.why}",
        meta={_NAME: expectation.name},
    )


@contextmanager
def _silent(spark: "SparkSession | None") -> Iterator[None]:
    """Keeps Spark's messages about a failing query to itself, in which it quotes values."""
    if spark is None:
        yield
        return
    from pyspark.logger import PySparkLogger

    # By Spark's own class: whoever asks for this name first decides it, and Spark's errors need theirs.
    logger = PySparkLogger.getLogger("SQLQueryContextLogger")
    root = spark.sparkContext._jvm.org.apache.logging.log4j.LogManager.getRootLogger()  # type: ignore[union-attr]
    before = root.getLevel().toString()
    spark.sparkContext.setLogLevel("OFF")
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False
        spark.sparkContext.setLogLevel(before)


def _keep_counts(result: Any, users_own: bool) -> None:
    """Takes everything but counts out of Great Expectations' result of an expectation."""
    kept = {name: _plain(result.result[name]) for name in _COUNTS if name in result.result}
    counted = not users_own or _COUNTING.search(result.expectation_config.type)
    if counted and isinstance(observed := _plain(result.result.get("observed_value")), int | float):
        kept["observed_value"] = observed
    result.result = kept
    error = _error(result.exception_info)
    result.exception_info = {
        "raised_exception": error is not None,
        "exception_message": error or "",
        "exception_traceback": "",
    }


def _plain(value: Any) -> Any:
    """A Python number for numpy's, which Data Docs can not render."""
    return value.item() if hasattr(value, "item") else value


def _observed(result: Mapping[str, Any]) -> float | None:
    return result.get("observed_value", result.get("unexpected_count"))


def _error(exception_info: Mapping[str, Any]) -> str | None:
    """Returns the kind of the exception that an expectation raised, None where it raised none.

    Great Expectations gives one exception, or several by the ids of metrics. Their messages and tracebacks
    quote values, so only the name of a known class, or of a condition of Spark's, is taken from them.
    """
    several = [each for each in exception_info.values() if isinstance(each, Mapping)] or [exception_info]
    for raised in several:
        if raised.get("raised_exception"):
            trace = raised.get("exception_traceback") or ""
            # Spark's exceptions name their condition: `pyspark.errors….ParseException: [SYNTAX_ERROR] …`
            condition = re.search(r"^pyspark\.errors\S+: \[([A-Z_.]+)\]", trace, re.MULTILINE)
            names = [name for name in re.findall(r"\w+", trace) if name in _known_exceptions()]
            return condition[1] if condition else names[-1] if names else "an exception"
    return None


@cache
def _known_exceptions() -> frozenset[str]:
    import builtins

    import great_expectations.exceptions as gx_exceptions
    import pandas as pd

    rooms = (builtins, gx_exceptions, pd.errors)
    return frozenset(
        name
        for room in rooms
        for name, value in vars(room).items()
        if isinstance(value, type) and issubclass(value, Exception) and value is not Exception
    )
