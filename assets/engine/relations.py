"""Named relations that one text of SQL defines for two engines: DuckDB in this process, or Spark.

The SQL is what both engines read. It names a relation, or a value, in braces: `SELECT doc_id FROM {documents}
WHERE jaccard >= {threshold}`. Functions that DuckDB has under another name than Spark are macros there, and
Spark's hints (`/*+ BROADCAST(x) */`) are comments to it. What is not SQL (parsing, signing, embedding) is a
function from Arrow batches to Arrow batches, which both engines map over a query's rows.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import pyarrow as pa

from assets.lake.lake import Lake
from assets.lake.tables import Table
from retrieval.lineage import Lineage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

IS_DELETED = "is_deleted"
"""The boolean column of changes, and of the rows that a merge is handed: true where the row goes."""

BatchFunction: TypeAlias = Callable[[Iterator[pa.RecordBatch]], Iterable[pa.RecordBatch]]
"""A function from Arrow batches to Arrow batches, as Spark's `mapInArrow` takes it."""


@dataclass(frozen=True)
class Output:
    """The table that a commit writes, and what the commit says of itself.

    Attributes:
        lake: Where the tables are.
        table: The table to write.
        version: The table's version that the commit is worked out from.
        lineage: What the commit will say, with its fencing token.
    """

    lake: Lake
    table: Table
    version: int
    lineage: Lineage


class Relations(ABC):
    """Relations by their names. A name that is defined again stands for the new relation from then on."""

    @property
    @abstractmethod
    def threads_per_call(self) -> int:
        """The threads that one call of a mapped function should use: the engine runs the others."""

    @abstractmethod
    def add(self, name: str, rows: "pa.Table | DataFrame") -> None:
        """Names a table that this process holds, or a frame of Spark's that each query evaluates."""

    @abstractmethod
    def add_stored(self, name: str, lake: Lake, table_name: str, version: int) -> None:
        """Names a version of a table of the lake; a query reads only the columns that it needs."""

    @abstractmethod
    def add_feed(self, name: str, lake: Lake, table_name: str, since: int, until: int) -> None:
        """Names the change feed of a table of the lake, from after `since` up to and with `until`."""

    @abstractmethod
    def define(self, name: str, query: str, reused: bool = False, **values: str | float) -> None:
        """Names the result of a query.

        Args:
            name: The new relation's name.
            query: SQL, in which `{name}` stands for a relation or for one of `values`.
            reused: Whether several queries read it, so that an engine that is lazy should compute it once.
            **values: Bound as values, never as SQL.
        """

    @abstractmethod
    def map_batches(
        self,
        name: str,
        query: str,
        function: BatchFunction,
        schema: pa.Schema,
        spread: bool = False,
        reused: bool = False,
    ) -> None:
        """Names what a function makes of the rows of a query.

        Args:
            name: The new relation's name.
            query: As in `define`.
            function: From batches of the query's rows to batches of `schema`.
            schema: Of what the function yields.
            spread: Whether one row takes so long that the rows should first be dealt evenly to all cores.
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
        """Returns relations in this process that hold these; itself where they are there, or too large."""

    @abstractmethod
    def append_to(self, output: Output, name: str) -> None:
        """Commits the rows of a relation, whose columns are the table's, as an append.

        Raises:
            WriteConflict: When another run has written meanwhile; nothing was written.
        """

    @abstractmethod
    def merge_into(self, output: Output, name: str) -> None:
        """Commits rows as a MERGE by the table's key: `is_deleted` ones go, others are updated or inserted.

        Args:
            output: The table.
            name: A relation with the table's columns and `is_deleted`.

        Raises:
            WriteConflict: When another run has written meanwhile; nothing was written.
        """

    @abstractmethod
    def close(self) -> None:
        """Gives memory and files back. No relation can be read any more."""

    def __enter__(self) -> Self:
        """Returns the relations, which the end of the `with` block closes."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the relations."""
        self.close()
