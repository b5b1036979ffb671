import re
import subprocess
import sys
from string import Formatter

import duckdb
import pytest

from assets.dagster.conservation import Conservation
from assets.lake.tables import TABLES
from assets.text.signals import QUALITY_SIGNALS
from quality.checked_rows import failing_rows_in_duckdb
from quality.expectations import Expectation, expect_condition, expect_row_count
from quality.gate import ExpectationResult, gate_verdict
from quality.gx import gx_expectation
from quality.suites import SUITES, Suite

EXPECTATIONS = [(suite, each) for suite in SUITES.values() for each in suite.expectations]


def results_of(suite: Suite, failing: set[str]) -> list[ExpectationResult]:
    return [
        ExpectationResult(each.name, each.name not in failing, each.severity) for each in suite.expectations
    ]


def test_every_gated_table_has_a_suite() -> None:
    assert set(SUITES) == {table.name for table in TABLES.values() if table.gated}


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_every_suite_has_a_row_count_and_a_null_gate_for_what_it_relies_on(suite: Suite) -> None:
    names = {each.name for each in suite.expectations}
    (count,) = [each for each in suite.expectations if each.name == "row_count"]
    assert count.kwargs["min_value"] == 1
    required = {field.name for field in TABLES[suite.table].schema if not field.nullable}
    ungated = required - set(QUALITY_SIGNALS) - {"OpenLineage_RunId"}
    assert {f"{column}_not_null" for column in ungated} <= names


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_names_are_unique_and_dagsters(suite: Suite) -> None:
    names = [each.name for each in suite.expectations]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", name) for name in names)


@pytest.mark.parametrize(
    ("suite", "expectation"), EXPECTATIONS, ids=[f"{s.table}-{e.name}" for s, e in EXPECTATIONS]
)
def test_every_expectation_is_great_expectations_own_and_says_why(
    suite: Suite, expectation: Expectation
) -> None:
    assert gx_expectation(expectation).expectation_type == expectation.type
    assert expectation.why.endswith(".")
    assert (
        expectation.kwargs.keys() - {"column", "column_list"}
        or "null" in expectation.type
        or ("unique" in expectation.type)
    )
    formats = [Formatter().parse(sql) for sql in expectation.columns.values()]
    assert {name for each in formats for _, name, _, _ in each if name} <= set(suite.parameters)


def test_every_quality_signal_has_a_range() -> None:
    (ranges,) = [e for e in SUITES["silver.documents"].expectations if e.name == "signals_in_range"]
    assert set(re.findall(r"[a-z_0-9]+", ranges.columns["signals_in_range"])) >= set(QUALITY_SIGNALS)


def test_suites_load_without_anything_slow() -> None:
    script = (
        "import sys, quality.suites, quality.gate;"
        "slow = ('pyspark', 'great_expectations', 'pandas', 'numpy', 'sqlglot');"
        "sys.exit(any(name in sys.modules for name in slow))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_an_expectation_in_words() -> None:
    assert expect_row_count().in_words == "expect_table_row_count_to_be_between(min_value=1)"
    assert expect_condition("ok", "a = b", "why.").in_words == (
        'expect_column_values_to_be_in_set(column="ok", value_set=[true])'
    )


def test_a_gate_opens_when_no_error_failed() -> None:
    suite = SUITES["silver.documents"]
    assert gate_verdict(suite.expectations, results_of(suite, set())).passed
    warned = gate_verdict(suite.expectations, results_of(suite, {"pages_in_order"}))
    assert (warned.passed, warned.failed) == (True, ("pages_in_order",))
    closed = gate_verdict(suite.expectations, results_of(suite, {"pages_in_order", "text_not_null"}))
    assert not closed.passed
    assert set(closed.failed) == {"pages_in_order", "text_not_null"}


def test_a_gate_stays_closed_without_results_or_expectations() -> None:
    suite = SUITES["gold.chunks"]
    assert not gate_verdict(suite.expectations, []).passed
    assert gate_verdict(suite.expectations, results_of(suite, set())[1:]).failed == ("row_count",)
    assert not gate_verdict((), []).passed


def test_conservation_holds_only_without_faults() -> None:
    even = Conservation(raw=10, kept=6, duplicates=3, quarantined=1)
    assert even.holds
    assert str(even) == "10 raw = 6 kept + 3 duplicates + 1 quarantined"
    assert not Conservation(raw=10, kept=6, duplicates=3, quarantined=0).holds
    # One lost and one kept twice: the sum comes out even.
    cancelled = Conservation(raw=10, kept=6, duplicates=3, quarantined=1, lost=1, doubled=1)
    assert not cancelled.holds
    assert "1 lost; 1 both kept and quarantined" in str(cancelled)


def test_documents_that_fail_a_check_are_counted_and_named() -> None:
    suite = SUITES["silver.documents"]
    checks = {each.name: each for each in suite.expectations}
    with duckdb.connect() as connection:
        connection.execute(
            """
            create table documents as select 'file:///' || n as uri, n / 10 as text_coverage,
                case when n = 3 then [struct_pack(char_start := 1, title := 'x')] end as headings,
                'text' as text
            from range(10) as t(n)
            """
        )

        def failing(name: str, limit: int = 2) -> tuple[int, list[str]] | None:
            return failing_rows_in_duckdb(connection, suite, checks[name], "uri", limit)

        assert failing("text_arrived") == (9, ["file:///0", "file:///1"])
        assert failing("headings_are_spans") == (1, ["file:///3"])
        assert failing("uri_not_null") == (0, [])
        assert failing("row_count") is None
