"""Suites that users write: what is taken, what is refused, and what each refusal says."""

import json
from pathlib import Path
from typing import Any

import pytest

from assets.lake.tables import DOCUMENTS
from quality.user_suites import BadSuite, UserSuite, UserSuites, read_user_suite, suites_digest

COLUMNS = DOCUMENTS.schema.names
LENGTHS: dict[str, Any] = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "char_count", "min_value": 10},
}


def suite_file(folder: Path, *expectations: Any, name: str = "house rules") -> Path:
    file = folder / "suite.json"
    file.write_text(json.dumps({"name": name, "expectations": list(expectations)}))
    return file


def read(file: Path, **options: Any) -> UserSuite:
    return read_user_suite(file, DOCUMENTS.name, COLUMNS, **options)


def test_a_suite_as_great_expectations_writes_it_is_read(tmp_path: Path) -> None:
    warning = LENGTHS | {"severity": "warning", "id": "6216abde", "meta": {"by": "me"}}
    rows = {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 2}, "description": "Two."}
    suite = read(suite_file(tmp_path, LENGTHS, warning, rows))
    assert suite.name == "house_rules"
    assert [(each.name, each.severity) for each in suite.expectations] == [
        ("house_rules__column_values_to_be_between__char_count", "error"),
        ("house_rules__column_values_to_be_between__char_count__2", "warn"),
        ("house_rules__table_row_count_to_be_between", "error"),
    ]
    assert suite.expectations[2].why == "Two."
    assert suite.columns(COLUMNS) == ["char_count"]
    assert not suite.needs_spark
    overridden = read(suite_file(tmp_path, LENGTHS, warning), severity="warn")
    assert {each.severity for each in overridden.expectations} == {"warn"}


def test_a_query_may_name_its_table_more_than_once(tmp_path: Path) -> None:
    sql = "WITH Twice AS (SELECT uri FROM {batch} GROUP BY 1 HAVING count(*) > 1) SELECT * FROM twice"
    joined = "SELECT a.* FROM {batch} a JOIN {batch} b ON a.uri = b.uri LATERAL VIEW explode(a.headings) AS h"
    assert len(read(suite_file(tmp_path, query(sql), query(joined))).expectations) == 2


def test_a_severity_that_great_expectations_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSuite, match="severity 'error' is none of critical, warning, info"):
        read(suite_file(tmp_path, LENGTHS | {"severity": "error"}))
    assert read(suite_file(tmp_path, LENGTHS | {"severity": None})).expectations[0].severity == "error"


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ({}, "Of the suite house_rules."),
        ({"notes": "URIs are files"}, "URIs are files."),
        ({"notes": ["Short pages", "Are they menus?"]}, "Short pages. Are they menus?"),
    ],
)
def test_what_a_suite_says_of_an_expectation_is_sentences(
    tmp_path: Path, written: dict[str, Any], why: str
) -> None:
    assert read(suite_file(tmp_path, LENGTHS | written)).expectations[0].why == why


def test_a_query_needs_spark_and_a_condition_needs_every_column(tmp_path: Path) -> None:
    assert read(suite_file(tmp_path, query("SELECT * FROM {batch} WHERE char_count < 10"))).needs_spark
    conditional = {
        **LENGTHS,
        "kwargs": LENGTHS["kwargs"] | {"row_condition": 'language == "en"', "condition_parser": "pandas"},
    }
    suite = read(suite_file(tmp_path, conditional))
    assert suite.columns(COLUMNS) == COLUMNS
    assert not suite.needs_spark


PYTHON = """
import great_expectations as gx
rule = gx.expectations.ExpectColumnValuesToNotBeNull(column="title", severity="warning")
"""


@pytest.mark.parametrize(
    "made",
    [
        "house = gx.ExpectationSuite(name='house', expectations=[rule])\nsame = house",
        "def suite():\n    return gx.ExpectationSuite(name='house', expectations=[rule])",
    ],
)
def test_python_is_run_and_kept_as_data(tmp_path: Path, made: str) -> None:
    file = tmp_path / "house.py"
    file.write_text(PYTHON + made)
    suite = read(file)
    assert [(each.name, each.severity) for each in suite.expectations] == [
        ("house__column_values_to_not_be_null__title", "warn")
    ]
    UserSuites(tmp_path / "kept").add(suite)
    file.unlink()
    assert UserSuites(tmp_path / "kept").list() == [suite]


def of_column(column: str) -> dict[str, Any]:
    return LENGTHS | {"kwargs": {"column": column, "min_value": 1}}


def query(sql: str) -> dict[str, Any]:
    return {"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": sql}}


@pytest.mark.parametrize(
    ("expectation", "message"),
    [
        (LENGTHS | {"type": "expect_column_values_to_be_betwen"}, "did you mean expect_column_values_to_be_"),
        (of_column("char_cuont"), "no column 'char_cuont'; did you mean char_count"),
        (of_column("zzzz"), "no column 'zzzz'; it has doc_id, tenant"),
        (LENGTHS | {"kwargs": {"colunm": "text"}}, "expectation 1: expect_column_values_to_be_between"),
        (LENGTHS | {"kwargs": {"column": "text", "min_value": {"$PARAMETER": "x"}}}, "suite parameter"),
        (LENGTHS | {"kwargs": []}, '"kwargs" must be an object'),
        ({"kwargs": {}}, 'expected an object with "type"'),
        ("x", 'expected an object with "type"'),
        (query("SELECT 1"), r"\{batch\}"),
        (query("DROP TABLE {batch}"), "must be one SELECT"),
        (query("SELECT * FROM {batch} JOIN text.`/etc/passwd`"), r"reads text.`/etc/passwd`; it may read"),
        (query("SELECT * FROM {batch} UNION SELECT * FROM silver_documents"), "reads silver_documents"),
        (query("SELECT * FROM {batch} WHERE reflect('java.lang.System', 'exit', 1) = ''"), "runs a program"),
        (query("SELECT TRANSFORM(doc_id) USING 'cat' AS (x) FROM {batch}"), "runs a program"),
        (query("SELECT * FROM {batch}; DELETE FROM {batch}"), "must be one SELECT"),
        (query("SELEC * {batch} ("), "not a query in Spark's SQL"),
    ],
)
def test_what_can_not_be_validated_is_refused(tmp_path: Path, expectation: Any, message: str) -> None:
    with pytest.raises(BadSuite, match=message):
        read(suite_file(tmp_path, expectation))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.json", "\ud800", "is not JSON"),
        ("a.json", "[]", 'expected an object with "name"'),
        ("a.json", '{"name": "a", "expectations": []}', "an empty suite always passes"),
        ("a.json", '{"name": "../..", "expectations": [{}]}', 'needs a "name"'),
        ("a.yaml", "name: a", "must end in .json or .py"),
        ("a.py", "raise SystemError('no')", "failed: SystemError: no"),
        ("a.py", "x = (", "failed: SyntaxError"),
        ("a.py", "x = 1", "it has 0"),
        ("a.py", "def suite():\n    return 1", "must have one variable"),
    ],
)
def test_a_file_that_is_no_suite_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(BadSuite, match=message):
        read(tmp_path / name)
    with pytest.raises(BadSuite, match="there is no file"):
        read(tmp_path / "absent.json")


def test_added_suites_are_kept_listed_and_removed(tmp_path: Path) -> None:
    kept = UserSuites(tmp_path / "gates")
    assert kept.list() == []
    suite = read(suite_file(tmp_path, LENGTHS))
    kept.add(suite)
    assert kept.list() == [suite]
    with pytest.raises(BadSuite, match="there is a suite house_rules already"):
        kept.add(suite)
    with pytest.raises(BadSuite, match="no suite 'other'; those added are: house_rules"):
        kept.remove("other")
    assert kept.remove("house_rules") == suite
    assert kept.list() == []
    (tmp_path / "gates" / "broken.json").write_text("{}")
    with pytest.raises(BadSuite, match=r"broken\.json is not a suite"):
        kept.list()


def test_a_digest_is_of_what_is_expected(tmp_path: Path) -> None:
    one, other = read(suite_file(tmp_path, LENGTHS)), read(suite_file(tmp_path, LENGTHS, name="other"))
    assert suites_digest([]) == ""
    assert suites_digest([one, other]) == suites_digest([other, one])
    assert len({suites_digest([one]), suites_digest([other]), suites_digest([one, other])}) == 3
