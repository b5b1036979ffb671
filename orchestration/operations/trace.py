"""From an answer back to the bytes it came from, and from bytes forward to everything made from them."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from deltalake import DeltaTable

from assets.lake.ids import SEPARATOR, doc_id
from assets.lake.lake import Lake
from assets.lake.lineage import Commit
from assets.lake.tables import TABLES
from assets.parsing.extract import extract_document

Kind = Literal["answer", "chunk", "document", "uri", "content", "run", "release"]


class Untraceable(LookupError):
    """No answer, chunk, document, content, run or release has that id."""


@dataclass
class Node:
    """One thing in a trace, with what it was made from or what was made from it.

    Attributes:
        kind: What it is: `answer`, `release`, `chunk`, `document`, `bytes`, `embedding`, `commit` …
        id: Its identity.
        details: What there is to know of it, among them `table`, `version`, `run_id` and `code_version`.
        children: The next step of the walk.
        checks: What was recomputed of it from the stored bytes, name to whether it holds.
    """

    kind: str
    id: str
    details: dict[str, Any] = field(default_factory=dict)
    children: list["Node"] = field(default_factory=list)
    checks: dict[str, bool] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The node and all below it as plain objects."""
        found = {"kind": self.kind, "id": self.id, **self.details}
        if self.checks:
            found["checks"] = self.checks
        if self.children:
            found["children"] = [child.to_dict() for child in self.children]
        return found

    def holds(self) -> bool:
        """True when every check here and below it holds."""
        return all(self.checks.values()) and all(child.holds() for child in self.children)


@dataclass
class Trace:
    """Both walks from one thing.

    Attributes:
        id: What was asked for, as it is called in full.
        kind: What it is.
        backward: What it was made from, to the source's bytes.
        forward: What was made from it.
        verified: Whether every hash and span holds against the stored bytes; None when not asked.
    """

    id: str
    kind: Kind
    backward: list[Node]
    forward: list[Node]
    verified: bool | None

    def to_dict(self) -> dict[str, Any]:
        """The trace as `headwater trace --json` prints it."""
        return {
            "id": self.id,
            "kind": self.kind,
            "backward": [node.to_dict() for node in self.backward],
            "forward": [node.to_dict() for node in self.forward],
            "verified": self.verified,
        }


class Tracer:
    """Walks the lake's rows and commits, and the index for what is served.

    Args:
        lake: The tables.
        index: What PostgreSQL holds of a document: its id to rows of `generation`, `chunk_id`, `valid_from`
            and `valid_to` (epochs), or `quarantined` with the reason.
        verify: Whether to recompute every hash and span on the way.
    """

    def __init__(
        self, lake: Lake, index: Callable[[str], list[dict[str, Any]]], verify: bool = False
    ) -> None:
        self._lake, self._index, self._verify = lake, index, verify
        self._commits: dict[tuple[str, str], Commit] = {}
        self._tables: dict[tuple[str, int | None], DeltaTable] = {}

    def trace(self, identity: str) -> Trace:
        """Both walks from whatever the id names.

        Args:
            identity: An answer's, chunk's or document's id, a URI, a content hash, a run's or release's id.

        Raises:
            Untraceable: When nothing has that id.
        """
        walks: tuple[tuple[Kind, Callable[[str], tuple[list[Node], list[Node]] | None]], ...] = (
            ("answer", self._answer),
            ("release", self._release),
            ("chunk", self._chunk),
            ("document", self._document),
            ("uri", self._uri),
            ("content", self._content),
            ("run", self._run),
        )
        for kind, walk in walks:
            found = walk(identity)
            if found is not None:
                backward, forward = found
                verified = all(n.holds() for n in [*backward, *forward]) if self._verify else None
                return Trace(identity, kind, backward, forward, verified)
        raise Untraceable(
            f"nothing has the id {identity!r}: give an answer, chunk, document, release or run id, a URI or "
            f'a content hash (`headwater sql "select answer_id, question from gold.answers"` lists answers)'
        )

    # What each kind of id names. Each gives (backward, forward), or None where no such thing is.

    def _answer(self, identity: str) -> tuple[list[Node], list[Node]] | None:
        rows = self._rows("gold.answers", "answer_id = ?", identity)
        if not rows:
            return None
        release = self._release_node(rows[0]["release_id"])
        pins = release.details["versions"]
        return [release, *(self._citation(each, pins) for each in rows[0]["citations"] or [])], []

    def _release(self, identity: str) -> tuple[list[Node], list[Node]] | None:
        if not self._rows("ops.releases", "release_id = ?", identity):
            return None
        answers = self._rows("gold.answers", "release_id = ?", identity)
        return [self._release_node(identity)], [self._answer_node(row) for row in answers]

    def _chunk(self, identity: str) -> tuple[list[Node], list[Node]] | None:
        rows = self._rows("gold.chunks", "chunk_id = ?", identity)
        if not rows:
            return None
        node = self._chunk_node(rows[0], None)
        return node.children, self._from_chunks(rows, rows[0]["doc_id"], {identity})

    def _document(self, identity: str) -> tuple[list[Node], list[Node]] | None:
        raw = self._raw("doc_id = ?", identity)
        if not raw:
            return None
        return [self._bytes_node(row) for row in raw], self._from_document(identity)

    def _uri(self, identity: str) -> tuple[list[Node], list[Node]] | None:
        return self._of_documents(self._raw("uri = ?", identity))

    def _content(self, identity: str) -> tuple[list[Node], list[Node]] | None:
        return self._of_documents(self._raw("content_sha256 = ?", identity))

    def _of_documents(self, raw: list[dict[str, Any]]) -> tuple[list[Node], list[Node]] | None:
        if not raw:
            return None
        ids = dict.fromkeys(row["doc_id"] for row in raw)
        forward = [Node("document", each, children=self._from_document(each)) for each in ids]
        return [self._bytes_node(row) for row in raw], forward

    def _run(self, identity: str) -> tuple[list[Node], list[Node]] | None:
        commits = [
            commit
            for name in TABLES
            for commit in self._lake.commits(name)
            if commit.lineage.run_id == identity
        ]
        if not commits:
            return None
        inputs = sorted({item for commit in commits for item in commit.lineage.inputs.items()})
        backward = [Node("table", f"{name}@{version}") for name, version in inputs]
        return backward, [self._commit_node(commit) for commit in commits]

    # Backward.

    def _citation(self, citation: dict[str, Any], pins: dict[str, int]) -> Node:
        node = Node("citation", citation["chunk_id"], {k: v for k, v in citation.items() if k != "chunk_id"})
        chunks = self._rows("gold.chunks", "chunk_id = ?", citation["chunk_id"], pins.get("gold.chunks"))
        if chunks:
            node.children = [self._chunk_node(chunks[0], pins)]
        else:
            node.checks["chunk_is_stored"] = False
        if self._verify:
            documents = self._rows(
                "silver.documents", "doc_id = ?", citation["doc_id"], citation["table_version"]
            )
            start, end = citation["char_start"], citation["char_end"]
            node.checks["quote_is_verbatim"] = any(
                d["text"][start:end] == citation["quote"] for d in documents
            )
            node.checks["content_is_cited"] = any(
                d["content_sha256"] == citation["content_sha256"] for d in documents
            )
        return node

    def _chunk_node(self, chunk: dict[str, Any], pins: dict[str, int] | None) -> Node:
        pins = pins or self._lake.pinned("gold.chunks", self._lake.version("gold.chunks"))
        node = self._row_node("chunk", chunk["chunk_id"], "gold.chunks", chunk, pins.get("gold.chunks"))
        node.details |= {key: chunk[key] for key in ("char_start", "char_end", "heading")}
        rows = self._rows("silver.documents", "doc_id = ?", chunk["doc_id"], pins.get("silver.documents"))
        node.children = [self._document_node(row, pins) for row in rows]
        if self._verify:
            text = chunk["text"]
            node.checks = {
                "document_is_stored": bool(rows),
                "span_matches": any(r["text"][chunk["char_start"] : chunk["char_end"]] == text for r in rows),
                "text_sha256": _sha256(text) == chunk["text_sha256"],
                "chunk_id": chunk["chunk_id"]
                == _sha256(SEPARATOR.join((chunk["doc_id"], chunk["text_sha256"], str(chunk["char_start"])))),
            }
        return node

    def _document_node(self, row: dict[str, Any], pins: dict[str, int]) -> Node:
        node = self._row_node(
            "document", row["doc_id"], "silver.documents", row, pins.get("silver.documents")
        )
        node.details |= {key: row[key] for key in ("uri", "title", "text_sha256", "content_sha256")}
        raw = self._raw("doc_id = ?", row["doc_id"])
        raw = [r for r in raw if r["content_sha256"] == row["content_sha256"] and r["body"] is not None]
        node.children = [self._bytes_node(r) for r in raw[:1]]
        if self._verify:
            node.checks = {
                "bytes_are_stored": bool(raw),
                "text_sha256": _sha256(row["text"]) == row["text_sha256"],
            }
            if raw:
                # The parse is deterministic, so the stored bytes must still give the stored text.
                remade = extract_document(raw[0]["body"], raw[0]["media_type"]).text
                node.checks["text_remade_from_bytes"] = remade == row["text"]
        return node

    def _bytes_node(self, raw: dict[str, Any]) -> Node:
        shown = (
            "doc_id",
            "uri",
            "source",
            "tenant",
            "revision",
            "size_bytes",
            "media_type",
            "deleted",
            "error",
        )
        identity = raw["content_sha256"] or f"{raw['doc_id']}/{raw['revision']}"
        node = Node("tombstone" if raw["deleted"] else "bytes", identity, {key: raw[key] for key in shown})
        node.details |= {"table": "bronze.raw_documents", "fetched_at": raw["fetched_at"].isoformat()}
        if self._verify:
            node.checks["doc_id"] = raw["doc_id"] == doc_id(raw["tenant"], raw["source"], raw["uri"])
            if raw["body"] is not None:
                node.checks["content_sha256"] = (
                    hashlib.sha256(raw["body"]).hexdigest() == raw["content_sha256"]
                )
                node.checks["size_bytes"] = len(raw["body"]) == raw["size_bytes"]
        return node

    def _release_node(self, identity: str) -> Node:
        rows = self._rows("ops.releases", "release_id = ?", identity)
        if not rows:
            return Node("release", identity, {"versions": {}}, checks={"release_is_recorded": False})
        newest = max(rows, key=lambda row: row["decided_at"])
        versions = json.loads(newest["versions"])
        node = Node("release", identity, {k: newest[k] for k in ("generation", "epoch", "model_digest")})
        node.details |= {"versions": versions, "metrics": json.loads(newest["metrics"])}
        node.children = [
            self._commit_node(commit)
            for name, version in versions.items()
            if (commit := next((c for c in self._lake.commits(name) if c.version <= version), None))
        ]
        return node

    # Forward.

    def _from_document(self, identity: str) -> list[Node]:
        found = []
        for row in self._rows("silver.documents", "doc_id = ?", identity):
            node = self._row_node("document", identity, "silver.documents", row)
            node.details["text_sha256"] = row["text_sha256"]
            found.append(node)
        for row in self._rows("silver.quarantine", "doc_id = ?", identity):
            node = self._row_node("quarantined", identity, "silver.quarantine", row)
            node.details |= {key: row[key] for key in ("stage", "expectation", "reason")}
            found.append(node)
        for row in self._rows("silver.duplicates", "doc_id = ?", identity):
            node = self._row_node("duplicate", row["canonical_id"], "silver.duplicates", row)
            node.details |= {key: row[key] for key in ("matched_id", "jaccard", "method")}
            found.append(node)
        found += [
            self._row_node("stands_for", row["doc_id"], "silver.duplicates", row)
            for row in self._rows("silver.duplicates", "canonical_id = ?", identity)
        ]
        chunks = self._rows("gold.chunks", "doc_id = ?", identity)
        return found + self._from_chunks(chunks, identity, None)

    def _from_chunks(self, chunks: list[dict[str, Any]], document: str, only: set[str] | None) -> list[Node]:
        """The chunks, their vectors, where they are served, and the answers that cite them."""
        served = self._index(document)
        texts = [chunk["text_sha256"] for chunk in chunks]
        vectors = self._rows("gold.embeddings", "list_contains(?, text_sha256)", texts)
        nodes = []
        for chunk in sorted(chunks, key=lambda row: row["ordinal"]):
            node = self._row_node("chunk", chunk["chunk_id"], "gold.chunks", chunk)
            node.details |= {key: chunk[key] for key in ("char_start", "char_end", "text_sha256")}
            if self._verify:
                node.checks["text_sha256"] = _sha256(chunk["text"]) == chunk["text_sha256"]
            node.children = [
                self._row_node("embedding", row["text_sha256"], "gold.embeddings", row)
                for row in vectors
                if (row["tenant"], row["text_sha256"]) == (chunk["tenant"], chunk["text_sha256"])
            ]
            nodes.append(node)
        releases = self._rows("ops.releases", "decision = ?", "released")
        for row in served:
            if only is not None and row["chunk_id"] not in only:
                continue
            details = {key: value for key, value in row.items() if key != "chunk_id"}
            if "quarantined" in row:
                nodes.append(Node("quarantined", row["chunk_id"], details))
                continue
            node = Node("index", row["chunk_id"], details)
            node.details["releases"] = sorted(
                release["release_id"]
                for release in releases
                if release["generation"] == row["generation"]
                and row["valid_from"] <= release["epoch"]
                and (row["valid_to"] is None or release["epoch"] < row["valid_to"])
            )
            nodes.append(node)
        citing = "list_contains(list_transform(citations, lambda c: c.doc_id), ?)"
        nodes += [
            self._answer_node(row)
            for row in self._rows("gold.answers", citing, document)
            if only is None or only & {each["chunk_id"] for each in row["citations"]}
        ]
        return nodes

    # Rows and commits.

    def _answer_node(self, row: dict[str, Any]) -> Node:
        shown = ("question", "release_id", "engine", "tenant")
        details = {key: row[key] for key in shown} | {"answered_at": row["answered_at"].isoformat()}
        return Node("answer", row["answer_id"], details)

    def _row_node(
        self, kind: str, identity: str, table: str, row: dict[str, Any], version: int | None = None
    ) -> Node:
        """A row of a table with the commit that wrote it."""
        node = Node(kind, identity, {"table": table, "read_at_version": version or self._lake.version(table)})
        run_id = row.get("OpenLineage_RunId")
        commit = self._commit_of(table, run_id) if run_id else None
        if commit is not None:
            node.details |= {
                "written_in_version": commit.version,
                "run_id": commit.lineage.run_id,
                "code_version": commit.lineage.code_version,
                "inputs": commit.lineage.inputs,
            }
        return node

    def _commit_of(self, table: str, run_id: str) -> Commit | None:
        if not any(name == table for name, _ in self._commits):
            self._commits |= {(table, c.lineage.run_id): c for c in self._lake.commits(table)}
        return self._commits.get((table, run_id))

    def _commit_node(self, commit: Commit) -> Node:
        details = {
            "committed_at": commit.committed_at.isoformat(),
            **commit.lineage.model_dump(exclude={"fence"}),
        }
        return Node("commit", f"{commit.table}@{commit.version}", details)

    def _raw(self, where: str, value: str) -> list[dict[str, Any]]:
        """Revisions of documents, newest first."""
        return sorted(
            self._rows("bronze.raw_documents", where, value),
            key=lambda row: (row["doc_id"], -row["revision"]),
        )

    def _rows(self, table: str, where: str, value: Any, version: int | None = None) -> list[dict[str, Any]]:
        if (table, version) not in self._tables:
            self._tables[table, version] = self._lake.delta(table, version)
        opened = self._tables[table, version]
        return self._lake.query(f"select * from t where {where}", [value], t=opened).to_pylist()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
