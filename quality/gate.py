"""A gate's verdict, from the results of its expectations; and the equation of documents that must hold."""

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


@dataclass(frozen=True)
class Conservation:
    """Where the live documents of `bronze.raw_documents` ended up, as counts of distinct ids.

    Attributes:
        raw: Documents whose newest revision is no tombstone.
        kept: Those that stand in `silver.documents` for themselves.
        duplicates: Those that another one stands for.
        quarantined: Those in `silver.quarantine`.
        lost: Live documents that are in none of the three.
        stray: Rows of the three whose document is not live, and duplicates of a document that is not there.
        doubled: Documents that are both in `silver.documents` and in `silver.quarantine`.
    """

    raw: int
    kept: int
    duplicates: int
    quarantined: int
    lost: int = 0
    stray: int = 0
    doubled: int = 0

    @property
    def holds(self) -> bool:
        """Raw = kept + duplicates + quarantined, and not by two errors that cancel."""
        total = self.kept + self.duplicates + self.quarantined
        return self.raw == total and not (self.lost or self.stray or self.doubled)

    def __str__(self) -> str:
        """The equation, and what breaks it."""
        parts = f"{self.kept} kept + {self.duplicates} duplicates + {self.quarantined} quarantined"
        equation = f"{self.raw} raw = {parts}"
        faults = [
            f"{count} {fault}"
            for count, fault in (
                (self.lost, "lost"),
                (self.stray, "without a live source"),
                (self.doubled, "both kept and quarantined"),
            )
            if count
        ]
        return equation if self.holds else f"does not hold: {'; '.join([equation, *faults])}"
