"""Relations as Spark frames, for data that is too large for this process."""

import operator
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import pyarrow as pa
from delta.tables import DeltaTable as SparkDeltaTable
from pyspark.accumulators import Accumulator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import ArrayType, BinaryType, StringType

from assets.engine.limits import LocalLimits
from assets.engine.local_relations import LocalRelations
from assets.engine.relations import IS_DELETED, BatchFunction, Relations, StepOutput
from assets.lake.delta import without_views_for_delta
from assets.lake.lake import Lake
from assets.lake.lineage import fencing_writer_id
from common.progress import Progress, polled_progress

_ROWS_PER_TASK = 16
"""Rows of a task that calls a slow function: about a second, after which they are counted."""
_MOST_TASKS = 512


@dataclass
class _Mapped:
    """A mapped function: what counts its rows here, what counts them in Spark, and how many were said."""

    progress: Progress
    counter: "Accumulator[int]"
    rows: int
    said: int = 0


def _counted(
    batches: Iterator[pa.RecordBatch], function: BatchFunction, counter: "Accumulator[int]"
) -> Iterable[pa.RecordBatch]:
    """Calls a function in a worker of Spark; the driver learns of its rows when the task has ended."""

    def seen() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch
            counter.add(batch.num_rows)

    return function(seen())


class SparkRelations(Relations):
    """Relations in Spark.

    Reused relations are checkpointed and not only persisted. The plan of a persisted frame remains part of
    every plan above it, and since relations are defined by one another, plans would double at each step.
    """

    def __init__(self, spark: SparkSession) -> None:
        """Takes the session; no relation has a name yet."""
        self._spark = spark
        self._frames: dict[str, DataFrame] = {}
        self._checkpoints: list[DataFrame] = []
        self._fetched: list[LocalRelations] = []
        self._mapped: list[_Mapped] = []
        self._stage, self._tasks = -1, Progress("tasks of a stage in Spark")
        self._watched = ExitStack()
        self._watched.enter_context(polled_progress(self._say_progress))

    @property
    def threads_per_call(self) -> int:
        """Returns 1, because Spark calls the function in as many processes as there are cores."""
        return 1

    def add(self, name: str, rows: pa.Table | DataFrame) -> None:
        """Gives a name to a table in memory, or to a frame, which each query evaluates."""
        if isinstance(rows, DataFrame):
            self._frames[name] = rows
        elif rows.num_rows:
            self._frames[name] = self._spark.createDataFrame(without_views_for_delta(rows))
        else:
            # Spark can not take an Arrow table of lists without a row. It leaves out a join with nothing only
            # where the plan says that there is nothing.
            empty = self._spark.createDataFrame([], from_arrow_schema(without_views_for_delta(rows).schema))
            self._frames[name] = empty.where("false")

    def add_stored(self, name: str, lake: Lake, table_name: str, version: int) -> None:
        """Gives a name to a version of a table of the lake."""
        self._frames[name] = lake.frame(table_name, version)

    def add_feed(self, name: str, lake: Lake, table_name: str, since: int, until: int) -> None:
        """Gives a name to the change feed of a table of the lake, which each query reads."""
        self._frames[name] = lake.changes(table_name, since, until)

    def define(self, name: str, query: str, reused: bool = False, **values: str | float) -> None:
        """Gives a name to the result of a query, and computes it at once if it is reused."""
        self._keep(name, self._run(query, values), reused)

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
        """Gives a name to the result of a function over the rows of a query, in Spark's Python workers."""
        rows, context = self._run(query, {}), self._spark.sparkContext
        count = rows.count()
        if progress.total is None:
            progress.total = count
        if spread:
            parts = min(max(count // _ROWS_PER_TASK, 2 * context.defaultParallelism), _MOST_TASKS)
            rows = rows.repartition(parts)
        counter = context.accumulator(0)
        self._mapped.append(_Mapped(progress, counter, count))
        mapped = rows.mapInArrow(
            partial(_counted, function=function, counter=counter),
            from_arrow_schema(schema),
        )
        self._keep(name, mapped, reused)

    def row(self, query: str, **values: str | float) -> tuple[Any, ...]:
        """Returns the one row of a query."""
        (found,) = self._run(query, values).collect()
        return tuple(found)

    def columns(self, name: str) -> list[str]:
        """Returns the column names of a relation."""
        return self._frames[name].columns

    def arrow(self, name: str) -> pa.Table:
        """Returns all rows of a relation, collected in this process."""
        return self._frames[name].toArrow()

    def fetched(self, *names: str) -> Relations:
        """Returns a copy of the relations in this process, or this object if they are too large."""
        if not LocalLimits().fit(sum(_size_bytes(self._frames[name]) for name in names)):
            return self
        local = LocalRelations()
        self._fetched.append(local)
        for name in names:
            local.add(name, self.arrow(name))
        return local

    def append_to(self, output: StepOutput, name: str) -> None:
        """Appends rows to the output in one commit, by Spark."""
        rows = self._frames[name].select(*output.table.schema.names)
        with _CommitSettings(output):
            rows.write.format("delta").mode("append").save(output.lake.path(output.table.name))

    def merge_into(self, output: StepOutput, name: str) -> None:
        """Merges rows into the output in one commit, by Spark."""
        table = output.table
        merge = (
            SparkDeltaTable.forPath(self._spark, output.lake.path(table.name))
            .alias("t")
            .merge(self._frames[name].alias("s"), " and ".join(f"t.`{c}` = s.`{c}`" for c in table.key))
            .whenMatchedDelete(f"s.{IS_DELETED}")
            .whenMatchedUpdate(set={c: f"s.`{c}`" for c in table.schema.names if c not in table.key})
            .whenNotMatchedInsert(f"not s.{IS_DELETED}", {c: f"s.`{c}`" for c in table.schema.names})
        )
        with _CommitSettings(output):
            merge.execute()

    def close(self) -> None:
        """Deletes the checkpoints, which Spark would keep on its disks until the JVM collects garbage."""
        self._watched.close()
        for frame in self._checkpoints:
            frame._jdf.queryExecution().logical().rdd().unpersist(False)
        for local in self._fetched:
            local.close()
        self._checkpoints.clear()
        self._frames.clear()

    def _say_progress(self) -> None:
        """Says how many rows the functions have read, or, where none reads any, how far Spark's stage is."""
        for mapped in self._mapped:
            if mapped.said < (seen := min(mapped.counter.value, mapped.rows)):
                mapped.progress.advance(seen - mapped.said)
                mapped.said = seen
        if any(0 < mapped.said < mapped.rows for mapped in self._mapped):
            return
        tracker = self._spark.sparkContext.statusTracker()
        for stage in filter(None, map(tracker.getStageInfo, tracker.getActiveStageIds()[:1])):
            if stage.stageId != self._stage:
                self._stage, self._tasks = (
                    stage.stageId,
                    Progress("tasks of a stage in Spark", stage.numTasks),
                )
            if stage.numTasks > 1:  # "0 of 1" would say nothing
                self._tasks.reach(stage.numCompletedTasks)

    def _run(self, query: str, values: dict[str, str | float]) -> DataFrame:
        named: dict[str, Any] = {**self._frames, **values}
        return self._spark.sql(query, **named)

    def _keep(self, name: str, frame: DataFrame, reused: bool) -> None:
        if reused:
            frame = frame.localCheckpoint()
            self._checkpoints.append(frame)
        self._frames[name] = frame


def _size_bytes(frame: DataFrame) -> int:
    """Returns about how much memory a frame takes: the bytes of its strings, eight for anything else."""
    parts = []
    for field in frame.schema:
        kind = field.dataType
        if isinstance(kind, StringType | BinaryType):
            parts.append(F.octet_length(field.name))
        elif isinstance(kind, ArrayType):
            parts.append(8 * F.size(field.name))
        else:
            parts.append(F.lit(8))
    total = F.sum(reduce(operator.add, [F.coalesce(part, F.lit(0)) for part in parts]))
    return int(frame.select(total).collect()[0][0] or 0)


class _CommitSettings:
    """Puts the lineage and the fencing token into the commit that Spark makes meanwhile, and checks it."""

    def __init__(self, output: StepOutput) -> None:
        self._output = output
        self._settings = {
            "spark.databricks.delta.commitInfo.userMetadata": output.lineage.model_dump_json(),
            "spark.databricks.delta.write.txnAppId": fencing_writer_id(output.table),
            "spark.databricks.delta.write.txnVersion": str(output.lineage.fence),
        }

    def __enter__(self) -> None:
        self._output.lake.check_fencing_token(self._output.table, self._output.lineage)
        for name, value in self._settings.items():
            self._output.lake.spark.conf.set(name, value)

    def __exit__(self, failed: object, *_: object) -> None:
        for name in self._settings:
            self._output.lake.spark.conf.unset(name)
        if failed is None:
            self._output.lake.check_written(self._output.table, self._output.lineage)
