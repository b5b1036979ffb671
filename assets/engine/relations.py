"""Named relations, defined by SQL that runs on two engines: DuckDB in this process, or Spark.

The SQL is the subset that both engines understand. It names a relation, or a value, in braces: `SELECT doc_id
FROM {documents} WHERE jaccard >= {threshold}`. Where DuckDB has another name for a function of Spark, it has
a macro with Spark's name; Spark's hints (`/*+ BROADCAST(x) */`) are comments to DuckDB. Work that is not SQL
(parsing, signing, embedding) is a function from Arrow batches to Arrow batches, which both engines map over a
query's rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import pyarrow as pa

from assets.columns import Table
from assets.lake.lake import Lake
from common.lineage import Lineage
from common.progress import Progress

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

IS_DELETED = "is_deleted"
"""The boolean column of changes, and of the rows that a merge is handed: true where the row goes."""

BatchFunction: TypeAlias = Callable[[Iterator[pa.RecordBatch]], Iterable[pa.RecordBatch]]
"""A function from Arrow batches to Arrow batches, as Spark's `mapInArrow` takes it."""


@dataclass(frozen=True)
class StepOutput:
    """The table that a commit writes, and the lineage that the commit carries.

    Attributes:
        lake: The lake with the table.
        table: The table to write.
        version: The version of the table on which the commit is based.
        lineage: The commit's lineage, with its fencing token.
    """

    lake: Lake
    table: Table
    version: int
    lineage: Lineage


class Relations(ABC):
    """Relations with names, in one engine. Defining a name again replaces its relation."""

    @property
    @abstractmethod
    def threads_per_call(self) -> int:
        """Returns how many threads one call of a mapped function should use."""

    @abstractmethod
    def add(self, name: str, rows: "pa.Table | DataFrame") -> None:
        """Gives a name to a table in memory, or to a Spark frame, which each query evaluates."""

    @abstractmethod
    def add_stored(self, name: str, lake: Lake, table_name: str, version: int) -> None:
        """Gives a name to a version of a table of the lake; a query reads only the columns that it needs."""

    @abstractmethod
    def add_feed(self, name: str, lake: Lake, table_name: str, since: int, until: int) -> None:
        """Gives a name to a table's change feed: versions after `since`, up to and including `until`."""

    @abstractmethod
    def define(self, name: str, query: str, reused: bool = False, **values: str | float) -> None:
        """Gives a name to the result of a query.

        Args:
            name: The new relation's name.
            query: SQL, in which `{name}` stands for a relation or for one of `values`.
            reused: Whether several queries read the relation; a lazy engine then computes it only once.
            **values: The values by name; they are bound as values, never as SQL.
        """

    @abstractmethod
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
        """Gives a name to the result of a function over the rows of a query.

        Args:
            name: The new relation's name.
            query: As in `define`.
            function: Takes batches of the query's rows and yields batches of `schema`.
            schema: The schema of the batches that the function yields.
            progress: Counts the rows that the function has read; its total is theirs unless it has one.
            spread: Whether one row takes so long that the rows are first distributed evenly to all cores.
            reused: As in `define`.
        """

    @abstractmethod
    def row(self, query: str, **values: str | float) -> tuple[Any, ...]:
        """Returns the one row of a query."""

    @abstractmethod
    def columns(self, name: str) -> list[str]:
        """Returns the column names of a relation."""

    @abstractmethod
    def arrow(self, name: str) -> pa.Table:
        """Returns all rows of a relation, in no order."""

    @abstractmethod
    def fetched(self, *names: str) -> "Relations":
        """Returns a copy of the relations in this process, or this object if they are there or too large."""

    @abstractmethod
    def append_to(self, output: StepOutput, name: str) -> None:
        """Appends the rows of a relation, which has the table's columns, to the output in one commit.

        Raises:
            WriteConflict: Another run has written to the table meanwhile; nothing was written.
        """

    @abstractmethod
    def merge_into(self, output: StepOutput, name: str) -> None:
        """Merges rows into the output by the table's key in one commit; rows with `is_deleted` are deleted.

        Args:
            name: A relation with the table's columns and `is_deleted`. Rows where it is false are updated or
                inserted.

        Raises:
            WriteConflict: Another run has written to the table meanwhile; nothing was written.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees memory and deletes temporary files. No relation can be read afterwards."""

    def __enter__(self) -> Self:
        """Returns the relations, which the end of the `with` block closes."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the relations."""
        self.close()
