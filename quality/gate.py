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
        severity: `error` if a failure closes the gate, `warn` if it is only shown.
        observed: The number of rows that do not meet the expectation, or the count that it checks; never a
            value from a row. None if there is no such number.
        error: Why it could not be evaluated, without any value from a row; None if it was evaluated.
    """

    name: str
    passed: bool
    severity: Severity
    observed: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class GateVerdict:
    """A gate's verdict: whether consumers may read a version of a table.

    Attributes:
        passed: True if no expectation of severity `error` failed and every expectation had a result.
        failed: The names of the expectations that failed or had no result, warnings included.
    """

    passed: bool
    failed: tuple[str, ...]


def gate_verdict(
    expectations: Collection[Expectation], results: Collection[ExpectationResult]
) -> GateVerdict:
    """Returns the verdict from expectations' results; an expectation without a result has failed."""
    met = {result.name for result in results if result.passed}
    failed = [expectation for expectation in expectations if expectation.name not in met]
    return GateVerdict(
        passed=bool(expectations) and all(expectation.severity == "warn" for expectation in failed),
        failed=tuple(expectation.name for expectation in failed),
    )
