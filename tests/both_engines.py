"""Relations that DuckDB and Spark both hold: each definition is run by both, and must give the same rows."""

import json
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from assets.engine.local_relations import LocalRelations
from assets.engine.relations import BatchFunction, Relations, StepOutput
from assets.engine.spark_relations import SparkRelations
from assets.lake.lake import Lake
from common.progress import Progress

ROOT = Path(__file__).parents[1]


def said(value: Any) -> Any:
    """A value as both engines say it: times may name no zone, and floats may be added in another order."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    if isinstance(value, float):
        return round(value, 4) + 0.0  # no negative zero
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [said(each) for each in value]
    if isinstance(value, dict):
        return {key: said(each) for key, each in value.items()}
    return value


def counted(rows: pa.Table) -> Counter[str]:
    rows = rows.drop_columns([name for name in ("vector",) if name in rows.column_names])
    return Counter(json.dumps(said(row), sort_keys=True) for row in rows.to_pylist())


def assert_close(ours: pa.Table, theirs: pa.Table) -> None:
    """A text's numbers differ a little with the batch that it was embedded in."""
    left, right = (np.array(rows.sort_by("text_sha256")["vector"].to_pylist()) for rows in (ours, theirs))
    np.testing.assert_allclose(left, right, atol=0.02)


class BothEngines(Relations):
    """Runs every definition in both engines and compares what they make of the same rows.

    Attributes:
        compared: The file and line of every place that defined something, with the most rows it gave.
    """

    compared: ClassVar[Counter[tuple[str, int]]] = Counter()

    def __init__(self, spark: SparkSession) -> None:
        self._local, self._spark = LocalRelations(), SparkRelations(spark)

    @property
    def threads_per_call(self) -> int:
        return 1

    def add(self, name: str, rows: pa.Table | DataFrame) -> None:
        rows = rows if isinstance(rows, pa.Table) else rows.toArrow()  # files are read once
        self._local.add(name, rows)
        self._spark.add(name, rows)

    def add_stored(self, name: str, lake: Lake, table_name: str, version: int) -> None:
        self._local.add_stored(name, lake, table_name, version)
        self._spark.add_stored(name, lake, table_name, version)

    def add_feed(self, name: str, lake: Lake, table_name: str, since: int, until: int) -> None:
        self._local.add_feed(name, lake, table_name, since, until)
        self._spark.add_feed(name, lake, table_name, since, until)

    def define(self, name: str, query: str, reused: bool = False, **values: str | float) -> None:
        self._local.define(name, query, reused, **values)
        self._spark.define(name, query, reused, **values)
        self._compare(name)

    def map_batches(
        self,
        name: str,
        query: str,
        function: BatchFunction,
        schema: pa.Schema,
        progress: Progress,
        spread: bool = False,
        reused: bool = False,
    ) -> None:
        self._local.map_batches(name, query, function, schema, progress, spread, reused)
        self._spark.map_batches(name, query, function, schema, progress, spread, reused)
        self._compare(name)

    def row(self, query: str, **values: str | float) -> tuple[Any, ...]:
        found = self._local.row(query, **values)
        assert tuple(map(said, self._spark.row(query, **values)[:1])) == tuple(map(said, found[:1])), query
        return found

    def columns(self, name: str) -> list[str]:
        assert self._local.columns(name) == self._spark.columns(name)
        return self._local.columns(name)

    def arrow(self, name: str) -> pa.Table:
        return self._local.arrow(name)

    def fetched(self, *names: str) -> Relations:
        return self

    def append_to(self, output: StepOutput, name: str) -> None:
        self._local.append_to(output, name)

    def merge_into(self, output: StepOutput, name: str) -> None:
        self._local.merge_into(output, name)

    def close(self) -> None:
        self._local.close()
        self._spark.close()

    def _compare(self, name: str) -> None:
        frame = sys._getframe(2)
        place = (str(Path(frame.f_code.co_filename).relative_to(ROOT)), frame.f_lineno)
        local, distributed = self._local.arrow(name), self._spark.arrow(name)
        assert local.column_names == distributed.column_names, (name, *place)
        ours, theirs = counted(local), counted(distributed)
        assert ours == theirs, (
            f"{name}, {place}: {(ours - theirs)} in DuckDB alone, {(theirs - ours)} in Spark"
        )
        if "vector" in local.column_names:
            assert_close(local, distributed)
        self.compared[place] = max(self.compared[place], local.num_rows)
        # What comes after it starts from the same rows, and does not compute them again.
        self._spark.add(name, distributed)
