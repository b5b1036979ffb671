"""A gate's verdict, from the results of its expectations."""

from collections.abc import Collection
from dataclasses import dataclass

from quality.expectations import Expectation, Severity


@dataclass(frozen=True)
class ExpectationResult:
    """The result of one expectation.

    Attributes:
        name: The expectation's name.
        passed: Whether the table meets it.
        severity: What it means when it does not.
        observed: The number of rows that do not meet it, or what it counted; never a value from a row. None
            where there is no such number.
        error: What kept it from being evaluated, without any value; None where it was.
    """

    name: str
    passed: bool
    severity: Severity
    observed: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class GateVerdict:
    """Whether a version of a table may be read by what comes after.

    Attributes:
        passed: No expectation of severity `error` failed, and each had a result.
        failed: The names of those that failed or had no result, warnings among them.
    """

    passed: bool
    failed: tuple[str, ...]


def gate_verdict(
    expectations: Collection[Expectation], results: Collection[ExpectationResult]
) -> GateVerdict:
    """Judges a table by its expectations' results; an expectation without a result has failed."""
    met = {result.name for result in results if result.passed}
    failed = [expectation for expectation in expectations if expectation.name not in met]
    return GateVerdict(
        passed=bool(expectations) and all(expectation.severity == "warn" for expectation in failed),
        failed=tuple(expectation.name for expectation in failed),
    )
