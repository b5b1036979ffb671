"""Verifies a trace: recomputes hashes, ids, spans, quotes and texts from the stored bytes."""

import hashlib
from collections.abc import Sequence
from typing import Any

from assets.parsing.blocks import ExtractionError
from assets.parsing.sandbox import ParserLimits, sandboxed_parser
from common.ids import doc_id
from retrieval.chunking.chunker import make_chunk_id


class TraceVerifier:
    """Checks rows against what they were made from.

    Args:
        parser: The recipe's parser limits. Documents are parsed again as it says, OCR included, and in
            the parser's own process, since stored bytes may be hostile.
    """

    def __init__(self, parser: ParserLimits) -> None:
        self._parser = sandboxed_parser(parser)

    def citation_checks(
        self, citation: dict[str, Any], documents: Sequence[dict[str, Any]]
    ) -> dict[str, bool]:
        """Checks a citation against the rows of the document version that it names."""
        start, end = citation["char_start"], citation["char_end"]
        return {
            "quote_is_verbatim": any(row["text"][start:end] == citation["quote"] for row in documents),
            "content_is_cited": any(row["content_sha256"] == citation["content_sha256"] for row in documents),
        }

    def chunk_checks(self, chunk: dict[str, Any], documents: Sequence[dict[str, Any]]) -> dict[str, bool]:
        """Checks a chunk's hash, id and span against the rows of its document."""
        start, end, text = chunk["char_start"], chunk["char_end"], chunk["text"]
        return {
            "document_is_stored": bool(documents),
            "span_matches": any(row["text"][start:end] == text for row in documents),
            "chunk_id": chunk["chunk_id"] == make_chunk_id(chunk["doc_id"], chunk["text_sha256"], start),
        } | self.text_checks(chunk)

    def text_checks(self, row: dict[str, Any]) -> dict[str, bool]:
        """Checks the hash of a row's text."""
        return {"text_sha256": traced_text_sha256(row["text"]) == row["text_sha256"]}

    def document_checks(
        self, document: dict[str, Any], revisions: Sequence[dict[str, Any]]
    ) -> dict[str, bool]:
        """Checks a document's text against its stored bytes: parsing is deterministic and must give it again.

        Args:
            document: A row of `silver.documents`.
            revisions: Rows of `bronze.raw_documents` with the bytes that it was made from.
        """
        checks = {"bytes_are_stored": bool(revisions)} | self.text_checks(document)
        if revisions:
            checks["text_remade_from_bytes"] = self._extracted(revisions[0]) == document["text"]
        return checks

    def revision_checks(self, raw: dict[str, Any]) -> dict[str, bool]:
        """Checks the id of a row of `bronze.raw_documents`, and the hash and size of its bytes."""
        checks = {"doc_id": raw["doc_id"] == doc_id(raw["tenant"], raw["source"], raw["uri"])}
        if raw["body"] is not None:
            checks["content_sha256"] = hashlib.sha256(raw["body"]).hexdigest() == raw["content_sha256"]
            checks["size_bytes"] = len(raw["body"]) == raw["size_bytes"]
        return checks

    def member_checks(self, member: dict[str, Any], container: dict[str, Any]) -> dict[str, bool]:
        """Checks that a file's bytes, a row of `bronze.raw_documents`, still hold what was found inside.

        Args:
            member: The row of a document inside the file.
            container: The row of the file, with its bytes.
        """
        try:
            inside = self._parser.container_members(container["body"], container["media_type"])
            found = any(
                each.content is not None
                and hashlib.sha256(each.content).hexdigest() == member["content_sha256"]
                for each in list(inside)
            )
        except ExtractionError:
            found = False
        return {"is_inside_file": found}

    def _extracted(self, raw: dict[str, Any]) -> str | None:
        try:
            return self._parser.extract_document(raw["body"], raw["media_type"]).text
        except ExtractionError:
            return None


def traced_text_sha256(text: str) -> str:
    """Returns the hex SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
