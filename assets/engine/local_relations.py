"""Relations as DuckDB tables in this process: no JVM starts, and DuckDB spills to disk where memory ends."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from assets.engine.relations import IS_DELETED, BatchFunction, Relations, StepOutput
from assets.lake.delta import register_delta_table
from assets.lake.lake import Lake
from assets.lake.lineage import commit_properties, write_conflict
from common.progress import Progress, polled_progress

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_BATCH_ROWS = 512
"""Rows per batch of a mapped function, as Spark's setting in `assets.engine.spark`: bodies are large."""

_SLOW_BATCH_ROWS = 128
"""The same where a row takes long: about a second's work, after which progress is counted."""

_MACROS = (
    "array_remove(list, value) AS list_filter(list, lambda each: each <> value)",
    "explode(list) AS unnest(list)",
    "sha2(value, bits) AS sha256(value)",
    "timestamp_micros(time_us) AS make_timestamptz(time_us)",
    "unix_micros(time) AS epoch_us(time)",
    "xxhash64(first, second) AS hash(first, second)",
)
"""Spark's functions that DuckDB has under another name. `sha2` is always of 256 bits."""


class LocalRelations(Relations):
    """Relations in this process, by DuckDB.

    The lake's tables are views of their files, so a query reads only the columns that it names: looking up a
    batch in a large lake costs one pass over ids and bands.
    """

    def __init__(self) -> None:
        """Opens an empty database in memory."""
        self._kinds: dict[str, str] = {}
        # What does not fit in memory would by default go into whatever folder the process was started in.
        self._spill = tempfile.TemporaryDirectory(prefix="headwater-")
        self._duckdb = duckdb.connect(config={"temp_directory": self._spill.name})
        # Spark writes times that name no zone; they are UTC's, as in its own session.
        self._duckdb.execute("SET TimeZone = 'UTC'")
        for macro in _MACROS:
            self._duckdb.execute(f"CREATE MACRO {macro}")
        with suppress(duckdb.InvalidInputException):  # in a notebook DuckDB wants ipywidgets to count with
            self._duckdb.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
        self._query: Progress | None = None
        self._watched = ExitStack()
        self._watched.enter_context(polled_progress(self._say_query_progress))

    @property
    def threads_per_call(self) -> int:
        """Returns the number of cores, because one call runs at a time."""
        return os.cpu_count() or 1

    def add(self, name: str, rows: "pa.Table | DataFrame") -> None:
        """Gives a name to a table in memory, which is not copied; a Spark frame is first collected."""
        rows = rows if isinstance(rows, pa.Table) else rows.toArrow()
        self._add_view(name, rows)

    def add_stored(self, name: str, lake: Lake, table_name: str, version: int) -> None:
        """Gives a name to a version of a table of the lake, as a view of its files."""
        self._add_view(name, lake.delta(table_name, version))

    def add_feed(self, name: str, lake: Lake, table_name: str, since: int, until: int) -> None:
        """Gives a name to the change feed of a table of the lake, which is read into memory."""
        feed = lake.delta(table_name).load_cdf(starting_version=since + 1, ending_version=until)
        self.add(name, pa.RecordBatchReader.from_stream(feed).read_all())

    def define(self, name: str, query: str, reused: bool = False, **values: str | float) -> None:
        """Gives a name to the result of a query, which is computed at once."""
        if self._kinds.get(name) == "VIEW":  # a table is replaced, and may be read by the query
            self._drop(name)
        self._query = Progress(f"percent of the query {name}", 100)
        try:
            self._execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}", values)
        finally:
            self._query = None
        self._kinds[name] = "TABLE"

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
        """Gives a name to the result of a function over the rows of a query, which is computed at once."""
        rows = self._duckdb.sql(query.format(**{each: each for each in self._kinds})).to_arrow_table()
        if progress.total is None:
            progress.total = rows.num_rows

        def counted() -> Iterator[pa.RecordBatch]:
            for batch in rows.to_batches(_SLOW_BATCH_ROWS if spread else _BATCH_ROWS):
                yield batch
                progress.advance(batch.num_rows)

        self.add(name, pa.Table.from_batches(function(counted()), schema))

    def row(self, query: str, **values: str | float) -> tuple[Any, ...]:
        """Returns the one row of a query."""
        (found,) = self._execute(query, values).fetchall()
        return tuple(found)

    def columns(self, name: str) -> list[str]:
        """Returns the column names of a relation."""
        return self._duckdb.table(name).columns

    def arrow(self, name: str) -> pa.Table:
        """Returns all rows of a relation."""
        return self._duckdb.table(name).to_arrow_table()

    def fetched(self, *names: str) -> Relations:
        """Returns this object, which holds the relations in this process already."""
        return self

    def append_to(self, output: StepOutput, name: str) -> None:
        """Appends rows to the output in one commit, by delta-rs."""
        rows = self.arrow(name).cast(output.table.schema)
        output.lake.append(output.table, rows, output.lineage, output.version)

    def merge_into(self, output: StepOutput, name: str) -> None:
        """Merges rows into the output by delta-rs, in 0.1 seconds where Spark schedules a dozen jobs."""
        table, lineage = output.table, output.lineage
        target = output.lake.delta(table.name, output.version)
        output.lake.check_fencing_token(table, lineage)
        columns = {f"`{c}`": f"s.`{c}`" for c in table.schema.names}
        try:
            (
                target.merge(
                    self.arrow(name).cast(table.schema.append(pa.field(IS_DELETED, pa.bool_()))),
                    " and ".join(f"t.`{c}` = s.`{c}`" for c in table.key),
                    source_alias="s",
                    target_alias="t",
                    commit_properties=commit_properties(table, lineage),
                )
                .when_matched_delete(f"s.{IS_DELETED}")
                .when_matched_update(columns)
                .when_not_matched_insert(columns, predicate=f"not s.{IS_DELETED}")
                .execute()
            )
        except CommitFailedError as error:
            raise write_conflict(table, lineage) from error
        output.lake.check_written(table, lineage)

    def close(self) -> None:
        """Closes the database and deletes what it spilled."""
        self._watched.close()
        self._duckdb.close()
        self._spill.cleanup()

    def _say_query_progress(self) -> None:
        query, percent = self._query, self._duckdb.query_progress()
        if query is not None and percent > 0:
            query.reach(round(percent))

    def _add_view(self, name: str, rows: pa.Table | DeltaTable) -> None:
        self._drop(name)
        register_delta_table(self._duckdb, name, rows)
        self._kinds[name] = "VIEW"

    def _drop(self, name: str) -> None:
        """Makes room for a relation of another kind; a temporary one would hide one that is not."""
        if kind := self._kinds.pop(name, None):
            self._duckdb.execute(f"DROP {kind} {name}")

    def _execute(self, query: str, values: dict[str, str | float]) -> duckdb.DuckDBPyConnection:
        used = {name: value for name, value in values.items() if f"{{{name}}}" in query}
        names = {name: name for name in self._kinds} | {name: f"${name}" for name in used}
        return self._duckdb.execute(query.format(**names), used)
