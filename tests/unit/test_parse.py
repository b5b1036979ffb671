import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from documents import make_docx, make_pdf
from pyspark.sql import SparkSession

from assets.lake.tables import DOCUMENTS
from assets.parsing import parse
from assets.parsing.blocks import ExtractedDocument
from assets.parsing.content_type import detect_media_type
from assets.parsing.parse import PARSED_DOCUMENT_SCHEMA, parse_document_batches
from assets.parsing.sandbox import ParserLimits, SandboxedParser
from assets.text.readability import ReadabilityThresholds
from assets.text.signals import QUALITY_SIGNALS

SEEN = datetime(2026, 1, 2, tzinfo=UTC)
INPUT = pa.schema(
    [
        *((name, pa.string()) for name in ("doc_id", "tenant", "source", "uri", "title", "media_type")),
        ("content_sha256", pa.string()),
        ("body", pa.binary()),
        ("error", pa.string()),
        ("first_seen_at", pa.timestamp("us", tz="UTC")),
        ("released", pa.bool_()),
    ]
)


def row(body: bytes | None, media_type: str | None, title: str | None = None) -> dict[str, Any]:
    digest = sha256(body or b"").hexdigest()
    return {
        "doc_id": digest,
        "tenant": "t",
        "source": "s",
        "uri": "file:///x",
        "title": title,
        "media_type": media_type,
        "content_sha256": digest,
        "body": body,
        "error": None,
        "first_seen_at": SEEN,
        "released": False,
    }


def parsed(*rows: dict[str, Any], **limits: Any) -> list[dict[str, Any]]:
    batches = iter([pa.RecordBatch.from_pylist(list(rows), schema=INPUT)])
    [batch] = parse_document_batches(batches, ReadabilityThresholds(), ParserLimits(**limits))
    assert batch.schema == PARSED_DOCUMENT_SCHEMA
    assert batch.num_rows == len(rows)
    found: list[dict[str, Any]] = batch.to_pylist()
    return found


def test_a_document_most_of_whose_words_were_lost_is_quarantined(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (
        b"<html><body><p>The gate refuses a document whose digest is unknown to the lake.</p></body></html>"
    )
    [kept] = parsed(row(page, "text/html"))
    assert kept["text_coverage"] == 1
    assert kept["stage"] is None

    class LosingParser(SandboxedParser):
        def extract_document(self, body: bytes, media_type: str) -> ExtractedDocument:
            return replace(super().extract_document(body, media_type), text_coverage=0.31)

    monkeypatch.setattr(parse, "sandboxed_parser", LosingParser)
    [lost] = parsed(row(page, "text/html"))
    assert (lost["stage"], lost["expectation"]) == ("damage", "lost_in_parsing")
    assert "31%" in lost["reason"]
    assert lost["text"] is None
    [released] = parsed(row(page, "text/html") | {"released": True})
    assert (released["stage"], released["text_coverage"]) == (None, 0.31)


def test_a_released_document_is_kept_whatever_its_damage_but_not_without_text() -> None:
    symbols = b"\n".join([b"%&/ (){} +*~# <>|"] * 20)
    [refused] = parsed(row(symbols, "text/plain"))
    assert (refused["stage"], refused["expectation"]) == ("damage", "min_alphanumeric_word_ratio")
    assert refused["reason"].startswith("20 lines, 80 words; 100% of the words have neither")
    kept, empty = parsed(*(row(body, "text/plain") | {"released": True} for body in (symbols, b"")))
    assert (kept["stage"], kept["text"]) == (None, symbols.decode())
    assert empty["expectation"] == "empty"


def test_schema_is_the_table_without_its_run_and_with_the_verdict() -> None:
    later = {"training_fit", "training_unfit_reasons", "OpenLineage_RunId"}
    names = [name for name in DOCUMENTS.schema.names if name not in later]
    assert [*names, "stage", "expectation", "reason"] == PARSED_DOCUMENT_SCHEMA.names


def test_accepted_document_has_every_column() -> None:
    [found] = parsed(row(b"# Widget\n\nWrite to ada@lovelace.org about the new widget.\n", "text/markdown"))
    assert found["stage"] is None
    assert found["title"] == "Widget"
    assert found["text"] == "Widget\n\nWrite to ada@lovelace.org about the new widget."
    assert found["text_sha256"] == sha256(found["text"].encode()).hexdigest()
    assert found["char_count"] == len(found["text"])
    assert found["language"] == "en"
    assert found["pii_count"] == 1
    assert found["headings"] == [{"char_start": 0, "level": 1, "title": "Widget"}]
    assert found["pages"] == []
    assert found["first_seen_at"] == SEEN
    required = [
        field.name
        for field in DOCUMENTS.schema
        if not field.nullable and field.name in PARSED_DOCUMENT_SCHEMA.names
    ]
    assert all(found[name] is not None for name in required)


def test_title_given_by_the_source_wins() -> None:
    body = b"# Inner\n\nSome words of text."
    assert parsed(row(body, "text/markdown", title="Outer \n title"))[0]["title"] == "Outer title"


def test_media_type_is_found_when_the_source_gave_none() -> None:
    [found] = parsed(row(make_docx(), None))
    assert found["media_type"].endswith("wordprocessingml.document")


def test_rejected_documents_keep_their_identity_and_their_place() -> None:
    rows = [
        row(make_pdf([["x"]], encrypted=True), "application/pdf"),
        row(b"A document that is good enough.", "text/plain"),
        row(b"short", "text/plain"),
        row(None, "text/plain"),
        row(b"a" * 101, "text/plain"),
    ]
    found = parsed(*rows, max_size_bytes=2000)
    assert [(each["stage"], each["expectation"]) for each in found] == [
        ("extract", "encrypted"),
        (None, None),
        (None, None),
        ("extract", "empty"),
        (None, None),
    ]
    for given, got in zip(rows, found, strict=True):
        for name in ("doc_id", "tenant", "source", "uri", "content_sha256", "first_seen_at"):
            assert got[name] == given[name]
        if got["stage"]:
            assert got["reason"]
            assert all(
                got[name] is None
                for name in ("text", "text_sha256", "language", "pii_count", *QUALITY_SIGNALS)
            )


def test_a_failing_parser_quarantines_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(text: str) -> str:
        raise ZeroDivisionError("no luck with " + text[:4])

    monkeypatch.setattr(parse, "detect_language", broken)
    [found] = parsed(row(b"Fine words, all of them.", "text/plain"))
    assert (found["stage"], found["expectation"]) == ("extract", "parser_error")
    assert found["reason"] == "ZeroDivisionError: no luck with Fine"


def test_is_deterministic() -> None:
    rows = [row(make_docx(), None), row(b"<p>Some words to read.</p>", "text/html")]
    assert parsed(*rows) == parsed(*rows)


def test_no_rows_give_no_rows() -> None:
    assert parsed() == []


def test_messy_files_are_kept_or_quarantined_with_a_reason(shared_data: Path) -> None:
    """The counts of docs/formats.md."""
    rows = []
    with tarfile.open(shared_data / "messy-docs.tar.gz") as archive:
        for member in archive:
            if (file := archive.extractfile(member)) is not None:
                body = file.read()
                rows.append(row(body, detect_media_type(body, member.name)) | {"uri": member.name})
    found = parsed(*rows)
    assert Counter((each["stage"], each["expectation"]) for each in found) == {
        (None, None): 110,
        ("extract", "unsupported_media_type"): 11,
        ("extract", "no_text"): 2,
        ("extract", "encrypted"): 1,
        ("extract", "empty"): 1,
    }
    assert all(each["reason"] for each in found if each["stage"])


def test_runs_in_spark(spark: SparkSession) -> None:
    from pyspark.sql.pandas.types import from_arrow_schema

    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return parse_document_batches(iter(batches), ReadabilityThresholds())

    rows = [row(f"This is document number {n} of some.".encode(), "text/plain") for n in range(5)]
    rows.append(row(b"", "text/plain"))
    frame = spark.createDataFrame(pa.Table.from_pylist(rows, schema=INPUT))
    found = frame.mapInArrow(run, from_arrow_schema(PARSED_DOCUMENT_SCHEMA)).collect()
    assert sorted(str(each["expectation"]) for each in found) == ["None"] * 5 + ["empty"]
