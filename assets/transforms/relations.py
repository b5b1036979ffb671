"""Where deduplication's relational steps run: in this process, or in Spark.

The steps are SQL that DuckDB and Spark both read, over tables they name in braces. For tables that fit in
memory DuckDB needs milliseconds where Spark would schedule dozens of jobs; Spark takes over where they do
not fit.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from assets.transforms.components import components_of, connected_components
from assets.transforms.minhash import MinHashConfig, shingle_jaccard

PAIRS_A_FETCH = 20_000
"""Pairs whose texts the driver holds at once while it compares them."""


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


class DriverRelations:
    """Arrow tables in this process, queried by DuckDB. Only the texts of candidate pairs are fetched."""

    def __init__(self, frames: Mapping[str, DataFrame], texts: DataFrame, config: MinHashConfig) -> None:
        """Fetches `frames`; `texts` are doc_id and text of every document."""
        self._texts = texts
        self._config = config
        self._tables = {name: frame.toArrow() for name, frame in frames.items()}
        self._duckdb = duckdb.connect()

    def table(self, name: str) -> pa.Table:
        """A table by its name."""
        return self._tables[name]

    def define(self, name: str, query: str, reused: bool = False, **numbers: float) -> None:
        """Names the result of a query."""
        self._tables[name] = self._run(query, numbers).to_arrow_table()

    def row(self, query: str) -> tuple[Any, ...]:
        """The one row of a query."""
        return self._run(query, {}).fetchall()[0]

    def _run(self, query: str, numbers: Mapping[str, float]) -> duckdb.DuckDBPyRelation:
        for name, table in self._tables.items():
            self._duckdb.register(name, table)
        return self._duckdb.sql(query.format(**{name: name for name in self._tables}, **numbers))

    def define_components(self, name: str, edges: str) -> None:
        """Connected components by union-find."""
        self._tables[name] = components_of(self._tables[edges])

    def define_compared(self, name: str, pairs: str) -> None:
        """Fetches the texts of so many pairs at a time and compares them here."""
        # Pairs of one senior document lie together: its text is fetched once, and its shingles are made once.
        table = self._tables[pairs].sort_by([("left_id", "ascending"), ("right_id", "ascending")])
        parts = [
            self._similarity(table.slice(at, PAIRS_A_FETCH)) for at in range(0, len(table), PAIRS_A_FETCH)
        ]
        jaccard = np.concatenate([np.empty(0), *parts])
        self._tables[name] = table.append_column("jaccard", pa.array(jaccard))

    def _similarity(self, pairs: pa.Table) -> npt.NDArray[np.float64]:
        ids = pa.chunked_array(
            [*pairs["left_id"].chunks, *pairs["right_id"].chunks], pairs["left_id"].type
        ).unique()
        wanted = self._texts.sparkSession.createDataFrame(pa.table({"doc_id": ids}))
        texts = self._texts.join(F.broadcast(wanted), "doc_id", "left_semi").toArrow()
        left, right = (
            pc.index_in(pairs[side], texts["doc_id"]).to_numpy() for side in ("left_id", "right_id")
        )
        # large_string: all of them together may pass the 2 GiB that string can address.
        return shingle_jaccard(texts["text"].cast(pa.large_string()), left, right, self._config)


class SparkRelations:
    """Spark DataFrames.

    Those that are used again are checkpointed and not just persisted: a persisted table's plan is still part
    of every plan above it, and these tables are built of each other, so that plans would double at each step.
    """

    def __init__(self, frames: Mapping[str, DataFrame], texts: DataFrame, config: MinHashConfig) -> None:
        """Takes `frames`, and `texts` with doc_id and text of every document."""
        self._texts = texts
        self._config = config
        self._tables = {name: frame.localCheckpoint() for name, frame in frames.items()}

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
