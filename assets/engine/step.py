"""One step of one asset: what its inputs have that is new, and the one commit that answers it.

A step reads each input from the version that its own last commit consumed, and its commit carries both
the rows and the new watermark, so neither is there without the other. With nothing new there is no
commit; with news there is one even if no row changes, for the watermark moves.
"""

import logging
import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
from delta.tables import DeltaTable as SparkDeltaTable
from deltalake.exceptions import CommitFailedError
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, BinaryType, StringType

from assets.lake.delta import stored_bytes
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION, commit_properties, write_conflict, writer_id
from assets.lake.tables import Table
from retrieval.lineage import Lineage

logger = logging.getLogger(__name__)

DRIVER_BYTES = 256 * 1024 * 1024
"""What this process holds of a change at once; more is read and merged by Spark."""

_COMPRESSION = 4
"""About how much larger rows are than the files that they lie in."""

WORK_BYTES = 4 * 1024 * 1024
"""Text up to which parsing or cutting it takes one core less time than a JVM takes to start."""

_BATCH_ROWS = 512

GONE = "_gone"
"""The column of `Step.changed` that is true where the row is no longer in the input."""

_CAME = ("_change_type <> 'update_preimage'", "_commit_version desc")
_WENT = ("_change_type in ('update_preimage', 'delete')", "_commit_version asc")
"""Which rows of a change feed, and which of a key's comes first."""


@dataclass(frozen=True)
class Window:
    """The versions of an input that a step consumes: those after `since`, all where that is None."""

    since: int | None
    until: int


@dataclass(frozen=True)
class Step:
    """What one run of one asset reads, and its fencing token.

    Attributes:
        lake: Where the tables are.
        table: The table it writes.
        version: The output's version when the step began.
        lineage: What its commit will say.
        windows: Each input with the versions to consume; nothing new is `since == until`.
        rebuild: True when everything is made anew: a first run, or other settings.
    """

    lake: Lake
    table: Table
    version: int
    lineage: Lineage
    windows: dict[str, Window]
    rebuild: bool

    @property
    def idle(self) -> bool:
        """True when no input has anything that this asset has not consumed."""
        return not self.rebuild and all(w.since == w.until for w in self.windows.values())

    def current(self, table: Table) -> DataFrame:
        """All rows of an input at the version that this step may read."""
        return self.lake.frame(table.name, self.windows[table.name].until)

    def changed(self, table: Table) -> DataFrame:
        """The rows of an input that came, changed or went, one a key, as they are now.

        Returns:
            The input's columns and `_gone`; where it is true the other columns hold the row as it last was.
        """
        here = self.changed_here(table)
        if here is not None:
            # Spark can not take an Arrow table of lists without a row.
            empty = self.current(table).limit(0).withColumn(GONE, F.lit(False))
            return self.lake.spark.createDataFrame(here) if here.num_rows else empty
        window = self.windows[table.name]
        if self.rebuild or window.since is None:
            return self.current(table).withColumn(GONE, F.lit(False))
        return self.lake.spark.sql(
            _latest(table, _CAME, "{feed}"), feed=self.lake.changes(table.name, window.since, window.until)
        )

    def changed_here(self, table: Table, limit_bytes: int | None = None) -> pa.Table | None:
        """What `changed` gives, read without a JVM.

        Args:
            table: The input.
            limit_bytes: The most that is read, `DRIVER_BYTES` unless given; None is returned for more.
        """
        limit_bytes = DRIVER_BYTES if limit_bytes is None else limit_bytes
        window = self.windows[table.name]
        if self.rebuild or window.since is None:
            whole = self.lake.delta(table.name, window.until)
            if stored_bytes(whole) > limit_bytes // _COMPRESSION:
                return None
            columns = ", ".join(f'"{name}"' for name in table.schema.names)
            rows = self.lake.query(f"select {columns}, false as {GONE} from t", t=whole)
        else:
            found = self._feed(table, window, _CAME, limit_bytes)
            if found is None:
                return None
            rows = found
        return rows.cast(table.schema.append(pa.field(GONE, pa.bool_())))

    def replaced_here(self, table: Table) -> pa.Table | None:
        """The rows of an input as they were when last consumed, of those that changed or went since.

        Returns:
            The input's columns; None where they are more than this process should hold.
        """
        window = self.windows[table.name]
        if self.rebuild or window.since is None:
            return table.schema.empty_table()
        found = self._feed(table, window, _WENT, DRIVER_BYTES)
        return None if found is None else found.drop([GONE]).cast(table.schema)

    def replaced(self, table: Table) -> DataFrame:
        """What `replaced_here` gives, by Spark."""
        window = self.windows[table.name]
        if self.rebuild or window.since is None or window.since == window.until:
            return self.current(table).where(F.lit(False))
        changes = self.lake.changes(table.name, window.since, window.until)
        return self.lake.spark.sql(_latest(table, _WENT, "{feed}"), feed=changes).drop(GONE)

    def _feed(
        self, table: Table, window: Window, which: tuple[str, str], limit_bytes: int
    ) -> pa.Table | None:
        if window.since is None or window.since == window.until:
            return table.schema.append(pa.field(GONE, pa.bool_())).empty_table()
        feed = self.lake.small_feed(table.name, window.since, window.until, limit_bytes)
        return None if feed is None else self.lake.query(_latest(table, which, "feed"), feed=feed)

    def merge(self, rows: DataFrame | pa.Table, scope: DataFrame | pa.Table | None = None) -> None:
        """Makes the output's rows within a scope equal to `rows`, in one commit.

        A small result is merged by this process in a tenth of a second; Spark, which would schedule a dozen
        jobs for it, merges the others.

        Args:
            rows: What the scope should hold; rows of the output that are in the scope and not here go.
            scope: One or more columns of the output; their values are the scope. None, or a rebuild: all
                of the output.

        Raises:
            WriteConflict: When another run has written meanwhile; nothing was written.
        """
        if self.rebuild:
            scope = None
        if isinstance(rows, pa.Table):
            self._merge_here(
                self._conformed(rows), scope.toArrow() if isinstance(scope, DataFrame) else scope
            )
            return
        if isinstance(scope, pa.Table):
            scope = self.lake.spark.createDataFrame(scope)
        # What is persisted here was parsed, hashed or embedded, and is read more than once.
        rows = self._conform(rows).persist()
        scope = scope and scope.distinct()
        try:
            if _size_bytes(rows) <= DRIVER_BYTES:
                self._merge_here(rows.toArrow().cast(self.table.schema), scope and scope.toArrow())
            else:
                self._merge_in_spark(rows, scope)
        finally:
            rows.unpersist()

    def append(self, rows: DataFrame | pa.Table, read_bytes: int) -> None:
        """Adds rows to the output in one commit; as with `merge`, a few are written by this process.

        Args:
            rows: What to add.
            read_bytes: The size of the files that they are read from. Rows of many are not held anywhere to
                be measured.

        Raises:
            WriteConflict: When another run has written meanwhile; nothing was written.
        """
        if isinstance(rows, pa.Table):
            self.lake.append(self.table, self._conformed(rows), self.lineage, self.version)
            return
        rows = self._conform(rows)
        if read_bytes > DRIVER_BYTES:
            self._commit(lambda: self._append(rows))
            return
        rows.persist()
        try:
            if _size_bytes(rows) <= DRIVER_BYTES:
                here = rows.toArrow().cast(self.table.schema)
                self.lake.append(self.table, here, self.lineage, self.version)
            else:
                self._commit(lambda: self._append(rows))
        finally:
            rows.unpersist()

    def _conform(self, rows: DataFrame) -> DataFrame:
        """The output's columns in order, with the run's id where the table keeps it."""
        if "OpenLineage_RunId" in self.table.schema.names:
            rows = rows.withColumn("OpenLineage_RunId", F.lit(self.lineage.run_id))
        return rows.select(*self.table.schema.names)

    def _conformed(self, rows: pa.Table) -> pa.Table:
        """`_conform` of rows that are here."""
        if "OpenLineage_RunId" in self.table.schema.names:
            rows = rows.append_column("OpenLineage_RunId", pa.repeat(self.lineage.run_id, rows.num_rows))
        return rows.select(self.table.schema.names).cast(self.table.schema)

    def _append(self, rows: DataFrame) -> None:
        rows.write.format("delta").mode("append").save(self.lake.path(self.table.name))

    def _merge_here(self, rows: pa.Table, scope: pa.Table | None) -> None:
        target = self.lake.delta(self.table.name, self.version)
        self.lake.check_fencing_token(self.table, self.lineage)
        keys = ", ".join(f'"{c}"' for c in self.table.key)
        tables = {"t": target, "s": rows} | ({} if scope is None else {"scope": scope})
        within = "" if scope is None else f"semi join scope using ({', '.join(scope.column_names)})"
        # The keys first: most batches only add, and to look for differences reads every column of the table.
        known = self.lake.query(f"select {keys} from s semi join t using ({keys})", **tables)
        lost = self.lake.query(f"select {keys} from t {within} anti join s using ({keys})", **tables)
        if not known.num_rows and not lost.num_rows:
            # Also where there is no row: a commit that moves the watermark.
            self.lake.append(self.table, rows, self.lineage, self.version)
            return
        key = " and ".join(f't."{c}" = s."{c}"' for c in self.table.key)
        said = [c for c in self.table.schema.names if c not in (*self.table.key, *self.table.volatile)]
        differs = " or ".join(f't."{c}" is distinct from s."{c}"' for c in said)
        news = self.lake.query(
            f"select s.* from s left join t on {key} where t.{self.table.key[0]} is null or {differs}",
            **tables,
        ).cast(self.table.schema)
        # By name: a column that was added to an older table stands last in it.
        columns_of_t = ", ".join(f't."{c}"' for c in self.table.schema.names)
        gone = self.lake.query(
            f"select {columns_of_t} from t semi join lost using ({keys})", t=target, lost=lost
        ).cast(self.table.schema)
        if not news.num_rows and not gone.num_rows:
            # The inputs were consumed and nothing followed from them: a commit that moves the watermark.
            self.lake.append(self.table, self.table.schema.empty_table(), self.lineage, self.version)
            return
        source = pa.concat_tables([news, gone]).append_column(
            GONE, pa.array([False] * news.num_rows + [True] * gone.num_rows)
        )
        columns = {f"`{c}`": f"s.`{c}`" for c in self.table.schema.names}
        try:
            (
                target.merge(
                    source,
                    " and ".join(f"t.`{c}` = s.`{c}`" for c in self.table.key),
                    source_alias="s",
                    target_alias="t",
                    commit_properties=commit_properties(self.table, self.lineage),
                )
                .when_matched_delete(f"s.{GONE}")
                .when_matched_update(columns)
                .when_not_matched_insert(columns, predicate=f"not s.{GONE}")
                .execute()
            )
        except CommitFailedError as error:
            raise write_conflict(self.table, self.lineage) from error
        self.lake.check_written(self.table, self.lineage)

    def _merge_in_spark(self, rows: DataFrame, scope: DataFrame | None) -> None:
        key = list(self.table.key)
        target = self.lake.frame(self.table.name, self.version)
        if scope is not None:
            target = target.join(F.broadcast(scope), scope.columns, "left_semi")
        source = rows.withColumn(GONE, F.lit(False))
        gone = target.join(source, key, "left_anti").withColumn(GONE, F.lit(True))
        source = source.unionByName(gone)
        columns = [c for c in self.table.schema.names if c not in key]
        differs = " or ".join(f"not (t.`{c}` <=> s.`{c}`)" for c in columns if c not in self.table.volatile)
        merge = (
            SparkDeltaTable.forPath(self.lake.spark, self.lake.path(self.table.name))
            .alias("t")
            .merge(source.alias("s"), " and ".join(f"t.`{c}` = s.`{c}`" for c in key))
            .whenMatchedDelete(f"s.{GONE}")
            .whenMatchedUpdate(differs, {c: f"s.`{c}`" for c in columns})
            .whenNotMatchedInsert(f"not s.{GONE}", {c: f"s.`{c}`" for c in self.table.schema.names})
        )
        self._commit(merge.execute if self.version else lambda: self._append(rows))

    def _commit(self, write: Callable[[], object]) -> None:
        """Writes through Spark with the lineage and the fencing token in the commit itself."""
        self.lake.check_fencing_token(self.table, self.lineage)
        settings = {
            "spark.databricks.delta.commitInfo.userMetadata": self.lineage.model_dump_json(),
            "spark.databricks.delta.write.txnAppId": writer_id(self.table),
            "spark.databricks.delta.write.txnVersion": str(self.lineage.fence),
        }
        conf = self.lake.spark.conf
        try:
            for name, value in settings.items():
                conf.set(name, value)
            write()
        finally:
            for name in settings:
                conf.unset(name)
        self.lake.check_written(self.table, self.lineage)


def begin(
    lake: Lake,
    table: Table,
    inputs: dict[Table, int],
    *,
    run_id: str,
    config_digest: str,
) -> Step:
    """Takes a fencing token for a table and says which versions of its inputs are new.

    Args:
        lake: Where the tables are.
        table: The table to write.
        inputs: Each input with the version up to which it may be read.
        run_id: The Dagster run.
        config_digest: A digest of the settings that decide the output; another one than the last commit's
            means that everything is made anew.
    """
    last = lake.last_commit(table.name)
    rebuild = last is None or last.lineage.config_digest != config_digest
    consumed = {} if last is None else last.lineage.inputs
    windows = {
        each.name: _window(lake, each.name, consumed.get(each.name), until) for each, until in inputs.items()
    }
    for name, window in windows.items():
        if not rebuild and not lake.has_changes(name, window.since, window.until):
            logger.warning(
                "%s is made anew: files that the changes of %s after version %s are read from were deleted",
                table.name,
                name,
                window.since,
            )
            rebuild = True
    return Step(
        lake=lake,
        table=table,
        version=lake.version(table.name),
        lineage=Lineage(
            run_id=run_id,
            asset=table.name.replace(".", "/"),
            code_version=CODE_VERSION,
            config_digest=config_digest,
            inputs={each.name: until for each, until in inputs.items()},
            fence=lake.fencing_token(table) + 1,
        ),
        windows=windows,
        rebuild=rebuild,
    )


def _window(lake: Lake, name: str, since: int | None, until: int) -> Window:
    """The versions to consume; none where only maintenance has made any since."""
    if since is not None and lake.settled_version(name, since) >= until:
        since = until
    return Window(since, until)


def mapped(
    rows: pa.Table,
    function: Callable[[Iterator[pa.RecordBatch]], Iterable[pa.RecordBatch]],
    schema: pa.Schema,
) -> pa.Table:
    """What Spark's `mapInArrow` gives, of rows that are here."""
    return pa.Table.from_batches(function(iter(rows.to_batches(_BATCH_ROWS))), schema)


def _latest(table: Table, which: tuple[str, str], feed: str) -> str:
    """SQL for one row a key of a change feed: the first of `_CAME`, or of `_WENT`, and whether it is gone."""
    condition, order = which
    return f"""
        select {", ".join(table.schema.names)}, _change_type = 'delete' as {GONE} from (
            select *, row_number() over (partition by {", ".join(table.key)} order by {order}) as place
            from {feed} where {condition}
        ) where place = 1
    """


def _size_bytes(rows: DataFrame) -> int:
    """About how much a frame takes in memory: the bytes of its strings, eight for anything else in it."""
    parts = []
    for field in rows.schema:
        kind = field.dataType
        if isinstance(kind, StringType | BinaryType):
            parts.append(F.octet_length(field.name))
        elif isinstance(kind, ArrayType):
            parts.append(8 * F.size(field.name))
        else:
            parts.append(F.lit(8))
    total = rows.select(F.sum(reduce(operator.add, [F.coalesce(p, F.lit(0)) for p in parts]))).first()
    return int(total[0] or 0) if total else 0
