"""Reads the lineage of a table's commits from the Delta log, and caches it in a local file.

The log grows with every commit, and a commit never changes. So each commit is read only once: later calls
read only newer commits from the log.
"""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.columns import column
from assets.lake.lake import Lake
from assets.lake.lineage import Commit
from assets.lake.tables import TABLES
from common.atomic_files import atomic_file
from common.lineage import Lineage

LINEAGE_SCHEMA = pa.schema(
    [
        column("table", "Table that was written, as layer.table.", nullable=True),
        column("version", "Version of the table that the commit made.", pa.int64(), nullable=True),
        column("committed_at", "When it was committed.", pa.timestamp("us", tz="UTC"), nullable=True),
        column("operation", "What Delta calls the change: MERGE, WRITE, DELETE …", nullable=True),
        column("run_id", "Dagster run that made it.", nullable=True),
        column("asset", "Asset that made it.", nullable=True),
        column("code_version", "Version of the asset's code.", nullable=True),
        column("config_digest", "Digest of the settings that decide what is made.", nullable=True),
        column(
            "inputs",
            "Version of each input that it was made from.",
            pa.map_(pa.string(), pa.int64()),
            nullable=True,
        ),
    ]
)
"""The columns of `ops.lineage`: one row per commit."""

_UNSAVED_COMMITS = 50
"""So many new commits are read from the log each time before they are saved: saving rewrites the file."""


def lineage_table(lake: Lake) -> pa.Table:
    """Returns `ops.lineage`: every commit that Headwater made, of every table."""
    return pa.concat_tables([table_commits(lake, name) for name in TABLES])


def table_commits(lake: Lake, name: str) -> pa.Table:
    """Returns every commit that Headwater made to a table as `LINEAGE_SCHEMA`, newest first."""
    delta = lake.delta(name)
    path = lake.cache_dir / "commits" / f"{name}-{delta.metadata().id}.parquet"
    saved = pq.read_table(path, schema=LINEAGE_SCHEMA) if path.is_file() else LINEAGE_SCHEMA.empty_table()
    newest = saved["version"][0].as_py() if saved.num_rows else -1
    # The newest saved one is read again: a table that was restored from a backup can have others by now.
    fresh = _read(lake, name, max(1, delta.version() - newest + 1))
    overlap = fresh.slice(max(0, fresh.num_rows - 1)).to_pylist()
    if saved.num_rows and overlap == saved.slice(0, 1).to_pylist():
        fresh = fresh.slice(0, fresh.num_rows - 1)
    elif saved.num_rows:
        saved, fresh = saved.slice(0, 0), _read(lake, name, None)
    commits = pa.concat_tables([fresh, saved]).combine_chunks()
    if fresh.num_rows >= _UNSAVED_COMMITS:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            pq.write_table(commits, file)
    return commits


def find_commits(lake: Lake, name: str, run_id: str) -> list[Commit]:
    """Returns the commits that a run made to a table, newest first."""
    commits = table_commits(lake, name)
    return _commits(commits.filter(pc.equal(commits["run_id"], run_id)))


def last_commit_until(lake: Lake, name: str, version: int) -> Commit | None:
    """Returns the newest commit of a table up to and with a version, or None where there is none."""
    commits = table_commits(lake, name)
    return next(iter(_commits(commits.filter(pc.less_equal(commits["version"], version)).slice(0, 1))), None)


def _read(lake: Lake, name: str, limit: int | None) -> pa.Table:
    rows = [
        {
            "table": commit.table,
            "version": commit.version,
            "committed_at": commit.committed_at,
            "operation": commit.operation,
            "inputs": list(commit.lineage.inputs.items()),
            **commit.lineage.model_dump(exclude={"inputs", "fence", "behind"}),
        }
        for commit in lake.commits(name, limit)
    ]
    return pa.Table.from_pylist(rows, LINEAGE_SCHEMA)


def _commits(rows: pa.Table) -> list[Commit]:
    return [
        Commit(
            table=row["table"],
            version=row["version"],
            committed_at=row["committed_at"],
            operation=row["operation"],
            metrics={},
            lineage=Lineage(
                run_id=row["run_id"],
                asset=row["asset"],
                code_version=row["code_version"],
                config_digest=row["config_digest"],
                inputs=dict(row["inputs"]),
            ),
        )
        for row in rows.to_pylist()
    ]
