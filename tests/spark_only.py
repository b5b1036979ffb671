"""Makes every asset do its work in Spark, even if it is small."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from assets import gold, silver
from assets.dagster import gates
from assets.engine import step
from assets.sources import source_reader

LIMITS = (
    (step, "DRIVER_BYTES"),
    *((silver, name) for name in ("WORK_BYTES", "DRIVER_DOCUMENT_CAP", "DRIVER_LAKE_CAP")),
    *((gold, name) for name in ("WORK_BYTES", "_FEW_TEXTS")),
    *((source_reader, name) for name in ("_FEW_FILES", "_FEW_BYTES")),
    *((gates, name) for name in ("DRIVER_GATE_BYTES", "DRIVER_USER_SUITE_BYTES")),
)


@contextmanager
def spark_only() -> Iterator[None]:
    """Sets the limits of what assets do without Spark to -1 inside a `with` block."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in LIMITS:
            patch.setattr(module, name, -1)
        yield
