"""Where deduplication's relational steps run: in this process, or in Spark.

The steps are SQL that DuckDB and Spark both read, over tables they name in braces. What fits in this process
DuckDB does in milliseconds where Spark would schedule dozens of jobs; Spark takes over where it does not fit.
"""

import tempfile
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from assets.dedup.components import components_of, connected_components
from assets.dedup.minhash import MinHashConfig, shingle_jaccard
from assets.lake.delta import register

PAIRS_A_FETCH = 100_000
"""Pairs whose texts this process holds at once while it compares them."""


class Relations(Protocol):
    """Named tables, and what deduplication does with them."""

    def define(self, name: str, query: str, reused: bool = False, **numbers: float) -> None:
        """Names the result of a query, in which `{name}` stands for a table or for one of `numbers`.

        `reused` says that several queries read it: it is worth keeping where results are not kept anyhow.
        """
        ...

    def row(self, query: str) -> tuple[Any, ...]:
        """The one row of a query."""
        ...

    def define_components(self, name: str, edges: str) -> None:
        """Names the connected components (node, component) of the table `edges` (left_id, right_id)."""
        ...

    def define_compared(self, name: str, pairs: str) -> None:
        """Names the table `pairs` (left_id, right_id, wanted, hot) with the `jaccard` of their texts."""
        ...


class LocalRelations:
    """Tables of DuckDB in this process.

    The lake's own tables are views of their files: a query reads the columns that it names and keeps no more
    than follows from them, so that looking a batch up in a large lake costs one pass over ids and bands.
    """

    def __init__(self, tables: Mapping[str, DeltaTable | pa.Table], config: MinHashConfig) -> None:
        """Takes `tables`, among them `documents` with doc_id and text of every document."""
        self._config = config
        self._names = dict.fromkeys(tables)
        # What does not fit in memory would by default go into whatever folder the process was started in.
        self._spill = tempfile.TemporaryDirectory(prefix="headwater-")
        self._duckdb = duckdb.connect(config={"temp_directory": self._spill.name})
        for macro in ("explode(list) AS unnest(list)", "unix_micros(time) AS epoch_us(time)"):
            self._duckdb.execute(f"CREATE MACRO {macro}")
        for name, rows in tables.items():
            register(self._duckdb, name, rows)

    def close(self) -> None:
        """Gives memory and files back."""
        self._duckdb.close()
        self._spill.cleanup()

    def table(self, name: str) -> pa.Table:
        """A table by its name."""
        return self._duckdb.table(name).to_arrow_table()

    def define(self, name: str, query: str, reused: bool = False, **numbers: float) -> None:
        """Names the result of a query."""
        self._keep(name, self._filled(query, numbers))

    def row(self, query: str) -> tuple[Any, ...]:
        """The one row of a query."""
        return self._duckdb.sql(self._filled(query, {})).fetchall()[0]

    def define_components(self, name: str, edges: str) -> None:
        """Connected components by union-find."""
        self._keep_rows(name, components_of(self.table(edges)))

    def define_compared(self, name: str, pairs: str) -> None:
        """Fetches the texts of so many pairs at a time and compares them here."""
        # Pairs of one senior document lie together: its text is fetched once.
        table = self._duckdb.sql(f"SELECT * FROM {pairs} ORDER BY left_id, right_id").to_arrow_table()
        parts = [
            self._similarity(table.slice(at, PAIRS_A_FETCH)) for at in range(0, len(table), PAIRS_A_FETCH)
        ]
        jaccard = np.concatenate([np.empty(0), *parts])
        self._keep_rows(name, table.append_column("jaccard", pa.array(jaccard)))

    def _similarity(self, pairs: pa.Table) -> npt.NDArray[np.float64]:
        ids = pa.chunked_array(
            [*pairs["left_id"].chunks, *pairs["right_id"].chunks], pairs["left_id"].type
        ).unique()
        self._duckdb.register("due", pa.table({"doc_id": ids}))
        texts = self._duckdb.sql(
            "SELECT doc_id, text FROM documents SEMI JOIN due USING (doc_id)"
        ).to_arrow_table()
        left, right = (
            pc.index_in(pairs[side], texts["doc_id"]).to_numpy() for side in ("left_id", "right_id")
        )
        # large_string: all of them together may pass the 2 GiB that string can address.
        return shingle_jaccard(texts["text"].cast(pa.large_string()), left, right, self._config)

    def _filled(self, query: str, numbers: Mapping[str, float]) -> str:
        return query.format(**{name: name for name in self._names}, **numbers)

    def _keep(self, name: str, query: str) -> None:
        self._duckdb.execute(f"CREATE TEMP TABLE {name} AS {query}")
        self._names[name] = None

    def _keep_rows(self, name: str, rows: pa.Table) -> None:
        self._duckdb.register("rows_to_keep", rows)
        self._keep(name, "FROM rows_to_keep")
        self._duckdb.unregister("rows_to_keep")


class SparkRelations:
    """Spark DataFrames.

    Those that are used again are checkpointed and not just persisted: a persisted table's plan is still part
    of every plan above it, and these tables are built of each other, so that plans would double at each step.
    """

    def __init__(self, frames: Mapping[str, DataFrame], config: MinHashConfig) -> None:
        """Takes `frames`, among them `documents` with doc_id and text of every document."""
        self._texts = frames["documents"].select("doc_id", "text")
        self._config = config
        # Whole documents and signatures are too much to keep; of them the queries read a few columns.
        large = ("documents", "signatures")
        self._tables = {
            name: frame if name in large else frame.localCheckpoint() for name, frame in frames.items()
        }

    def table(self, name: str) -> DataFrame:
        """A table by its name."""
        return self._tables[name]

    def define(self, name: str, query: str, reused: bool = False, **numbers: float) -> None:
        """Names the result of a query, and computes it when it is reused."""
        frame = self._run(query, numbers)
        self._tables[name] = frame.localCheckpoint() if reused else frame

    def row(self, query: str) -> tuple[Any, ...]:
        """The one row of a query."""
        return tuple(self._run(query, {}).collect()[0])

    def _run(self, query: str, numbers: Mapping[str, float]) -> DataFrame:
        named: dict[str, Any] = {**self._tables, **numbers}
        return self._texts.sparkSession.sql(query, **named)

    def define_components(self, name: str, edges: str) -> None:
        """Connected components, on the driver or distributed as the number of edges asks."""
        self._tables[name] = connected_components(self._tables[edges])

    def define_compared(self, name: str, pairs: str) -> None:
        """Joins both texts to every pair and compares them in the workers."""
        config = self._config

        def compare(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
            for batch in batches:
                left = np.arange(len(batch))
                texts = pa.chunked_array([batch["left_text"], batch["right_text"]]).cast(pa.large_string())
                jaccard = shingle_jaccard(texts, left, left + len(batch), config)
                pair = batch.select(["left_id", "right_id", "wanted", "hot"])
                yield pair.append_column("jaccard", pa.array(jaccard))

        left = self._texts.select(F.col("doc_id").alias("left_id"), F.col("text").alias("left_text"))
        right = self._texts.select(F.col("doc_id").alias("right_id"), F.col("text").alias("right_text"))
        both = self._tables[pairs].join(left, "left_id").join(right, "right_id")
        columns = "left_id string, right_id string, wanted boolean, hot long, jaccard double"
        self._tables[name] = both.mapInArrow(compare, columns).localCheckpoint()
