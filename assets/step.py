"""One step of one asset: what its inputs have that is new, and the one commit that answers it.

A step reads each input from the version that its own last commit consumed, and its commit carries both
the rows and the new watermark, so neither is there without the other. With nothing new there is no
commit; with news there is one even if no row changes, for the watermark moves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
from delta.tables import DeltaTable as SparkDeltaTable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from assets.lake import CODE_VERSION, Fenced, Lake, Lineage
from assets.tables import Table

GONE = "_gone"
"""The column of `Step.changed` that is true where the row is no longer in the input."""


@dataclass(frozen=True)
class Window:
    """The versions of an input that a step consumes: those after `since`, all where that is None."""

    since: int | None
    until: int


@dataclass(frozen=True)
class Step:
    """What one run of one asset reads, and its turn to write.

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
        window = self.windows[table.name]
        if self.rebuild or window.since is None:
            return self.current(table).withColumn(GONE, F.lit(False))
        if window.since == window.until:
            return self.current(table).where(F.lit(False)).withColumn(GONE, F.lit(False))
        return (
            self.lake.changes(table.name, window.since, window.until)
            .where("_change_type <> 'update_preimage'")
            .withColumn(GONE, F.col("_change_type") == "delete")
            .groupBy(*table.key)
            .agg(F.max_by(F.struct(*table.schema.names, GONE), "_commit_version").alias("row"))
            .select("row.*")
        )

    def replaced(self, table: Table) -> DataFrame:
        """The rows of an input as they were when last consumed, of those that changed or went since."""
        window = self.windows[table.name]
        if self.rebuild or window.since is None or window.since == window.until:
            return self.current(table).where(F.lit(False))
        return (
            self.lake.changes(table.name, window.since, window.until)
            .where("_change_type in ('update_preimage', 'delete')")
            .groupBy(*table.key)
            .agg(F.min_by(F.struct(*table.schema.names), "_commit_version").alias("row"))
            .select("row.*")
        )

    def merge(self, rows: DataFrame, scope: DataFrame | None = None) -> None:
        """Makes the output's rows within a scope equal to `rows`, in one commit.

        Args:
            rows: What the scope should hold; rows of the output that are in the scope and not here go.
            scope: One column of the output; its values are the scope. None, or a rebuild: all of the output.

        Raises:
            Fenced: When another run has written meanwhile; nothing was written.
        """
        key = list(self.table.key)
        source = self._conform(rows).withColumn(GONE, F.lit(False))
        if self.version > 0:
            target = self.lake.frame(self.table.name, self.version)
            if scope is not None and not self.rebuild:
                target = target.join(F.broadcast(scope.distinct()), scope.columns, "left_semi")
            gone = target.join(source, key, "left_anti").withColumn(GONE, F.lit(True))
            source = source.unionByName(gone)
        # A MERGE reads its source twice, and ours is parsed, hashed or embedded on the way.
        source = source.persist()
        try:
            if source.isEmpty():
                self._write_watermark()
            elif self.version > 0:
                self._commit(lambda: self._merge(source))
            else:
                self._commit(lambda: self._append(source.drop(GONE)))
        finally:
            source.unpersist()

    def append(self, rows: DataFrame) -> None:
        """Adds rows to the output in one commit.

        Raises:
            Fenced: When another run has written meanwhile; nothing was written.
        """
        self._commit(lambda: self._append(self._conform(rows)))

    def _conform(self, rows: DataFrame) -> DataFrame:
        """The output's columns in order, with the run's id where the table keeps it."""
        if "OpenLineage_RunId" in self.table.schema.names:
            rows = rows.withColumn("OpenLineage_RunId", F.lit(self.lineage.run_id))
        return rows.select(*self.table.schema.names)

    def _append(self, rows: DataFrame) -> None:
        rows.write.format("delta").mode("append").save(self.lake.path(self.table.name))

    def _merge(self, source: DataFrame) -> None:
        columns = [c for c in self.table.schema.names if c not in self.table.key]
        differs = " or ".join(f"not (t.`{c}` <=> s.`{c}`)" for c in columns if c not in self.table.volatile)
        (
            SparkDeltaTable.forPath(self.lake.spark, self.lake.path(self.table.name))
            .alias("t")
            .merge(source.alias("s"), " and ".join(f"t.`{c}` = s.`{c}`" for c in self.table.key))
            .whenMatchedDelete(f"s.{GONE}")
            .whenMatchedUpdate(differs, {c: f"s.`{c}`" for c in columns})
            .whenNotMatchedInsert(f"not s.{GONE}", {c: f"s.`{c}`" for c in self.table.schema.names})
            .execute()
        )

    @property
    def _writer(self) -> str:
        return f"headwater/{self.table.name}"

    def _write_watermark(self) -> None:
        """A commit without rows: the inputs were consumed and nothing followed from them."""
        self._check_turn()
        none = pa.Table.from_pylist([], self.table.schema)
        self.lake.append(self.table, none, self.lineage, (self._writer, self.lineage.fence))

    def _commit(self, write: Callable[[], None]) -> None:
        """Writes through Spark with the lineage and the turn in the commit itself."""
        self._check_turn()
        settings = {
            "spark.databricks.delta.commitInfo.userMetadata": self.lineage.model_dump_json(),
            "spark.databricks.delta.write.txnAppId": self._writer,
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
        # Delta skips a repeated or older turn without a word, so look whether ours is there.
        if self.lineage not in (commit.lineage for commit in self.lake.commits(self.table.name, limit=5)):
            raise Fenced(f"{self.table.name}: another run wrote in turn {self.lineage.fence}: run again")

    def _check_turn(self) -> None:
        last = _last_turn(self.lake, self.table, self._writer)
        if last >= self.lineage.fence:
            raise Fenced(
                f"{self.table.name}: another run has written since this one began (turn {last}, ours "
                f"{self.lineage.fence}); nothing was written: run again"
            )


def begin(
    lake: Lake,
    table: Table,
    inputs: dict[Table, int],
    *,
    run_id: str,
    config_digest: str,
) -> Step:
    """Takes the turn to write a table and says which versions of its inputs are new.

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
            fence=_last_turn(lake, table, f"headwater/{table.name}") + 1,
        ),
        windows={each.name: Window(consumed.get(each.name), until) for each, until in inputs.items()},
        rebuild=rebuild,
    )


def _last_turn(lake: Lake, table: Table, writer: str) -> int:
    return lake.delta(table.name).transaction_version(writer) or 0
