"""Maintenance of tables: compacts small files, and deletes files of versions that nobody needs."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from assets.lake.audits import audited_version
from assets.lake.lake import FEW_FILES, Lake
from assets.lake.tables import ANSWERS, TABLES
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


def needed_table_versions(
    lake: Lake, releases: Collection[IndexRelease], consumed: Iterable[Mapping[str, int]] = ()
) -> dict[str, set[int]]:
    """Returns the versions of each table that are still needed.

    These are the newest version; the newest that passed its gate; all since the version that a consumer last
    read, because its next step reads the changes of every later version; and those that the releases pin, so
    that their answers can still be traced.

    Args:
        lake: The tables.
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
                needed[name].update(range(version, newest[name] + 1) if all_since else {version})
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
        lake: The lake with the table.
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
    return TableMaintenance(name, before, len(lake.delta(name).file_uris()), len(removed))
