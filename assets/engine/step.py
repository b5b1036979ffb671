"""One step of an asset: it reads what is new in the inputs and writes one commit.

A step reads each input from the version that the output's last commit consumed. Its commit holds both the new
rows and the new watermarks (the versions consumed now), so neither is ever there without the other. Without
new versions there is no commit; with new versions there is one even if no row changes, because the watermarks
move.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from assets.columns import Table
from assets.engine.limits import LOCAL_BYTES, LocalLimits
from assets.engine.local_relations import LocalRelations
from assets.engine.merge import merge_rows
from assets.engine.relations import IS_DELETED, Relations, StepOutput
from assets.lake.delta import delta_bytes, delta_rows
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from common.lineage import Lineage

logger = logging.getLogger(__name__)

_COMPRESSION = 4
"""About how much larger rows are in memory than in their files."""

_LATEST_POST_IMAGES = ("_change_type <> 'update_preimage'", "_commit_version DESC")
_EARLIEST_PRE_IMAGES = ("_change_type IN ('update_preimage', 'delete')", "_commit_version")
"""Which rows of a change feed are kept, and which of a key's comes first."""


@dataclass(frozen=True)
class StepWindow:
    """The versions of an input that a step consumes: after `since`, up to and including `until`.

    It is all versions up to `until` where `since` is None.
    """

    since: int | None
    until: int


@dataclass(frozen=True)
class StepChange:
    """The changes of one input that a step consumes.

    Attributes:
        table: The input.
        size_bytes: The approximate memory that the changed rows take.
        rows: The number of rows that were added, changed or deleted.
        feed: The change feed; None if it is larger than `LOCAL_BYTES`, or if all rows are consumed.
    """

    table: Table
    size_bytes: int
    rows: int
    feed: pa.Table | None = None


@dataclass(frozen=True)
class Step(StepOutput):
    """The inputs that one run of an asset reads, and the table that it writes.

    Attributes:
        windows: The versions to consume of each input, by the input's name. An input without new versions has
            `since == until`.
        rebuild: True when the whole output is made anew: at the first run, or when the settings have changed.
    """

    windows: dict[str, StepWindow]
    rebuild: bool

    @property
    def idle(self) -> bool:
        """True when no input has a version that the output has not consumed."""
        return not self.rebuild and all(w.since == w.until for w in self.windows.values())

    def relations(
        self,
        changes_of: Sequence[Table] = (),
        tables: Sequence[Table] = (),
        worked_on: Sequence[Table] = (),
        limits: LocalLimits | None = None,
    ) -> Relations:
        """Opens the tables that the step reads: in this process if they are small, else in Spark.

        A relation has the name of its table without the layer, such as `documents`. `changed_documents` holds
        one row per key that was added, changed or deleted since the step's last commit: the row as it is now,
        or for a deleted key its last row with `is_deleted` true.

        Args:
            changes_of: The inputs whose changes are read.
            tables: The tables that are looked up in: inputs, or the output.
            worked_on: The tables among them that are read in full; all of their rows count as changes.
            limits: The size limits of a step that runs in this process.

        Returns:
            The relations, which the caller must close.
        """
        limits = limits or LocalLimits()
        changes = [self._change(table) for table in changes_of]
        worked = [*changes, *(self._all_rows(table) for table in worked_on)]
        local = limits.fit(
            sum(change.size_bytes for change in worked),
            sum(change.rows for change in worked),
            max((delta_rows(self._stored(table)) for table in tables), default=0),
        )
        on = open_relations(self.lake, local)
        try:
            for table in (*tables, *worked_on):
                on.add_stored(relation_name(table), self.lake, table.name, self._version(table))
            for change in changes:
                self._define_changed(on, change)
        except BaseException:
            on.close()
            raise
        return on

    def define_replaced(self, on: Relations, table: Table) -> None:
        """Defines `replaced_documents`: the changed or deleted rows of an input, as they were last consumed.

        Args:
            table: The input, such as `silver.documents`. The step must not be a rebuild.
        """
        on.define(f"replaced_{relation_name(table)}", _first_of_each_key(table, _EARLIEST_PRE_IMAGES))

    def unfinished(self) -> "Step":
        """Returns the step without its watermark: it merges a part, and the next step does the rest."""
        inputs = {
            name: window.until if window.since is None else window.since
            for name, window in self.windows.items()
        }
        digest = "" if self.rebuild else self.lineage.config_digest
        lineage = self.lineage.model_copy(update={"inputs": inputs, "config_digest": digest})
        return replace(self, lineage=lineage, rebuild=False)

    def merge(self, on: Relations, rows: str, scope: str | None = None) -> None:
        """Makes the output's rows within a scope equal to those of a relation, in one commit.

        Args:
            rows: As in `merge_rows`.
            scope: As in `merge_rows`; in a rebuild the scope is the whole output.

        Raises:
            WriteConflict: Another run has written to the table meanwhile; nothing was written.
        """
        merge_rows(on, self, rows, None if self.rebuild else scope)

    def append(self, on: Relations, query: str, read_bytes: int, always: bool) -> None:
        """Appends the rows of a query to the output in one commit; none where a few files gave no row.

        Args:
            query: SQL over the relations; its result has the output's columns.
            read_bytes: The size of the files from which the rows are read.
            always: Whether there is a commit without rows too, for its lineage says something new.

        Raises:
            WriteConflict: Another run has written to the table meanwhile; nothing was written.
        """
        few = LocalLimits().fit(read_bytes)
        on.define("appended", query, reused=few)
        if few and not always and not on.row("SELECT count(*) FROM {appended}")[0]:
            return  # of files that can not be read, and are tried again by every run
        (on.fetched("appended") if few else on).append_to(self, "appended")

    def _version(self, table: Table) -> int:
        return self.version if table is self.table else self.windows[table.name].until

    def _stored(self, table: Table) -> DeltaTable:
        return self.lake.delta(table.name, self._version(table))

    def _all_rows(self, table: Table) -> StepChange:
        stored = self._stored(table)
        return StepChange(table, delta_bytes(stored) * _COMPRESSION, delta_rows(stored))

    def _change(self, table: Table) -> StepChange:
        window = self.windows[table.name]
        if self.rebuild or window.since is None:
            return self._all_rows(table)
        if window.since == window.until:
            return StepChange(table, 0, 0, _feed_schema(table).empty_table())
        feed = self.lake.small_feed(table.name, window.since, window.until, LOCAL_BYTES)
        if feed is None:
            return StepChange(table, LOCAL_BYTES + 1, LOCAL_BYTES)
        schema = _feed_schema(table)
        feed = feed.select(schema.names).cast(schema)
        rows = feed.num_rows - (pc.sum(pc.equal(feed["_change_type"], "update_preimage")).as_py() or 0)
        return StepChange(table, feed.nbytes, rows, feed)

    def _define_changed(self, on: Relations, change: StepChange) -> None:
        table, window = change.table, self.windows[change.table.name]
        name, columns = relation_name(table), ", ".join(table.schema.names)
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
    """Opens relations in this process where `local` is true, else in Spark, which starts only then."""
    if local:
        return LocalRelations()
    from assets.engine.spark_relations import SparkRelations

    return SparkRelations(lake.spark)


def relation_name(table: Table) -> str:
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
            FROM {{{relation_name(table)}_feed}} WHERE {condition}
        ) WHERE place = 1
    """


def begin_step(
    lake: Lake,
    table: Table,
    inputs: dict[Table, int],
    *,
    run_id: str,
    config_digest: str,
) -> Step:
    """Begins a step: takes a fencing token for a table, and finds which versions of its inputs are new.

    Args:
        table: The table to write.
        inputs: The inputs by name, each with the newest version that may be read.
        config_digest: A digest of the settings that decide the output. If the last commit has another one,
            the step is a rebuild.
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
    logger.info("%s %s", table.name, _what_is_read(windows, rebuild))
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


def _what_is_read(windows: Mapping[str, StepWindow], rebuild: bool) -> str:
    """Says what a step is about to read, for whoever follows the log of its run."""
    if rebuild:
        return f"is made anew from {', '.join(windows)}" if windows else "is made anew"
    new = [
        f"{name} {window.until if window.since is None else f'{window.since} to {window.until}'}"
        for name, window in windows.items()
        if window.since != window.until
    ]
    if not windows:
        return "is brought up to date"
    return (
        f"follows the versions {', '.join(new)}" if new else "is up to date: its inputs have no new version"
    )


def _window(lake: Lake, name: str, since: int | None, until: int) -> StepWindow:
    """The versions to consume; none where only maintenance has made any since."""
    if since is not None and lake.settled_version(name, since) >= until:
        since = until
    return StepWindow(since, until)
