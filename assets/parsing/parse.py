"""Raw documents to rows of `silver.documents`, or to a reason why not: the function that Spark maps."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa

from assets.lake.tables import DOCUMENTS
from assets.parsing.blocks import ExtractionError, collapse_whitespace
from assets.parsing.content_type import detect_media_type
from assets.parsing.sandbox import ParserLimits, SandboxedParser, sandboxed_parser
from assets.text.language import detect_language
from assets.text.normalization import NORMALIZER_VERSION
from assets.text.quality_filter import QualityThresholds, quality_rejections
from assets.text.signals import quality_signals

PARSER_VERSION = f"5+normalizer.{NORMALIZER_VERSION}"
"""Raised whenever the same bytes would give another row; with the thresholds it makes the config digest."""

_TAGS_TAKEN_OUT = ("text/markdown", "text/x-rst", "text/x-org", "text/html", "application/xhtml+xml")
"""Kinds whose parser takes markup out: tags in their text were quoted, as text or code."""
_STOP_ANYWHERE = ("text/plain", *_TAGS_TAKEN_OUT)
"""Kinds whose files may stop anywhere and look whole. Packages, pages, tables, records and mail have an end
that their parser misses; how their last sentence ends is their author's business."""
_VERDICT = ("stage", "expectation", "reason")
_KEPT = ("doc_id", "tenant", "source", "uri", "content_sha256", "media_type", "title", "first_seen_at")

PARSED_DOCUMENT_SCHEMA = pa.schema(
    [field.with_nullable(True) for field in DOCUMENTS.schema if field.name != "OpenLineage_RunId"]
    + [pa.field(name, pa.string()) for name in _VERDICT]
)
"""The columns of `silver.documents` without the run, and `stage`, `expectation`, `reason`.

A row with a stage belongs to `silver.quarantine`: what was to come from its bytes is null.
"""


def parse_document_batches(
    batches: Iterator[pa.RecordBatch],
    thresholds: QualityThresholds,
    limits: ParserLimits | None = None,
) -> Iterator[pa.RecordBatch]:
    """Parses documents, for `DataFrame.mapInArrow`: as many rows out as in, in the same order.

    No document stops it: one that can not be extracted, or that makes a parser fail, hang, crash or run out
    of memory, or that fails a quality threshold comes out with the stage (`extract` or `quality`), the
    expectation and the reason.

    Args:
        batches: Columns doc_id, tenant, source, uri, title, media_type, content_sha256, body, first_seen_at.
            A title that is not null wins over the one in the document.
        thresholds: What a document must hold to be kept.
        limits: What the parsing of one document may take; the defaults unless given.

    Yields:
        Batches of `PARSED_SCHEMA`.
    """
    parser = sandboxed_parser(limits or ParserLimits())
    for batch in batches:
        rows = [_parsed(row, thresholds, parser) for row in batch.to_pylist()]
        yield _with_pii(pa.RecordBatch.from_pylist(rows, schema=PARSED_DOCUMENT_SCHEMA))


def _parsed(row: dict[str, Any], thresholds: QualityThresholds, parser: SandboxedParser) -> dict[str, Any]:
    kept = {name: row[name] for name in _KEPT}
    try:
        return kept | _document(row, thresholds, parser)
    except ExtractionError as error:
        return kept | _rejected("extract", error.expectation, error.reason)
    except Exception as error:
        # Whatever a document does to a parser, the run goes on and the document is accounted for.
        return kept | _rejected("extract", "parser_error", f"{type(error).__name__}: {str(error)[:200]}")


def _document(row: dict[str, Any], thresholds: QualityThresholds, parser: SandboxedParser) -> dict[str, Any]:
    body = row["body"] or b""
    kind = row["media_type"] or detect_media_type(body, row["uri"])
    extracted = parser.extract_document(body, kind)
    text = extracted.text
    signals = quality_signals(text)
    spoken = detect_language(text)
    if failed := quality_rejections(signals | _says_nothing(kind), spoken, thresholds):
        return {"media_type": kind} | _rejected(
            "quality", failed[0].expectation, "; ".join(each.reason for each in failed)
        )
    return {
        "media_type": kind,
        "title": collapse_whitespace(row["title"] or "") or extracted.title,
        "text": text,
        "text_sha256": sha256(text.encode()).hexdigest(),
        "language": spoken,
        "char_count": len(text),
        **signals,
        "headings": [
            {"char_start": heading.char_start, "level": heading.level, "title": heading.title}
            for heading in extracted.headings
        ],
        "pages": extracted.pages,
    }


def _says_nothing(kind: str) -> dict[str, None]:
    """The signals by which a document of this kind is not judged."""
    kind = kind.partition(";")[0].strip().lower()
    signals = () if kind in _STOP_ANYWHERE else ("cut_off",)
    return dict.fromkeys((*signals, *(("markup_line_ratio",) if kind in _TAGS_TAKEN_OUT else ())))


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
