"""Expectations of tables, as data in Great Expectations' terms: the type, the arguments, and the reason.

Great Expectations lets an empty table, an empty suite, NULL against a pattern and NaN against not-null pass.
So every suite has `row_count`, every column that must have a value has `not_null`, and a condition that is
NULL for a row counts as false.

Dagster imports this module each time it loads the definitions, so it imports nothing that is slow to load.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warn"]


@dataclass(frozen=True)
class Expectation:
    """One expectation of a suite.

    Attributes:
        name: The check's name, unique among the checks of its table.
        type: Great Expectations' name of the expectation, such as `expect_column_values_to_not_be_null`.
        kwargs: The arguments of Great Expectations' expectation.
        why: The consequence of a failure, which the check shows.
        severity: `error` closes the gate; `warn` is only shown.
        columns: The SQL of each column that the expectation validates, over the suite's rows; empty if it
            validates columns of the table itself.
    """

    name: str
    type: str
    kwargs: Mapping[str, Any]
    why: str
    severity: Severity = "error"
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def in_words(self) -> str:
        """The type and its arguments, such as `expect_table_row_count_to_be_between(min_value=1)`."""
        arguments = (f"{name}={json.dumps(value, default=str)}" for name, value in self.kwargs.items())
        return f"{self.type}({', '.join(arguments)})"


def expect_row_count() -> Expectation:
    """Returns the expectation of at least one row, because most other expectations hold for no rows."""
    return Expectation(
        "row_count",
        "expect_table_row_count_to_be_between",
        {"min_value": 1},
        "An empty table passes every other expectation.",
    )


def expect_not_null(*columns: str) -> tuple[Expectation, ...]:
    """Returns one expectation per column that it has no NULL.

    Values may be long texts, so the validated column holds only whether there is a value.
    """
    return tuple(
        Expectation(
            f"{column}_not_null",
            "expect_column_values_to_not_be_null",
            {"column": column},
            f"A row without {column} can not be used, and NULL passes most other expectations.",
            columns={column: f"CASE WHEN {column} IS NOT NULL THEN true END"},
        )
        for column in columns
    )


def expect_unique(name: str, *columns: str) -> Expectation:
    """Returns the expectation that no two rows have the same values; rows with a NULL are ignored."""
    one = len(columns) == 1
    return Expectation(
        name,
        "expect_column_values_to_be_unique" if one else "expect_compound_columns_to_be_unique",
        {"column": columns[0]} if one else {"column_list": list(columns)},
        f"Two rows with one {' and '.join(columns)} make every MERGE and join on it ambiguous.",
        columns={column: column for column in columns},
    )


def expect_condition(
    name: str, sql: str, why: str, *, among: str | None = None, severity: Severity = "error"
) -> Expectation:
    """Returns the expectation that a condition is true for every row; NULL is not true.

    Args:
        name: The check's name, and the name of the boolean column with the condition's value.
        sql: The condition.
        why: The consequence of a failure.
        among: An SQL condition for the rows that are checked; all rows unless given.
        severity: Whether a failure closes the gate.
    """
    column = f"coalesce({sql}, false)"
    return Expectation(
        name,
        "expect_column_values_to_be_in_set",
        {"column": name, "value_set": [True]},
        why,
        severity,
        # Great Expectations leaves out rows where the column is NULL.
        {name: f"CASE WHEN {among} THEN {column} END" if among else column},
    )


def expect_of_column(
    name: str,
    type_: str,
    column: str,
    why: str,
    *,
    sql: str | None = None,
    severity: Severity = "error",
    **kwargs: float | str,
) -> Expectation:
    """Returns an expectation of one column's values.

    Args:
        name: The check's name.
        type_: Great Expectations' name of the expectation.
        column: The column.
        why: The consequence of a failure.
        sql: The SQL of the column, if it is not a column of the suite's rows.
        severity: Whether a failure closes the gate.
        **kwargs: The expectation's other arguments.
    """
    return Expectation(name, type_, {"column": column, **kwargs}, why, severity, {column: sql or column})
