"""Walks forward: from a document or chunk to everything that was made from it."""

from collections.abc import Callable
from typing import Any

from orchestration.tracing.nodes import TraceNode
from orchestration.tracing.reader import TraceReader
from orchestration.tracing.training import TrainingWalk
from orchestration.tracing.verify import TraceVerifier


class ForwardWalk:
    """Builds the trace nodes of everything that was made from a thing.

    Args:
        reader: The reader of rows and commits.
        document_rows: Returns the index's rows of a document; see `Index.document_rows`.
        verifier: Checks the rows that are shown; None for no checks.
        training: Walks on to what models learn from.
    """

    def __init__(
        self,
        reader: TraceReader,
        document_rows: Callable[[str], list[dict[str, Any]]],
        verifier: TraceVerifier | None,
        training: TrainingWalk,
    ) -> None:
        self._reader, self._document_rows, self._verifier = reader, document_rows, verifier
        self._training = training

    def from_document(self, raw: dict[str, Any]) -> list[TraceNode]:
        """Returns the nodes made from a document: its text or quarantine, its duplicates and its chunks.

        Of a file that holds documents, such as a mailbox, those are what was made from it.

        Args:
            raw: Its newest row of `bronze.raw_documents`.
        """
        rows, node, doc_id = self._reader.rows, self._reader.row_node, raw["doc_id"]
        found = []
        for row in rows("silver.documents", "doc_id = ?", doc_id):
            document = node("document", doc_id, "silver.documents", row)
            document.details["text_sha256"] = row["text_sha256"]
            found.append(document)
        for row in rows("silver.quarantine", "doc_id = ?", doc_id):
            quarantined = node("quarantined", doc_id, "silver.quarantine", row)
            quarantined.details |= {key: row[key] for key in ("stage", "expectation", "reason")}
            found.append(quarantined)
        for row in rows("silver.duplicates", "doc_id = ?", doc_id):
            duplicate = node("duplicate", row["canonical_id"], "silver.duplicates", row)
            duplicate.details |= {key: row[key] for key in ("matched_id", "jaccard", "method")}
            found.append(duplicate)
        found += [
            node("stands_for", row["doc_id"], "silver.duplicates", row)
            for row in rows("silver.duplicates", "canonical_id = ?", doc_id)
        ]
        return [
            *found,
            *self._inside(raw),
            *self.from_chunks(rows("gold.chunks", "doc_id = ?", doc_id), doc_id),
        ]

    def from_chunks(
        self, chunks: list[dict[str, Any]], doc_id: str, only: str | None = None
    ) -> list[TraceNode]:
        """Returns the nodes of chunks: vectors, rows in the index, the answers and examples that name them.

        Args:
            chunks: Rows of `gold.chunks`.
            doc_id: Their document.
            only: The chunk whose index rows, answers and examples are wanted; None for the whole document's.
        """
        return [
            *self._chunk_nodes(chunks),
            *self._index_nodes(doc_id, only),
            *self._citing_answers(doc_id, only),
            *self._training.from_document(doc_id, only),
        ]

    def _inside(self, raw: dict[str, Any]) -> list[TraceNode]:
        # Each is named, not walked on from: a mailbox may hold a hundred thousand messages.
        found = []
        for kind, table in (("document", "silver.documents"), ("quarantined", "silver.quarantine")):
            for row in self._reader.rows(table, "starts_with(uri, ?)", f"{raw['uri']}#"):
                if (row["tenant"], row["source"]) == (raw["tenant"], raw["source"]):
                    node = self._reader.row_node(kind, row["doc_id"], table, row)
                    node.details |= {key: row[key] for key in ("uri", "title", "reason") if key in row}
                    found.append(node)
        return sorted(found, key=lambda node: str(node.details["uri"]))

    def _chunk_nodes(self, chunks: list[dict[str, Any]]) -> list[TraceNode]:
        texts = [chunk["text_sha256"] for chunk in chunks]
        vectors = self._reader.rows("gold.embeddings", "list_contains(?, text_sha256)", texts)
        nodes = []
        for chunk in sorted(chunks, key=lambda row: row["ordinal"]):
            node = self._reader.row_node("chunk", chunk["chunk_id"], "gold.chunks", chunk)
            node.details |= {key: chunk[key] for key in ("char_start", "char_end", "text_sha256")}
            if self._verifier:
                node.checks = self._verifier.text_checks(chunk)
            node.children = [
                self._reader.row_node("embedding", row["text_sha256"], "gold.embeddings", row)
                for row in vectors
                if (row["tenant"], row["text_sha256"]) == (chunk["tenant"], chunk["text_sha256"])
            ]
            nodes.append(node)
        return nodes

    def _index_nodes(self, doc_id: str, only: str | None) -> list[TraceNode]:
        releases = self._reader.rows("ops.releases", "decision = ?", "released")
        nodes = []
        for row in self._document_rows(doc_id):
            if only is not None and row["chunk_id"] != only:
                continue
            details = {key: value for key, value in row.items() if key != "chunk_id"}
            if "quarantined" in row:
                nodes.append(TraceNode("quarantined", row["chunk_id"], details))
                continue
            details["releases"] = sorted(
                release["release_id"]
                for release in releases
                if release["generation"] == row["generation"]
                and row["valid_from"] <= release["epoch"]
                and (row["valid_to"] is None or release["epoch"] < row["valid_to"])
            )
            nodes.append(TraceNode("index", row["chunk_id"], details))
        return nodes

    def _citing_answers(self, doc_id: str, only: str | None) -> list[TraceNode]:
        citing = "list_contains(list_transform(citations, lambda c: c.doc_id), ?)"
        return [
            self._reader.answer_node(row)
            for row in self._reader.rows("gold.answers", citing, doc_id)
            if only is None or only in {each["chunk_id"] for each in row["citations"]}
        ]
