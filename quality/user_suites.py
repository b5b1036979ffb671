"""Suites that users add to a table's gate: read from a file, checked, and stored in a folder.

A file is JSON in the form that Great Expectations writes, `{"name", "expectations": [{"type", "kwargs"}]}`,
or Python that makes a `great_expectations.ExpectationSuite`. Python is run once, when the suite is added;
what is kept is JSON.
"""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from quality.expectations import Expectation, Severity

_SQL_TYPE = "unexpected_rows_expectation"
_COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list")
_PROGRAM_FUNCTIONS = {"reflect", "try_reflect", "java_method"}
"""Functions of Spark that call any method of Java: in a suite that is data, they would be code."""
_SEVERITIES: dict[str, Severity] = {"critical": "error", "warning": "warn", "info": "warn"}
"""What Great Expectations' severities are to a gate."""
_SHORTEST_SQL_EXAMPLE = "SELECT * FROM {batch} WHERE char_count < 10"


class BadSuite(ValueError):
    """A user's suite can not be added or found; the message says why."""


class UserSuite(BaseModel, frozen=True):
    """A suite that a user added.

    Attributes:
        name: The suite's name: letters, digits and `_`, unique among the added suites.
        table: The table whose gate runs the suite.
        expectations: The expectations, at least one; their names begin with the suite's name.
    """

    name: str
    table: str
    expectations: tuple[Expectation, ...]

    @property
    def needs_spark(self) -> bool:
        """True if only Great Expectations' Spark engine can evaluate the suite, because it contains SQL."""
        return any(
            each.type == _SQL_TYPE or each.kwargs.get("condition_parser") == "spark"
            for each in self.expectations
        )

    @property
    def needs_pandas(self) -> bool:
        """True if only Great Expectations' pandas engine can evaluate the suite, for a pandas condition."""
        return any(each.kwargs.get("condition_parser") == "pandas" for each in self.expectations)

    def columns(self, of_table: Collection[str]) -> list[str]:
        """Returns the columns of its table that the suite validates."""
        if any("row_condition" in each.kwargs for each in self.expectations):
            return list(of_table)
        named = {column for each in self.expectations for column in _columns_in(each.kwargs)}
        return [column for column in of_table if column in named]


def suites_digest(suites: Collection[UserSuite]) -> str:
    """Returns a digest of suites and their expectations; empty for no suites."""
    if not suites:
        return ""
    texts = sorted(each.model_dump_json() for each in suites)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def read_user_suite(
    file: Path, table: str, columns: Collection[str], severity: Severity | None = None
) -> UserSuite:
    """Returns the suite in a file; a Python file is executed.

    Args:
        file: The JSON or Python file.
        table: The table whose gate will run the suite.
        columns: The columns of the table.
        severity: The severity of all expectations; if None, each has the severity that the file gives it.

    Raises:
        BadSuite: The file is not a suite, or the suite does not fit the table.
    """
    if not file.is_file():
        raise BadSuite(f"there is no file {file}")
    if file.suffix == ".py":
        written = _suite_of_python(file)
    elif file.suffix == ".json":
        written = _suite_of_json(file)
    else:
        raise BadSuite(f"{file} must end in .json or .py")
    name = re.sub(r"\W+", "_", str(written.get("name") or ""), flags=re.ASCII).strip("_")
    if not name:
        raise BadSuite(f'{file}: the suite needs a "name"')
    rows = written.get("expectations")
    if not isinstance(rows, list) or not rows:
        raise BadSuite(
            f'{file}: "expectations" must be a list that is not empty: an empty suite always passes'
        )
    found: dict[str, Expectation] = {}
    for number, row in enumerate(rows, 1):
        where = f"{file}, expectation {number}"
        if not isinstance(row, dict) or not isinstance(row.get("type"), str):
            raise BadSuite(f'{where}: expected an object with "type" and "kwargs"')
        expectation = _expectation(row, name, found, where, severity)
        _check_columns(expectation, table, columns, where)
        found[expectation.name] = expectation
    return UserSuite(name=name, table=table, expectations=tuple(found.values()))


def _reason(row: Mapping[str, Any], suite: str) -> str:
    """Returns what the suite says of an expectation, as sentences; its notes may be several."""
    said = row.get("description") or row.get("notes") or f"Of the suite {suite}"
    parts = [str(each).strip() for each in (said if isinstance(said, list) else [said])]
    return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in parts)


def _suite_of_json(file: Path) -> dict[str, Any]:
    try:
        written = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadSuite(f"{file} is not JSON: {error}") from error
    if not isinstance(written, dict):
        raise BadSuite(f'{file}: expected an object with "name" and "expectations"')
    return written


def _suite_of_python(file: Path) -> dict[str, Any]:
    import runpy

    from quality.gx import ephemeral_gx_context, import_great_expectations

    suite_class = import_great_expectations().ExpectationSuite
    ephemeral_gx_context()  # a suite can not be made without one
    try:
        made = runpy.run_path(str(file), run_name="headwater_suite")
        suites = {id(value): value for value in made.values() if isinstance(value, suite_class)}
        if not suites and callable(function := made.get("suite")):
            suites = {0: function()}
    except Exception as error:
        raise BadSuite(f"{file} failed: {type(error).__name__}: {error}") from error
    if len(suites) != 1 or not all(isinstance(value, suite_class) for value in suites.values()):
        raise BadSuite(
            f"{file} must have one variable that is a great_expectations.ExpectationSuite, or a function "
            f"suite() that returns one; it has {len(suites)}"
        )
    written: dict[str, Any] = next(iter(suites.values())).to_json_dict()
    return written


def _expectation(
    row: Mapping[str, Any],
    suite: str,
    others: Collection[str],
    where: str,
    severity: Severity | None,
) -> Expectation:
    from great_expectations.exceptions import ExpectationNotFoundError

    from quality.gx import gx_expectation, import_great_expectations

    import_great_expectations()
    kwargs = row.get("kwargs", {})
    if not isinstance(kwargs, dict):
        raise BadSuite(f'{where}: "kwargs" must be an object')
    kwargs = {name: value for name, value in kwargs.items() if name != "batch_id" and value is not None}
    if "$PARAMETER" in json.dumps(kwargs, default=str):
        raise BadSuite(f"{where}: a suite parameter ($PARAMETER) has no value here; write the value itself")
    written = row.get("severity") or "critical"
    if written not in _SEVERITIES:
        raise BadSuite(f"{where}: severity {written!r} is none of {', '.join(_SEVERITIES)}")
    severity = severity or _SEVERITIES[written]
    short = re.sub(r"^expect_|_expectation$", "", row["type"])
    parts = [suite, short, *_columns_in(kwargs)]
    name = base = "__".join(re.sub(r"\W+", "_", part, flags=re.ASCII) for part in parts)
    number = 1
    while name in others:
        number += 1
        name = f"{base}__{number}"
    expectation = Expectation(name, row["type"], kwargs, _reason(row, suite), severity)
    try:
        gx_expectation(expectation)
    except ExpectationNotFoundError as error:
        from great_expectations.expectations.registry import list_registered_expectation_implementations

        known = list_registered_expectation_implementations()
        likely = difflib.get_close_matches(row["type"], known, 1)
        hint = f"; did you mean {likely[0]}?" if likely else ""
        raise BadSuite(f"{where}: Great Expectations has no {row['type']}{hint}") from error
    except Exception as error:  # pydantic's of another major version, or of an argument's own type
        faults = "; ".join(str(error).splitlines()[1:]) or str(error)
        raise BadSuite(f"{where}: {row['type']}: {' '.join(faults.split())}") from error
    if row["type"] == _SQL_TYPE:
        _check_sql(kwargs["unexpected_rows_query"], where)
    return expectation


def _columns_in(kwargs: Mapping[str, Any]) -> list[str]:
    named = [kwargs[argument] for argument in _COLUMN_ARGUMENTS if argument in kwargs]
    return [str(column) for each in named for column in (each if isinstance(each, list) else [each])]


def _check_columns(expectation: Expectation, table: str, columns: Collection[str], where: str) -> None:
    for column in _columns_in(expectation.kwargs):
        if column not in columns:
            likely = difflib.get_close_matches(column, list(columns), 1)
            hint = f"; did you mean {likely[0]}?" if likely else f"; it has {', '.join(columns)}"
            raise BadSuite(f"{where}: {table} has no column {column!r}{hint}")


def _check_sql(query: str, where: str) -> None:
    import sqlglot

    if "{batch}" not in query:
        raise BadSuite(
            f"{where}: the query must read the table as {{batch}}, such as {_SHORTEST_SQL_EXAMPLE!r}"
        )
    try:
        statements = sqlglot.parse(query.format(batch="batch"), read="spark")
    except (sqlglot.errors.SqlglotError, KeyError, IndexError, ValueError) as error:
        raise BadSuite(f"{where}: not a query in Spark's SQL: {error}") from error
    if len(statements) != 1 or not isinstance(statements[0], sqlglot.exp.Query):
        raise BadSuite(f"{where}: unexpected_rows_query must be one SELECT")
    own = {"batch", *(each.alias.lower() for each in statements[0].find_all(sqlglot.exp.CTE))}
    for table in statements[0].find_all(sqlglot.exp.Table):
        if table.db or table.name.lower() not in own:  # to Spark, text.`/etc/passwd` is a table too
            raise BadSuite(f"{where}: the query reads {table.sql('spark')}; it may read {{batch}} alone")
    calls = {each.name.lower() for each in statements[0].find_all(sqlglot.exp.Anonymous)}
    if statements[0].find(sqlglot.exp.QueryTransform) or calls & _PROGRAM_FUNCTIONS:
        raise BadSuite(
            f"{where}: the query runs a program (TRANSFORM, reflect or java_method): leave that out"
        )


class UserSuites:
    """The suites that users added, a JSON file each in one folder."""

    def __init__(self, folder: Path) -> None:
        """Takes the folder, which the first suite makes."""
        self._folder = folder

    def list(self) -> list[UserSuite]:
        """Returns the suites, sorted by name.

        Raises:
            BadSuite: A file in the folder is not a suite. No gate may open without all suites that were added
                to it.
        """
        return [self._read(file) for file in sorted(self._folder.glob("*.json"))]

    def add(self, suite: UserSuite) -> None:
        """Stores a suite.

        Raises:
            BadSuite: There is a suite with that name.
        """
        file = self._file(suite.name)
        if file.exists():
            raise BadSuite(
                f"there is a suite {suite.name} already: `headwater gates remove {suite.name}`, "
                "or give this one another name"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}.unfinished")
        unfinished.write_text(suite.model_dump_json(indent=2) + "\n", encoding="utf-8")
        unfinished.replace(file)

    def remove(self, name: str) -> UserSuite:
        """Removes a suite and returns it.

        Raises:
            BadSuite: There is no suite with that name.
        """
        there = {each.name: each for each in self.list()}
        if name not in there:
            raise BadSuite(f"there is no suite {name!r}; those added are: {', '.join(there) or 'none'}")
        self._file(name).unlink()
        return there[name]

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    @staticmethod
    def _read(file: Path) -> UserSuite:
        try:
            return UserSuite.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise BadSuite(f"{file} is not a suite of `headwater gates add`: {error}") from error
