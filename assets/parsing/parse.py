"""Parses raw documents to rows of `silver.documents`, or to the reason why a document is quarantined."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa

from assets.lake.tables import DOCUMENTS
from assets.parsing.blocks import ExtractionError
from assets.parsing.content_type import detect_media_type, without_content_coding
from assets.parsing.extract import OCR_CURE
from assets.parsing.sandbox import ParserLimits, SandboxedParser, sandboxed_parser
from assets.text.normalization import NORMALIZER_VERSION, collapse_whitespace
from assets.text.readability import ReadabilityThresholds, find_unreadable
from assets.text.signals import quality_signals
from common.counts import counted
from retrieval.language.identification import detect_language

PARSER_VERSION = f"16+normalizer.{NORMALIZER_VERSION}"
"""Increased whenever the same bytes would give another row. It is part of the digest of the configuration."""

PARSER_CHANGES = {
    6: "telephone numbers are counted by their countries' numbering plans",
    7: "web pages other than articles keep all their text, and text_coverage says how much arrived",
    8: "menus before a web page's title are left out",
    9: "pictures and scanned pages are read, or say what they lack",
    10: "navigation of more makers of web pages is left out",
    11: "long tables repeat their header in each part, in every format",
    12: "letters that are struck over, as nroff writes bold ones, are read once",
    13: "text in most encodings is recognised, and the end of a source tells whether it was cut off",
    14: "notes and equations of Word documents are read, names in archives in their encoding, JSON with"
    " comments and divided Info manuals as text, accents and a menu's words in short texts are told"
    " better, and text of web pages is kept in classes of line numbers, permalinks, navigation and footers",
    15: "manual pages are read without their macros, options with what they do; code blocks are indented,"
    " alternative texts of pictures in Markdown and reStructuredText and HTML in feeds are read, and colours"
    " of terminals are left out",
    16: "words of manual pages that \\c joins are divided as the page is shown, and options in paragraphs"
    " that hang stand with what they do",
}
"""What each version of the parser changed, to be told before documents are parsed again after an upgrade."""

_LOST_TEXT_COVERAGE = 0.5
"""The coverage below which a document is quarantined."""
_VERDICT = ("stage", "expectation", "reason")

_ADDED_LATER = ("training_fit", "training_unfit_reasons", "OpenLineage_RunId")
PARSED_DOCUMENT_SCHEMA = pa.schema(
    [field.with_nullable(True) for field in DOCUMENTS.schema if field.name not in _ADDED_LATER]
    + [pa.field(name, pa.string()) for name in _VERDICT]
)
"""The columns of `silver.documents` without fitness and run, and `stage`, `expectation` and `reason`.

A row with a stage belongs to `silver.quarantine`: the columns that its bytes would fill are null.
"""


@dataclass(frozen=True, slots=True)
class DocumentToParse:
    """The columns of a row of `bronze.raw_documents` that the parser reads.

    Attributes:
        title: The title that the source gives; it has priority over the one in the document.
        media_type: The media type that the source gave; None to detect it from the bytes.
        error: Why the source could not be read, as "expectation: reason"; None where it could.
        released: Whether a person released the document from the quarantine: whatever text it has is kept.
    """

    doc_id: str
    tenant: str
    source: str
    uri: str
    title: str | None
    media_type: str | None
    content_sha256: str | None
    body: bytes | None
    error: str | None
    first_seen_at: datetime
    released: bool = False


_RAW_COLUMNS = [field.name for field in fields(DocumentToParse)]
_KEPT_COLUMNS = [name for name in _RAW_COLUMNS if name not in ("body", "error", "released")]


def parse_document_batches(
    batches: Iterator[pa.RecordBatch],
    thresholds: ReadabilityThresholds,
    limits: ParserLimits | None = None,
) -> Iterator[pa.RecordBatch]:
    """Parses batches of documents, for `DataFrame.mapInArrow`.

    No document stops the run. A document that its source could not read, that can not be extracted, that
    makes a reader fail, hang, crash or run out of memory, or whose text is damaged beyond use becomes a row
    with the stage (`read`, `extract` or `damage`), the expectation and the reason.

    Args:
        batches: Batches with the columns of `DocumentToParse`; `released` may be left out.
        thresholds: What damage is beyond use.
        limits: The bounds on parsing one document; the defaults unless given.

    Yields:
        Batches with the schema `PARSED_DOCUMENT_SCHEMA`: one row per document, in the order of the input.
    """
    parser = sandboxed_parser(limits or ParserLimits())
    for batch in batches:
        columns = [name for name in _RAW_COLUMNS if name in batch.schema.names]
        rows = [
            _parsed(DocumentToParse(**row), thresholds, parser) for row in batch.select(columns).to_pylist()
        ]
        yield _with_pii(pa.RecordBatch.from_pylist(rows, schema=PARSED_DOCUMENT_SCHEMA))


def _parsed(
    raw: DocumentToParse, thresholds: ReadabilityThresholds, parser: SandboxedParser
) -> dict[str, Any]:
    """Returns one row of `PARSED_DOCUMENT_SCHEMA`, without the count of personal data."""
    unchanged = {name: getattr(raw, name) for name in _KEPT_COLUMNS}
    if raw.error is not None:
        expectation, _, reason = raw.error.partition(": ")
        return unchanged | _rejected("read", expectation, reason)
    try:
        return unchanged | _document(raw, thresholds, parser)
    except ExtractionError as error:
        return unchanged | _rejected("extract", error.expectation, error.reason)
    except Exception as error:
        # Whatever a document does to a reader, the run goes on and the document is accounted for.
        return unchanged | _rejected("extract", "parser_error", f"{type(error).__name__}: {str(error)[:200]}")


def _document(
    raw: DocumentToParse, thresholds: ReadabilityThresholds, parser: SandboxedParser
) -> dict[str, Any]:
    body = raw.body or b""
    media_type = raw.media_type or detect_media_type(body, raw.uri)
    extracted = parser.extract_document(body, media_type)
    media_type = without_content_coding(media_type)
    text = extracted.text
    signals = quality_signals(text, extracted.end, extracted.decoding_doubt)
    if not raw.released:
        coverage = extracted.text_coverage
        if coverage is not None and coverage < _LOST_TEXT_COVERAGE:
            reason = f"Only {coverage:.0%} of the words that the source shows arrived"
            if extracted.unread_pages:
                reason += (
                    f"; {counted(extracted.unread_pages, 'page')} not read, as pictures of text: {OCR_CURE}"
                )
            return {"media_type": media_type} | _rejected("damage", "lost_in_parsing", f"{reason}.")
        if unreadable := find_unreadable(text, signals, thresholds):
            return {"media_type": media_type} | _rejected("damage", unreadable.expectation, unreadable.reason)
    language = detect_language(text)
    return {
        "media_type": media_type,
        "title": collapse_whitespace(raw.title or "") or extracted.title,
        "text": text,
        "text_sha256": sha256(text.encode()).hexdigest(),
        "language": language,
        "char_count": len(text),
        **signals,
        "headings": [
            {"char_start": heading.char_start, "level": heading.level, "title": heading.title}
            for heading in extracted.headings
        ],
        "pages": extracted.pages,
        "text_coverage": extracted.text_coverage,
    }


def _rejected(stage: str, expectation: str, reason: str) -> dict[str, str]:
    return {"stage": stage, "expectation": expectation, "reason": collapse_whitespace(reason)}


def _with_pii(batch: pa.RecordBatch) -> pa.RecordBatch:
    from quality.pii import count_pii

    texts = batch.column("text")
    present = texts.is_valid().to_numpy(zero_copy_only=False)
    counts = np.zeros(len(texts), dtype=np.int32)
    counts[present] = count_pii(texts.drop_null().to_pylist())
    place = PARSED_DOCUMENT_SCHEMA.get_field_index("pii_count")
    return batch.set_column(place, PARSED_DOCUMENT_SCHEMA.field(place), pa.array(counts, mask=~present))
