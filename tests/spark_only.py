"""Makes every asset do its work in Spark, even if it is small."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from assets.dagster import gates
from assets.engine import limits
from assets.sources import source_reader


def nothing_fits(*_: object) -> bool:
    return False


LIMITS = (
    (limits.LocalLimits, "fit", nothing_fits),
    *((source_reader, name, -1) for name in ("_FEW_FILES", "_FEW_BYTES")),
    *((gates, name, -1) for name in ("DRIVER_GATE_BYTES", "DRIVER_USER_SUITE_BYTES")),
)


@contextmanager
def spark_only() -> Iterator[None]:
    """Sets the limits of what assets do without Spark to -1 inside a `with` block."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, value in LIMITS:
            patch.setattr(owner, name, value)
        yield
