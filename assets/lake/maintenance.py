"""Maintenance of tables: compacts small files, deletes files of versions that nobody needs, erases rows."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.fs import DeltaStorageHandler
from pyarrow.fs import FileSelector, PyFileSystem

from assets.columns import Table
from assets.lake.audits import audited_version
from assets.lake.lake import FEW_FILES, Lake
from assets.lake.lineage import CODE_VERSION, commit_properties, write_conflict
from assets.lake.tables import ANSWER_RATINGS, ANSWERS, TABLES
from retrieval.index.index import IndexRelease


@dataclass(frozen=True)
class TableMaintenance:
    """The result of maintenance of one table.

    Attributes:
        table: `layer.table`.
        files_before: The number of files of the newest version before maintenance.
        files_after: The same number afterwards.
        files_removed: The number of files that were deleted from storage.
    """

    table: str
    files_before: int
    files_after: int
    files_removed: int


_NOT_FOLLOWED = (ANSWERS.name, ANSWER_RATINGS.name)
"""Tables that are read whole where they are read: nothing reads their change feeds."""


def needed_table_versions(
    lake: Lake, releases: Collection[IndexRelease], consumed: Iterable[Mapping[str, int]] = ()
) -> dict[str, set[int]]:
    """Returns the versions of each table that are still needed.

    These are the newest version; the newest that passed its gate; all since the version that a consumer last
    read, because its next step reads the changes of every later version; and those that the releases pin, so
    that their answers can still be traced.

    Args:
        releases: The releases that are kept.
        consumed: For each further consumer, such as the index, the versions of the tables that it last read.
    """
    newest = {name: lake.version(name) for name in TABLES}
    needed: dict[str, set[int]] = {name: {version} for name, version in newest.items()}
    followers, others = list(consumed), list[Mapping[str, int]]()
    for name in TABLES:
        if commit := lake.last_commit(name):
            # Answers and decisions name versions, and follow no change feed.
            follows = name != ANSWERS.name and not name.startswith("ops.")
            (followers if follows else others).append(commit.lineage.inputs)
    for read, all_since in ((followers, True), (others, False)):
        for name, version in [pair for inputs in read for pair in inputs.items()]:
            if name in needed:
                followed = all_since and name not in _NOT_FOLLOWED
                needed[name].update(range(version, newest[name] + 1) if followed else {version})
    for name, table in TABLES.items():
        audited = audited_version(lake, name) if table.gated else None
        if audited is not None:
            needed[name].add(audited)
    for release in releases:
        for name, version in release.details.versions.items():
            needed[name].add(version)
    return needed


def compact_and_vacuum(
    lake: Lake, name: str, needed: Collection[int], retention_days: int
) -> TableMaintenance:
    """Compacts a table with many files, and deletes files that only old, unneeded versions have.

    Compaction changes no row: the change feed shows none, and a version that passed its gate has passed in
    its compacted form too (`Lake.settled_version`).

    Args:
        name: `layer.table`.
        needed: The versions whose files are kept, whatever their age.
        retention_days: How long the files of other versions are kept.
    """
    table = lake.delta(name)
    before = len(table.file_uris())
    if before > FEW_FILES:
        table.optimize.compact()
        table = lake.delta(name)
    vacuum = partial(
        table.vacuum,
        retention_hours=24 * retention_days,
        enforce_retention_duration=False,
        keep_versions=sorted(needed),
    )
    removed = vacuum(dry_run=True)
    if removed:  # with nothing to delete it would commit all the same, and a new version is audited anew
        removed = vacuum(dry_run=False)
    expired = _remove_expired_changes(lake.delta(name), min(needed), retention_days)
    return TableMaintenance(name, before, len(lake.delta(name).file_uris()), len(removed) + expired)


_CHANGES = "_change_data"


def _remove_expired_changes(table: DeltaTable, oldest_needed: int, retention_days: int) -> int:
    """Deletes the files of the change feed of versions before the oldest needed one; delta-rs keeps them.

    Returns:
        How many files were deleted.
    """
    files = PyFileSystem(DeltaStorageHandler.from_table(table._table))
    before = datetime.now(UTC) - timedelta(days=retention_days)
    there = files.get_file_info(FileSelector(_CHANGES, allow_not_found=True, recursive=True))
    expired = {each.path for each in there if each.is_file and each.mtime <= before}
    if not expired:
        return 0
    for version in range(oldest_needed, table.version() + 1):
        with files.open_input_stream(f"_delta_log/{version:020}.json") as log:
            for action in map(json.loads, log.read().splitlines()):
                expired.discard(action.get("cdc", {}).get("path"))
    for path in expired:
        files.delete_file(path)
    return len(expired)


def erase_rows(lake: Lake, table: Table, column: str, value: str, run_id: str) -> int:
    """Deletes the rows whose column has a value, and returns how many they were; none is no commit.

    The commit carries on the lineage of the one before it: what was consumed stays consumed. Files of earlier
    versions still have the rows, until `compact_and_vacuum` deletes them.

    Args:
        lake: The lake with the table.
        run_id: What the commit's lineage names as its run.

    Raises:
        WriteConflict: Another writer was faster; nothing was deleted.
    """
    target = lake.delta(table.name)
    there = lake.query(f'select count(*) as n from t where "{column}" = ?', [value], t=target)
    last, rows = lake.last_commit(table.name), there["n"][0].as_py()
    if last is None or not rows:
        return 0
    lineage = last.lineage.model_copy(
        update={"run_id": run_id, "fence": lake.fencing_token(table) + 1, "code_version": CODE_VERSION}
    )
    quoted = value.replace("'", "''")
    try:
        target.delete(f"{column} = '{quoted}'", commit_properties=commit_properties(table, lineage))
    except CommitFailedError as error:
        raise write_conflict(table, lineage) from error
    lake.check_written(table, lineage)
    return rows
