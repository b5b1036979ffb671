"""Reads the rows and commits that a trace shows, opening each table once."""

from functools import cache
from typing import Any

import pyarrow.compute as pc
from deltalake import DeltaTable

from assets.lake.commits import find_commits, last_commit_until, table_commits
from assets.lake.lake import Lake
from assets.lake.lineage import Commit
from assets.lake.tables import TABLES
from orchestration.tracing.nodes import TraceNode

_SHOWN_IDS = 5


class TraceReader:
    """Reads the rows and commits of a lake that one trace shows.

    Args:
        lake: The tables.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self._table = cache(self._open)
        self._commit = cache(self._find_commit)

    def rows(self, table: str, where: str, value: Any, version: int | None = None) -> list[dict[str, Any]]:
        """Returns the rows of a table for which a condition holds of its one parameter `?`.

        Raises:
            VersionNotKept: The table's version is no longer kept.
        """
        return self.lake.query(
            f"select * from t where {where}", [value], t=self._table(table, version)
        ).to_pylist()

    def revisions(self, where: str, value: str) -> list[dict[str, Any]]:
        """Returns the rows of `bronze.raw_documents` for which a condition holds, newest first."""
        return sorted(
            self.rows("bronze.raw_documents", where, value),
            key=lambda row: (row["doc_id"], -row["revision"]),
        )

    def container_of(self, raw: dict[str, Any]) -> dict[str, Any] | None:
        """Returns the revision of the file that a document's bytes were found in; None for a file's own.

        Args:
            raw: A row of `bronze.raw_documents`. A row of a file of rows has no such revision either.
        """
        file, inside, _ = raw["uri"].partition("#")
        if not inside or raw["body"] is None:
            return None
        return next(
            (
                each
                for each in self.revisions("uri = ?", file)
                if (each["tenant"], each["source"]) == (raw["tenant"], raw["source"])
                and each["body"] is not None
                and each["fetched_at"] <= raw["fetched_at"]
            ),
            None,
        )

    def ids_beginning(self, beginning: str) -> list[str]:
        """Returns the ids of answers, chunks, documents, contents and runs that begin so; a few if many."""
        columns = (
            ("gold.answers", "answer_id"),
            ("gold.chunks", "chunk_id"),
            ("gold.training_examples", "example_id"),
            ("bronze.raw_documents", "doc_id"),
            ("bronze.raw_documents", "content_sha256"),
        )
        found = set[str]()
        for table, name in columns:
            query = f"select distinct {name} as id from t where starts_with({name}, ?) limit {_SHOWN_IDS}"
            found |= set(self.lake.query(query, [beginning], t=self._table(table, None))["id"].to_pylist())
        for table in TABLES:
            runs = table_commits(self.lake, table)["run_id"].unique()
            found |= set(runs.filter(pc.starts_with(runs, beginning)).to_pylist())
        return sorted(found)[:_SHOWN_IDS]

    def run_commits(self, run_id: str) -> list[Commit]:
        """Returns the commits that a run made, of every table."""
        return [commit for name in TABLES for commit in find_commits(self.lake, name, run_id)]

    def row_node(
        self, kind: str, identity: str, table: str, row: dict[str, Any], version: int | None = None
    ) -> TraceNode:
        """Returns a node for a row, with the commit that wrote it."""
        at = version or self._table(table, None).version()
        node = TraceNode(kind, identity, {"table": table, "read_at_version": at})
        run_id = row.get("OpenLineage_RunId")
        commit = self._commit(table, run_id) if run_id else None
        if commit is not None:
            node.details |= {
                "written_in_version": commit.version,
                "run_id": commit.lineage.run_id,
                "code_version": commit.lineage.code_version,
                "inputs": commit.lineage.inputs,
            }
        return node

    def answer_node(self, row: dict[str, Any]) -> TraceNode:
        """Returns a node for a row of `gold.answers`."""
        shown = ("question", "release_id", "engine", "tenant")
        details = {key: row[key] for key in shown} | {"answered_at": row["answered_at"].isoformat()}
        return TraceNode("answer", row["answer_id"], details)

    def commit_node(self, commit: Commit) -> TraceNode:
        """Returns a node for a commit."""
        details = {
            "committed_at": commit.committed_at.isoformat(),
            **commit.lineage.model_dump(exclude={"fence", "behind"}),
        }
        return TraceNode("commit", f"{commit.table}@{commit.version}", details)

    def commit_nodes(self, versions: dict[str, int]) -> list[TraceNode]:
        """Returns a node for the last commit of each table up to a version of it."""
        commits = (last_commit_until(self.lake, name, version) for name, version in versions.items())
        return [self.commit_node(commit) for commit in commits if commit is not None]

    def _open(self, table: str, version: int | None) -> DeltaTable:
        return self.lake.delta(table) if version is None else self.lake.kept(table, version)

    def _find_commit(self, table: str, run_id: str) -> Commit | None:
        return next(iter(find_commits(self.lake, table, run_id)), None)
