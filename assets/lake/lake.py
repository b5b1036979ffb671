"""The lake: reads and writes the Delta tables of a state folder, their versions and their lineage.

Reading a version or a commit needs no JVM: delta-rs does it in milliseconds. Spark is imported and started
only when an asset computes rows with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from assets.columns import Table
from assets.lake.delta import delta_files, delta_hadoop_path, register_delta_table
from assets.lake.lineage import Commit, commit_properties, fencing_writer_id, write_conflict
from assets.lake.tables import TABLES
from common.lineage import Lineage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from assets.lake.spark import SparkConfig


_PROPERTIES = {
    "delta.enableChangeDataFeed": "true",
    "delta.enableDeletionVectors": "false",
    # Lineage lives in the commits: Delta would forget them after thirty days.
    "delta.logRetentionDuration": "interval 3650 days",
}


FEW_FILES = 32
"""Spark reads so many Parquet files as they are: to read a table's log itself takes its JVM seconds."""

_RECENT_COMMITS = 20
"""So many of a table's commits are read at first; most questions are about the newest."""

_MAINTENANCE = {"OPTIMIZE", "VACUUM START", "VACUUM END", "ADD COLUMN", "UPDATE FIELD METADATA"}
"""Operations that change no row."""


class VersionNotKept(KeyError):
    """A table had that version, and its log or files of it are no longer kept."""


class Lake:
    """The Delta tables of one state folder.

    Args:
        root: The folder of the tables: a local path, or a URI of any Hadoop file system.
        spark: The configuration of Spark.
        scratch: A local folder for temporary and cached files: Spark's own, and commits that were read.
        docs_dir: The folder for Data Docs.
        docs_url: Where the web UI serves that folder; a path, for a host has many names.
    """

    def __init__(
        self,
        root: str | Path,
        spark: SparkConfig,
        scratch: Path,
        docs_dir: Path,
        docs_url: str = "/data_docs",
    ) -> None:
        self.root = str(root)
        self.docs_dir = docs_dir
        self.docs_url = docs_url
        self._spark_config = spark
        self._scratch = scratch

    @cached_property
    def spark(self) -> SparkSession:
        """The Spark session, started on first use."""
        from assets.lake.spark import spark_session

        return spark_session(self._spark_config, self._scratch)

    @property
    def spark_is_local(self) -> bool:
        """Whether Spark runs on this machine's cores, and not on a cluster."""
        return self._spark_config.is_local

    @property
    def cache_dir(self) -> Path:
        """A local folder for cached files, which can be deleted."""
        return self._scratch

    def path(self, name: str) -> str:
        """The folder of `layer.table`."""
        return f"{self.root}/{name.replace('.', '/')}"

    def ensure(self) -> None:
        """Creates every table that does not exist yet, empty, with its declared columns."""
        for table in TABLES.values():
            if not DeltaTable.is_deltatable(self.path(table.name)):
                DeltaTable.create(
                    self.path(table.name),
                    schema=Schema.from_arrow(table.schema),
                    mode="ignore",
                    name=table.name,
                    description=table.about,
                    configuration=_PROPERTIES,
                )

    def conform_columns(self) -> None:
        """Adds missing declared columns and comments to tables that an older version created.

        An added column is NULL in existing rows. A table that lacks nothing gets no commit.
        """
        for table in TABLES.values():
            found = self.delta(table.name)
            declared = Schema.from_arrow(table.schema).fields
            there = {field.name: field for field in found.schema().fields}
            if missing := [field for field in declared if field.name not in there]:
                found.alter.add_columns(missing)
            for field in declared:
                if field.name in there and there[field.name].metadata != field.metadata:
                    found.alter.set_column_metadata(field.name, field.metadata)

    def delta(self, name: str, version: int | None = None) -> DeltaTable:
        """Returns a table as a delta-rs object, at a version or the newest one.

        Raises:
            KeyError: The lake has no such table or version.
            VersionNotKept: It had that version.
        """
        try:
            return DeltaTable(self.path(name), version=version)
        except TableNotFoundError as error:
            raise KeyError(f"no table {name} at {self.path(name)}") from error
        except Exception as error:
            if version is None:
                raise
            newest = DeltaTable(self.path(name)).version()
            if version > newest:
                raise KeyError(f"{name} has no version {version}: the newest is {newest}") from error
            raise VersionNotKept(f"{name} has no version {version}: it is no longer kept") from error

    def kept(self, name: str, version: int) -> DeltaTable:
        """Returns a table at a version of which every file is there; of each, no more than the end is read.

        Raises:
            KeyError, VersionNotKept: As `delta`; VACUUM deletes files of a version and leaves its log.
        """
        table = self.delta(name, version)
        try:
            self.query("select count(*) from t", t=table)
        except (duckdb.IOException, pa.ArrowInvalid, OSError) as error:
            if "not found" not in str(error) and "No files found" not in str(error):
                raise
            raise VersionNotKept(f"{name} has no version {version}: it is no longer kept") from error
        return table

    def version(self, name: str) -> int:
        """Returns the number of a table's newest version."""
        return self.delta(name).version()

    @staticmethod
    def query(
        sql: str, parameters: list[Any] | dict[str, Any] | None = None, /, **tables: DeltaTable | pa.Table
    ) -> pa.Table:
        """Returns the result of SQL over tables, by DuckDB without a JVM.

        Args:
            sql: One statement, which names the tables as the keyword arguments do.
            parameters: The values of the statement's parameters, `?` or `$name`.
            **tables: The tables by name.
        """
        with duckdb.connect() as connection:
            for name, table in tables.items():
                register_delta_table(connection, name, table)
            return connection.sql(sql, params=parameters).to_arrow_table()

    def frame(self, name: str, version: int | None = None) -> DataFrame:
        """Returns a table as a Spark frame, at a version or the newest one."""
        from pyspark.sql.types import StructType

        table = self.delta(name, version)
        files = delta_files(table)
        if files and len(files) <= FEW_FILES:
            schema = StructType.fromJson(json.loads(table.schema().to_json()))
            return self.spark.read.schema(schema).parquet(*map(delta_hadoop_path, files))
        return self.spark.read.format("delta").option("versionAsOf", table.version()).load(self.path(name))

    def changes(self, name: str, since: int, until: int) -> DataFrame:
        """Returns a table's change data feed, for the versions after `since` up to and including `until`.

        Columns: the table's, `_change_type`, `_commit_version` and `_commit_timestamp`.
        """
        reader = self.spark.read.format("delta").option("readChangeFeed", "true")
        return (
            reader.option("startingVersion", since + 1).option("endingVersion", until).load(self.path(name))
        )

    def has_changes(self, name: str, since: int | None, until: int) -> bool:
        """Returns whether the change feed after `since`, up to and including `until`, can still be read.

        A feed reads the files of every version in it, and VACUUM may have deleted some. Only the files'
        footers are read here.
        """
        if since is None or since >= until:
            return True
        feed = self.delta(name).load_cdf(
            starting_version=since + 1, ending_version=until, columns=["_commit_version"]
        )
        try:
            for _ in pa.RecordBatchReader.from_stream(feed):
                pass
        except (pa.ArrowInvalid, OSError) as error:
            if "not found" not in str(error):
                raise
            return False
        return True

    def small_feed(self, name: str, since: int, until: int, limit_bytes: int) -> pa.Table | None:
        """Returns the change feed as `changes` does, but without a JVM; None if it is larger than a limit."""
        feed = pa.RecordBatchReader.from_stream(
            self.delta(name).load_cdf(starting_version=since + 1, ending_version=until)
        )
        batches, size_bytes = [], 0
        for batch in feed:
            size_bytes += batch.nbytes
            if size_bytes > limit_bytes:
                return None
            batches.append(batch)
        return pa.Table.from_batches(batches, feed.schema)

    def changed_keys(self, name: str, column: str, since: int, until: int) -> tuple[list[str], list[str]]:
        """Returns a column's values in the rows written, and in the rows deleted, by a range of versions.

        The versions are those after `since`, up to and including `until`.

        Returns:
            (written, deleted). A value that occurs in several commits is placed by the last one.
        """
        if since >= until:
            return [], []
        feed = self.delta(name).load_cdf(
            starting_version=since + 1,
            ending_version=until,
            columns=[column, "_change_type", "_commit_version"],
        )
        last = self.query(
            f"""
            select "{column}" as key, arg_max(_change_type, _commit_version) = 'delete' as gone
            from feed where _change_type <> 'update_preimage' group by 1
            """,
            feed=pa.RecordBatchReader.from_stream(feed).read_all(),
        )
        keys, gone = last["key"].to_pylist(), last["gone"].to_pylist()
        return (
            [key for key, left in zip(keys, gone, strict=True) if not left],
            [key for key, left in zip(keys, gone, strict=True) if left],
        )

    def commits(self, name: str, limit: int | None = None) -> Iterator[Commit]:
        """Yields the commits that Headwater made to a table, newest first, of the last `limit` or of all.

        The log of a table can be long: its older part is only read when a caller asks for that much. Where
        all are needed, `commits.table_commits` reads each only once.
        """
        table = self.delta(name)
        recent = table.history(limit or _RECENT_COMMITS)
        yield from self._with_lineage(name, recent)
        if limit is None and len(recent) == _RECENT_COMMITS:
            oldest = recent[-1]["version"]
            yield from self._with_lineage(name, (e for e in table.history() if e["version"] < oldest))

    @staticmethod
    def _with_lineage(name: str, entries: Iterable[dict[str, Any]]) -> Iterator[Commit]:
        for entry in entries:
            text = entry.get("userMetadata")
            if not text:
                continue
            yield Commit(
                table=name,
                version=entry["version"],
                committed_at=datetime.fromtimestamp(entry["timestamp"] / 1000, UTC),
                operation=entry.get("operation", ""),
                metrics=entry.get("operationMetrics") or {},
                lineage=Lineage.model_validate_json(text),
            )

    def last_commit(self, name: str) -> Commit | None:
        """Returns a table's newest commit by an asset; maintenance commits, without lineage, are skipped."""
        return next(self.commits(name), None)

    def inputs_of(self, name: str, version: int) -> dict[str, int]:
        """Returns the versions of the inputs from which a version of a table was made.

        Raises:
            LookupError: Nothing has been written to the table yet.
        """
        for commit in self.commits(name):
            if commit.version <= version:
                return commit.lineage.inputs
        raise LookupError(f"{name} has not been made yet: run `headwater run`")

    def pinned(self, name: str, version: int) -> dict[str, int]:
        """Returns the version of every table from which a table's version was made, and its own version.

        The tables are the direct inputs and those behind them.
        """
        pins = {name: version}
        for each, at in self.inputs_of(name, version).items() if version else ():
            pins = self.pinned(each, at) | pins
        return pins

    def settled_version(self, name: str, version: int) -> int:
        """Returns the newest version with the same rows as this one; maintenance also makes versions."""
        table = self.delta(name)
        newest = table.version()
        if newest <= version:
            return version
        for entry in table.history(newest - version):
            if entry["operation"] not in _MAINTENANCE:
                newest = entry["version"] - 1
        return max(newest, version)

    def stamp(self, table: Table, column: str) -> datetime:
        """Returns a timestamp for a new row: the present time, or later than every existing row's timestamp.

        Otherwise, after the clock was set back, an old verdict would count as the newest.
        """
        found = self.query(f'select max("{column}") as newest from t', t=self.delta(table.name))
        newest, now = found["newest"][0].as_py(), datetime.now(UTC)
        if newest is not None and newest.tzinfo is None:  # written by Spark as INT96, which names no zone
            newest = newest.replace(tzinfo=UTC)
        return now if newest is None else max(now, newest + timedelta(microseconds=1))

    def append(self, table: Table, rows: pa.Table, lineage: Lineage, since: int | None = None) -> int:
        """Appends a few rows without a JVM; without rows it writes only a commit.

        Args:
            lineage: The lineage that the commit carries.
            since: The table's version when the fencing token was taken, if the lineage has one.

        Returns:
            The table's version after the commit.

        Raises:
            WriteConflict: The lineage has a fencing token, and another writer took it or a later one, or has
                written since that version; nothing was written.
        """
        # Opened before the check: a commit that comes after it is then one that this one conflicts with.
        target = self.delta(table.name, since)
        if lineage.fence:
            self.check_fencing_token(table, lineage)
        try:
            write_deltalake(target, rows, mode="append", commit_properties=commit_properties(table, lineage))
        except CommitFailedError as error:
            raise write_conflict(table, lineage) from error
        if lineage.fence:
            self.check_written(table, lineage)
        return self.version(table.name)

    def fencing_token(self, table: Table) -> int:
        """Returns the fencing token of a table's last commit; the next commit takes one more."""
        return self.delta(table.name).transaction_version(fencing_writer_id(table)) or 0

    def check_fencing_token(self, table: Table, lineage: Lineage) -> None:
        """Raises `WriteConflict` when another writer took this fencing token or a later one."""
        if self.fencing_token(table) >= lineage.fence:
            raise write_conflict(table, lineage)

    def check_written(self, table: Table, lineage: Lineage) -> None:
        """Raises `WriteConflict` without the commit: Delta skips a repeated or older token silently."""
        if lineage not in (commit.lineage for commit in self.commits(table.name, limit=5)):
            raise write_conflict(table, lineage)

    def content_digest(self, table: Table, version: int | None = None) -> str:
        """Returns a digest of a table's rows, independent of their order and files: the Dagster data version.

        It is the sum of a hash of each row's content columns, so it is the same for the same rows in whatever
        commits they were written (an incremental hash of a multiset: Clarke et al., "Incremental Multiset
        Hash Functions", ASIACRYPT 2003).
        """
        columns = ", ".join(f'coalesce("{column}"::varchar, chr(0))' for column in table.content)
        digest = self.query(
            f"""
            select count(*) as n, sum(md5_number_upper(row)::hugeint) as high,
                   sum(md5_number_lower(row)::hugeint) as low
            from (select concat_ws(chr(31), {columns}) as row from t)
            """,
            t=self.delta(table.name, version),
        ).to_pylist()[0]
        high, low = int(digest["high"] or 0) % 2**64, int(digest["low"] or 0) % 2**64
        return f"{digest['n']}-{high:016x}{low:016x}"
