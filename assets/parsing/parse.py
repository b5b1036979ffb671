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
from assets.parsing.sandbox import ParserLimits, SandboxedParser, sandboxed_parser
from assets.text.language import detect_language
from assets.text.normalization import NORMALIZER_VERSION, collapse_whitespace
from assets.text.quality_filter import QualityThresholds, quality_rejections
from assets.text.signals import quality_signals

PARSER_VERSION = f"8+normalizer.{NORMALIZER_VERSION}"
"""Increased whenever the same bytes would give another row. It is part of the digest of the configuration."""

_LOST_TEXT_COVERAGE = 0.5
"""The coverage below which a document is quarantined."""
_MARKUP_REMOVED = ("text/markdown", "text/x-rst", "text/x-org", "text/html", "application/xhtml+xml")
"""Media types whose reader removes markup: tags that are left in the text were quoted, as text or code."""
_CAN_BE_CUT_OFF = ("text/plain", *_MARKUP_REMOVED)
"""Media types whose files can be cut off without a reader noticing. Packages, pages, tables, records and mail
have an end that their reader misses, so how their last sentence ends is up to their author."""
_VERDICT = ("stage", "expectation", "reason")

PARSED_DOCUMENT_SCHEMA = pa.schema(
    [field.with_nullable(True) for field in DOCUMENTS.schema if field.name != "OpenLineage_RunId"]
    + [pa.field(name, pa.string()) for name in _VERDICT]
)
"""The columns of `silver.documents` without the run, and `stage`, `expectation` and `reason`.

A row with a stage belongs to `silver.quarantine`: the columns that its bytes would fill are null.
"""


@dataclass(frozen=True, slots=True)
class DocumentToParse:
    """The columns of a row of `bronze.raw_documents` that the parser reads.

    Attributes:
        title: The title that the source gives; it has priority over the one in the document.
        media_type: The media type that the source gave; None to detect it from the bytes.
        error: Why the source could not be read, as "expectation: reason"; None where it could.
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


_RAW_COLUMNS = [field.name for field in fields(DocumentToParse)]
_KEPT_COLUMNS = [name for name in _RAW_COLUMNS if name not in ("body", "error")]


def parse_document_batches(
    batches: Iterator[pa.RecordBatch],
    thresholds: QualityThresholds,
    limits: ParserLimits | None = None,
) -> Iterator[pa.RecordBatch]:
    """Parses batches of documents, for `DataFrame.mapInArrow`.

    No document stops the run. A document that its source could not read, that can not be extracted, that
    makes a reader fail, hang, crash or run out of memory, or that fails a quality threshold becomes a row
    with the stage (`read`, `extract` or `quality`), the expectation and the reason.

    Args:
        batches: Batches with the columns of `DocumentToParse`.
        thresholds: The quality thresholds that a document must pass.
        limits: The bounds on parsing one document; the defaults unless given.

    Yields:
        Batches with the schema `PARSED_DOCUMENT_SCHEMA`: one row per document, in the order of the input.
    """
    parser = sandboxed_parser(limits or ParserLimits())
    for batch in batches:
        rows = [
            _parsed(DocumentToParse(**row), thresholds, parser)
            for row in batch.select(_RAW_COLUMNS).to_pylist()
        ]
        yield _with_pii(pa.RecordBatch.from_pylist(rows, schema=PARSED_DOCUMENT_SCHEMA))


def _parsed(raw: DocumentToParse, thresholds: QualityThresholds, parser: SandboxedParser) -> dict[str, Any]:
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


def _document(raw: DocumentToParse, thresholds: QualityThresholds, parser: SandboxedParser) -> dict[str, Any]:
    body = raw.body or b""
    media_type = raw.media_type or detect_media_type(body, raw.uri)
    extracted = parser.extract_document(body, media_type)
    media_type = without_content_coding(media_type)
    text = extracted.text
    if extracted.text_coverage is not None and extracted.text_coverage < _LOST_TEXT_COVERAGE:
        share = f"{extracted.text_coverage:.0%} of the words that the source shows arrived"
        raise ExtractionError("lost_in_parsing", f"The text was lost in parsing: {share}.")
    signals = quality_signals(text)
    language = detect_language(text)
    judged = signals | dict.fromkeys(_meaningless_signals(media_type))
    if failed := quality_rejections(judged, language, thresholds):
        reason = "; ".join(each.reason for each in failed)
        return {"media_type": media_type} | _rejected("quality", failed[0].expectation, reason)
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


def _meaningless_signals(media_type: str) -> list[str]:
    """Returns the signals that say nothing about documents of a media type."""
    media_type = media_type.partition(";")[0].strip().lower()
    signals = [] if media_type in _CAN_BE_CUT_OFF else ["cut_off"]
    return [*signals, "markup_line_ratio"] if media_type in _MARKUP_REMOVED else signals


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
