"""One step of one asset: what its inputs have that is new, and the one commit that answers it.

A step reads each input from the version that its own last commit consumed, and its commit carries both
the rows and the new watermark, so neither is there without the other. With nothing new there is no
commit; with news there is one even if no row changes, for the watermark moves.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from assets.engine.limits import LOCAL_BYTES, LocalLimits
from assets.engine.local_relations import LocalRelations
from assets.engine.merge import merge_rows
from assets.engine.relations import IS_DELETED, Output, Relations
from assets.lake.delta import stored_bytes, stored_rows
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import Table
from retrieval.lineage import Lineage

logger = logging.getLogger(__name__)

_COMPRESSION = 4
"""About how much larger rows are in memory than in their files."""

_LATEST_POST_IMAGES = ("_change_type <> 'update_preimage'", "_commit_version DESC")
_EARLIEST_PRE_IMAGES = ("_change_type IN ('update_preimage', 'delete')", "_commit_version")
"""Which rows of a change feed are kept, and which of a key's comes first."""


@dataclass(frozen=True)
class Window:
    """The versions of an input that a step consumes: those after `since`, all where that is None."""

    since: int | None
    until: int


@dataclass(frozen=True)
class Change:
    """What a step has to consume of one input.

    Attributes:
        table: The input.
        size_bytes: About what the changed rows take in memory.
        rows: The rows that came or changed or went.
        feed: The change feed; None where it is larger than `LOCAL_BYTES`, or all rows are to be consumed.
    """

    table: Table
    size_bytes: int
    rows: int
    feed: pa.Table | None = None


@dataclass(frozen=True)
class Step(Output):
    """What one run of one asset reads and writes.

    Attributes:
        windows: Each input by its name, with the versions to consume; nothing new is `since == until`.
        rebuild: True when everything is made anew: a first run, or other settings.
    """

    windows: dict[str, Window]
    rebuild: bool

    @property
    def idle(self) -> bool:
        """True when no input has anything that this asset has not consumed."""
        return not self.rebuild and all(w.since == w.until for w in self.windows.values())

    def relations(
        self,
        changes_of: Sequence[Table] = (),
        tables: Sequence[Table] = (),
        worked_on: Sequence[Table] = (),
        limits: LocalLimits | None = None,
    ) -> Relations:
        """Opens what the step reads, in this process where it is small, else in Spark.

        A relation is named as its table without the layer: `documents`. `changed_documents` holds the rows
        that came, changed or went since the step's last commit, one per key, as they are now, and
        `is_deleted`, which is true where the row went and is shown as it last was.

        Args:
            changes_of: Inputs whose changes are read.
            tables: Inputs, or the output, that are looked up in.
            worked_on: Those that are read in full: all of their rows count as changes.
            limits: What this process does itself.

        Returns:
            Relations, which the caller closes.
        """
        limits = limits or LocalLimits()
        changes = [self._change(table) for table in changes_of]
        worked = [*changes, *(self._all_rows(table) for table in worked_on)]
        local = limits.fit(
            sum(change.size_bytes for change in worked),
            sum(change.rows for change in worked),
            max((stored_rows(self._stored(table)) for table in tables), default=0),
        )
        on = open_relations(self.lake, local)
        try:
            for table in (*tables, *worked_on):
                on.add_stored(short_name(table), self.lake, table.name, self._version(table))
            for change in changes:
                self._define_changed(on, change)
        except BaseException:
            on.close()
            raise
        return on

    def define_replaced(self, on: Relations, table: Table) -> None:
        """Defines `replaced_documents`: the rows that changed or went, as they were when last consumed.

        Args:
            on: Relations with the changes of that input.
            table: The input. Every row of it must have been consumed before: the step is no rebuild.
        """
        on.define(f"replaced_{short_name(table)}", _first_of_each_key(table, _EARLIEST_PRE_IMAGES))

    def merge(self, on: Relations, rows: str, scope: str | None = None) -> None:
        """Makes the output's rows within a scope equal to those of a relation, in one commit.

        Args:
            on: Holds the relations.
            rows: As in `merge_rows`.
            scope: As in `merge_rows`; a rebuild's is all of the output.

        Raises:
            WriteConflict: When another run has written meanwhile; nothing was written.
        """
        merge_rows(on, self, rows, None if self.rebuild else scope)

    def append(self, on: Relations, query: str, read_bytes: int) -> None:
        """Adds the rows of a query to the output in one commit.

        Args:
            on: Holds the relations.
            query: SQL over them for rows with the output's columns.
            read_bytes: The size of the files that they are read from. Rows of many are not held anywhere to
                be measured.

        Raises:
            WriteConflict: When another run has written meanwhile; nothing was written.
        """
        few = LocalLimits().fit(read_bytes)
        on.define("appended", query, reused=few)
        (on.fetched("appended") if few else on).append_to(self, "appended")

    def _version(self, table: Table) -> int:
        return self.version if table is self.table else self.windows[table.name].until

    def _stored(self, table: Table) -> DeltaTable:
        return self.lake.delta(table.name, self._version(table))

    def _all_rows(self, table: Table) -> Change:
        stored = self._stored(table)
        return Change(table, stored_bytes(stored) * _COMPRESSION, stored_rows(stored))

    def _change(self, table: Table) -> Change:
        window = self.windows[table.name]
        if self.rebuild or window.since is None:
            return self._all_rows(table)
        if window.since == window.until:
            return Change(table, 0, 0, _feed_schema(table).empty_table())
        feed = self.lake.small_feed(table.name, window.since, window.until, LOCAL_BYTES)
        if feed is None:
            return Change(table, LOCAL_BYTES + 1, LOCAL_BYTES)
        schema = _feed_schema(table)
        feed = feed.select(schema.names).cast(schema)
        rows = feed.num_rows - (pc.sum(pc.equal(feed["_change_type"], "update_preimage")).as_py() or 0)
        return Change(table, feed.nbytes, rows, feed)

    def _define_changed(self, on: Relations, change: Change) -> None:
        table, window = change.table, self.windows[change.table.name]
        name, columns = short_name(table), ", ".join(table.schema.names)
        if self.rebuild or window.since is None:
            on.add_stored(name, self.lake, table.name, window.until)
            on.define(f"changed_{name}", f"SELECT {columns}, false AS {IS_DELETED} FROM {{{name}}}")
            return
        if change.feed is not None:
            on.add(f"{name}_feed", change.feed)
        else:
            on.add_feed(f"{name}_feed", self.lake, table.name, window.since, window.until)
        on.define(f"changed_{name}", _first_of_each_key(table, _LATEST_POST_IMAGES))


def open_relations(lake: Lake, local: bool) -> Relations:
    """Opens the engine that does a piece of work; Spark starts, and is imported, only where it is used."""
    if local:
        return LocalRelations()
    from assets.engine.spark_relations import SparkRelations

    return SparkRelations(lake.spark)


def short_name(table: Table) -> str:
    """Returns the name of a table without its layer."""
    return table.name.partition(".")[2]


def _feed_schema(table: Table) -> pa.Schema:
    return pa.schema(
        [*table.schema, pa.field("_change_type", pa.string()), pa.field("_commit_version", pa.int64())]
    )


def _first_of_each_key(table: Table, images: tuple[str, str]) -> str:
    """Returns SQL for one row per key of a table's change feed, and whether the row is deleted."""
    columns, (condition, order) = ", ".join(table.schema.names), images
    return f"""
        SELECT {columns}, _change_type = 'delete' AS {IS_DELETED} FROM (
            SELECT *, row_number() OVER (PARTITION BY {", ".join(table.key)} ORDER BY {order}) AS place
            FROM {{{short_name(table)}_feed}} WHERE {condition}
        ) WHERE place = 1
    """


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
