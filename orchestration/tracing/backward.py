"""Walks back: from an answer, release or chunk to the bytes that it was made from."""

import json
from typing import Any

from assets.lake.lake import VersionNotKept
from orchestration.tracing.nodes import TraceNode
from orchestration.tracing.reader import TraceReader
from orchestration.tracing.verify import TraceVerifier

_SHOWN_OF_A_REVISION = (
    *("doc_id", "uri", "source", "tenant", "revision", "size_bytes", "media_type", "deleted", "error"),
)


class BackwardWalk:
    """Builds the trace nodes of everything that a thing was made from.

    Args:
        reader: The reader of rows and commits.
        verifier: Checks the rows that are shown; None for no checks.
    """

    def __init__(self, reader: TraceReader, verifier: TraceVerifier | None) -> None:
        self._reader, self._verifier = reader, verifier

    def from_answer(self, answer: dict[str, Any]) -> list[TraceNode]:
        """Returns the nodes of an answer's release and citations, down to the sources' bytes."""
        release = self.release_node(answer["release_id"])
        pins = release.details["versions"]
        return [release, *(self._citation_node(each, pins) for each in answer["citations"] or [])]

    def release_node(self, release_id: str) -> TraceNode:
        """Returns the node of a release, with the commits that it was made from."""
        rows = self._reader.rows("ops.releases", "release_id = ?", release_id)
        if not rows:
            return TraceNode("release", release_id, {"versions": {}}, checks={"release_is_recorded": False})
        newest = max(rows, key=lambda row: row["decided_at"])
        versions = json.loads(newest["versions"])
        details = {key: newest[key] for key in ("generation", "epoch", "model_digest")}
        details |= {"versions": versions, "metrics": json.loads(newest["metrics"])}
        return TraceNode("release", release_id, details, children=self._reader.commit_nodes(versions))

    def chunk_node(self, chunk: dict[str, Any], pins: dict[str, int] | None = None) -> TraceNode:
        """Returns the node of a chunk, with the document that it is part of.

        Args:
            chunk: A row of `gold.chunks`.
            pins: The version of each table to read; None for those behind the newest chunks.
        """
        lake = self._reader.lake
        pins = pins or lake.pinned("gold.chunks", lake.version("gold.chunks"))
        node = self._reader.row_node(
            "chunk", chunk["chunk_id"], "gold.chunks", chunk, pins.get("gold.chunks")
        )
        node.details |= {key: chunk[key] for key in ("char_start", "char_end", "heading")}
        version = pins.get("silver.documents")
        documents = self._reader.rows("silver.documents", "doc_id = ?", chunk["doc_id"], version)
        node.children = [self._document_node(row, pins) for row in documents]
        if self._verifier:
            node.checks = self._verifier.chunk_checks(chunk, documents)
        return node

    def revision_node(self, raw: dict[str, Any]) -> TraceNode:
        """Returns the node of a document's revision: its bytes, or the tombstone of a deleted document.

        Below the bytes of a document that was inside an archive or a message are those of the file.
        """
        kind = "tombstone" if raw["deleted"] else "bytes"
        identity = raw["content_sha256"] or f"{raw['doc_id']}/{raw['revision']}"
        node = TraceNode(kind, identity, {key: raw[key] for key in _SHOWN_OF_A_REVISION})
        node.details |= {"table": "bronze.raw_documents", "fetched_at": raw["fetched_at"].isoformat()}
        if self._verifier:
            node.checks = self._verifier.revision_checks(raw)
        container = self._reader.container_of(raw)
        if container is not None:
            node.children = [self.revision_node(container)]
            if self._verifier:
                node.checks |= self._verifier.member_checks(raw, container)
        return node

    def _citation_node(self, citation: dict[str, Any], pins: dict[str, int]) -> TraceNode:
        details = {key: value for key, value in citation.items() if key != "chunk_id"}
        node = TraceNode("citation", citation["chunk_id"], details)
        try:
            if self._verifier:
                documents = self._reader.rows(
                    "silver.documents", "doc_id = ?", citation["doc_id"], citation["table_version"]
                )
                node.checks = self._verifier.citation_checks(citation, documents)
            version = pins.get("gold.chunks")
            chunks = self._reader.rows("gold.chunks", "chunk_id = ?", citation["chunk_id"], version)
            if chunks:
                node.children = [self.chunk_node(chunks[0], pins)]
            else:
                node.checks["chunk_is_stored"] = False
        except VersionNotKept as error:
            node.unverifiable = error.args[0]
        return node

    def _document_node(self, document: dict[str, Any], pins: dict[str, int]) -> TraceNode:
        node = self._reader.row_node(
            "document", document["doc_id"], "silver.documents", document, pins.get("silver.documents")
        )
        node.details |= {key: document[key] for key in ("uri", "title", "text_sha256", "content_sha256")}
        revisions = [
            raw
            for raw in self._reader.revisions("doc_id = ?", document["doc_id"])
            if raw["content_sha256"] == document["content_sha256"] and raw["body"] is not None
        ]
        node.children = [self.revision_node(raw) for raw in revisions[:1]]
        if self._verifier:
            node.checks = self._verifier.document_checks(document, revisions)
        return node
