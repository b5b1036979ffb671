"""Appends rows to a table of the lake as an asset does."""

import pyarrow as pa

from assets.columns import Table
from assets.lake.lake import Lake
from common.lineage import Lineage


def write(lake: Lake, table: Table, rows: list[dict], **inputs: int) -> int:
    """Appends rows and returns the version. In the names of inputs, `__` stands for the dot."""
    lineage = Lineage(
        run_id="run",
        asset=table.name.replace(".", "/"),
        code_version="test",
        config_digest="",
        inputs={name.replace("__", "."): version for name, version in inputs.items()},
    )
    return lake.append(table, pa.Table.from_pylist(rows, table.schema), lineage)
