import re
import subprocess
import sys
from string import Formatter

import pytest

from assets.lake.tables import TABLES
from assets.text.signals import SIGNALS
from quality.gate import Conservation, ExpectationResult, verdict
from quality.suites import SUITES, Expectation, Suite, bounds

EXPECTATIONS = [(suite, each) for suite in SUITES.values() for each in suite.expectations]


def results_of(suite: Suite, failing: set[str]) -> list[ExpectationResult]:
    return [
        ExpectationResult(each.name, each.name not in failing, each.severity, 0.0, each.why)
        for each in suite.expectations
    ]


def test_every_gated_table_has_a_suite() -> None:
    assert set(SUITES) == {table.name for table in TABLES.values() if table.gated}


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_every_suite_has_a_row_count_and_a_null_gate_for_what_it_relies_on(suite: Suite) -> None:
    names = {each.name for each in suite.expectations}
    (count,) = [each for each in suite.expectations if each.name == "row_count"]
    assert count.at_least == 1
    required = {field.name for field in TABLES[suite.table].schema if not field.nullable}
    ungated = required - set(SIGNALS) - {"OpenLineage_RunId"}
    assert {f"{column}_not_null" for column in ungated} <= names


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_names_are_unique_and_dagsters(suite: Suite) -> None:
    names = [each.name for each in suite.expectations]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", name) for name in names)


@pytest.mark.parametrize(
    ("suite", "expectation"), EXPECTATIONS, ids=[f"{s.table}-{e.name}" for s, e in EXPECTATIONS]
)
def test_every_expectation_is_bounded_and_says_why(suite: Suite, expectation: Expectation) -> None:
    assert expectation.at_least is not None or expectation.at_most is not None
    assert expectation.why.endswith(".")
    parameters = {name for _, name, _, _ in Formatter().parse(expectation.measure) if name}
    assert parameters <= set(suite.parameters)


def test_every_quality_signal_has_a_range() -> None:
    (ranges,) = [e for e in SUITES["silver.documents"].expectations if e.name == "signals_in_range"]
    assert set(re.findall(r"[a-z_0-9]+", ranges.measure)) >= set(SIGNALS)


def test_suites_load_without_anything_slow() -> None:
    script = (
        "import sys, quality.suites, quality.gate;"
        "sys.exit(any(n in sys.modules for n in ('pyspark', 'great_expectations', 'pandas', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_bounds_in_words() -> None:
    assert bounds(Expectation("x", "count(*)", "why.", at_least=1)) == "at least 1"
    assert (
        bounds(Expectation("x", "count(*)", "why.", at_least=0, at_most=0.02))
        == "at least 0 and at most 0.02"
    )


def test_a_gate_opens_when_no_error_failed() -> None:
    suite = SUITES["silver.documents"]
    assert verdict(suite, results_of(suite, set())).passed
    warned = verdict(suite, results_of(suite, {"pages_in_order"}))
    assert (warned.passed, warned.failed) == (True, ("pages_in_order",))
    closed = verdict(suite, results_of(suite, {"pages_in_order", "text_not_null"}))
    assert not closed.passed
    assert set(closed.failed) == {"pages_in_order", "text_not_null"}


def test_a_gate_stays_closed_without_results_or_expectations() -> None:
    suite = SUITES["gold.chunks"]
    assert not verdict(suite, []).passed
    assert verdict(suite, results_of(suite, set())[1:]).failed == ("row_count",)
    assert not verdict(Suite("x.y", "SELECT 1", ()), []).passed


def test_conservation_holds_only_without_faults() -> None:
    even = Conservation(raw=10, kept=6, duplicates=3, quarantined=1)
    assert even.holds
    assert str(even) == "10 raw = 6 kept + 3 duplicates + 1 quarantined"
    assert not Conservation(raw=10, kept=6, duplicates=3, quarantined=0).holds
    # One lost and one kept twice: the sum comes out even.
    cancelled = Conservation(raw=10, kept=6, duplicates=3, quarantined=1, lost=1, doubled=1)
    assert not cancelled.holds
    assert "1 lost; 1 both kept and quarantined" in str(cancelled)
