"""Runs a suite with Great Expectations over one row of measures.

Great Expectations on a Spark frame starts a job or more for every metric of every expectation, and its richer
result formats print the failing values. Here DuckDB, or Spark where the tables are too large for one process,
computes all of a suite's measures in one query, and Great Expectations validates that one row of counts:
there is nothing personal in what it sees, says or renders.
"""

import logging
import math
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import duckdb
from pyspark.sql import DataFrame

from quality.gate import ExpectationResult
from quality.suites import SQUARES, Suite, bounds

Parameters = Mapping[str, str | int | float]
Tables: TypeAlias = Mapping[str, DataFrame] | duckdb.DuckDBPyConnection
"""Frames by table name, or a connection that has each table under the part of its name after the dot."""

_MACROS = (
    "regexp_like(string, pattern) AS regexp_matches(string, pattern)",
    "sha2(string, bits) AS sha256(string)",
    "size(list) AS len(list)",
)
"""Spark's names for functions that DuckDB has."""
_IN_DUCKDB = {
    # Spark's literals double a backslash.
    r"\\": "\\",
    SQUARES: "list_reduce([CAST(0 AS DOUBLE)] || list_transform(vector, x -> CAST(x AS DOUBLE) ** 2), "
    "(total, x) -> total + x)",
}
"""What DuckDB says otherwise."""


class Unmeasured(RuntimeError):
    """A measure gave no number: the suite is wrong, and a table it guards must not pass."""


def measure(tables: Tables, suite: Suite, parameters: Parameters) -> dict[str, float]:
    """Computes every measure of a suite in one pass over its tables.

    Args:
        tables: The suite's table and those it reads.
        suite: What is measured.
        parameters: A value for each of the suite's parameters.

    Returns:
        One number an expectation, by its name.

    Raises:
        KeyError: When a table or a parameter of the suite is not given.
        Unmeasured: When a measure is NULL or NaN, which Great Expectations would let pass.
    """
    measures = ", ".join(f"CAST({each.measure} AS DOUBLE) AS {each.name}" for each in suite.expectations)
    query = f"SELECT {measures} FROM ({suite.rows})"
    values = {name: parameters[name] for name in suite.parameters}
    if isinstance(tables, duckdb.DuckDBPyConnection):
        measured = _by_duckdb(tables, suite, query, values)
    else:
        measured = _by_spark(tables, suite, query, values)
    for each in suite.expectations:
        value = measured.get(each.name)
        if value is None or math.isnan(value):
            raise Unmeasured(f"{suite.table}: {each.name} measured {value}: {each.measure}")
    return measured


def _by_spark(
    frames: Mapping[str, DataFrame], suite: Suite, query: str, values: dict[str, Any]
) -> dict[str, float]:
    # Braces in the SQL take frames by their views and values as quoted literals.
    fills: dict[str, Any] = {name.partition(".")[2]: frames[name] for name in (suite.table, *suite.reads)}
    row = frames[suite.table].sparkSession.sql(query, **fills, **values).first()
    return row.asDict() if row else {}


def _by_duckdb(
    connection: duckdb.DuckDBPyConnection, suite: Suite, query: str, values: dict[str, Any]
) -> dict[str, float]:
    connection.execute("SET lambda_syntax = 'ENABLE_SINGLE_ARROW'")
    for macro in _MACROS:
        connection.execute(f"CREATE OR REPLACE TEMP MACRO {macro}")
    for sparks, own in _IN_DUCKDB.items():
        query = query.replace(sparks, own)
    names = [name.partition(".")[2] for name in (suite.table, *suite.reads)]
    query = query.format(**{name: name for name in names}, **{name: f"${name}" for name in values})
    rows: list[dict[str, float]] = connection.sql(query, params=values).to_arrow_table().to_pylist()
    return rows[0] if rows else {}


def run_suite(
    tables: Tables,
    suite: Suite,
    docs_dir: Path | None = None,
    parameters: Parameters | None = None,
) -> list[ExpectationResult]:
    """Validates a table against its suite.

    Args:
        tables: The suite's table and those it reads.
        suite: What is expected.
        docs_dir: Where to put the table's Data Docs, in a folder of its name; None for none.
        parameters: A value for each of the suite's parameters.

    Returns:
        One result an expectation, in the suite's order.

    Raises:
        KeyError: When a table or a parameter of the suite is not given.
        Unmeasured: When a measure gives no number.
    """
    # Importing it takes seconds of Python, and measuring may take seconds of the JVM: both at once.
    with ThreadPoolExecutor(1) as pool:
        importing = pool.submit(_great_expectations)
        measured = measure(tables, suite, parameters or {})
        gx = importing.result()
    return _validate(gx, measured, suite, docs_dir)


def docs_page(docs_dir: Path, table: str) -> Path:
    """Where a table's Data Docs are: the page of its newest validation."""
    return docs_dir / table / "index.html"


def _great_expectations() -> ModuleType:
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read once, at import
    gx = import_module("great_expectations")
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    return gx


def _validate(
    gx: ModuleType, measured: Mapping[str, float], suite: Suite, docs_dir: Path | None
) -> list[ExpectationResult]:
    import pandas as pd

    types = gx.data_context.types.base
    context = gx.get_context(
        mode="ephemeral",
        # The default configuration has a docs site in a temporary folder that nothing would remove.
        project_config=types.DataContextConfig(
            store_backend_defaults=types.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            progress_bars=types.ProgressBarsConfig(globally=False),
            analytics_enabled=False,
        ),
    )
    batch = (
        context.data_sources.add_pandas("measures")
        .add_dataframe_asset(suite.table)
        .add_batch_definition_whole_dataframe("all")
    )
    expectations = [
        gx.expectations.ExpectColumnMaxToBeBetween(
            column=each.name,
            min_value=each.at_least,
            max_value=each.at_most,
            severity="critical" if each.severity == "error" else "warning",
            description=f"{bounds(each)}. {each.why}",
        )
        for each in suite.expectations
    ]
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(
            name=suite.table,
            data=batch,
            suite=context.suites.add(gx.ExpectationSuite(name=suite.table, expectations=expectations)),
        )
    )
    # Python numbers, for Great Expectations can not render numpy 2's.
    row = pd.DataFrame([{name: _exact(value) for name, value in measured.items()}], dtype=object)
    # BASIC adds the observed value to BOOLEAN_ONLY: here that is a count.
    outcome = definition.run(batch_parameters={"dataframe": row}, result_format="BASIC")
    passed = {each.expectation_config.kwargs["column"]: bool(each.success) for each in outcome.results}
    if docs_dir is not None:
        page = docs_page(docs_dir, suite.table)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(_render(outcome), encoding="utf-8")
    return [
        ExpectationResult(each.name, passed[each.name], each.severity, measured[each.name], each.why)
        for each in suite.expectations
    ]


def _exact(value: float) -> int | float:
    return int(value) if value.is_integer() else value


# Data Docs load their looks and scripts from six hosts on the internet: a page of ours calls nobody.
_REMOTE = re.compile(
    r"<script\b[^>]*\bsrc=[^>]*>\s*</script>|<link\b[^>]*>"
    r"|<img\b[^>]*\bsrc=[\"']https?:[^>]*>|<footer\b.*?</footer>|background:[^;}]*url\([\"']?https?:[^)]*\)[^;}]*;?",
    re.DOTALL | re.IGNORECASE,
)
_STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 1rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .3rem 0 1rem; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top; }
nav, .sticky, .modal, #ge-cta-footer, button { display: none; }
.text-success { color: #0a7d33; } .text-danger { color: #b3261e; }
</style>
</head>"""


def _render(outcome: object) -> str:
    """The Data Docs page of one validation, complete in itself."""
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    page = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(outcome))
    return _REMOTE.sub("", page).replace("</head>", _STYLE, 1)
