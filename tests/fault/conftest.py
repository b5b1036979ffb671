"""Fixtures of the fault tests: state folders, which are made once, and the report."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fault.report import Report
from fault.states import States


@pytest.fixture(scope="session")
def states() -> Iterator[States]:
    """State folders to copy and break; HEADWATER_FAULT_FOLDER names a folder to keep and reuse them."""
    kept = os.environ.get("HEADWATER_FAULT_FOLDER")
    with tempfile.TemporaryDirectory(prefix="headwater-faults-", ignore_cleanup_errors=True) as folder:
        path = Path(kept or folder)
        path.mkdir(parents=True, exist_ok=True)
        made = States(path)
        yield made
        made.sweep()


@pytest.fixture(scope="session")
def report() -> Report:
    return Report()
