"""Scanned pages: recognised where that is wanted and can be, else refused with the cure."""

import importlib.util
import io
from dataclasses import fields
from typing import Any

import pyarrow as pa
import pypdfium2
import pytest
from documents import make_pdf
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError

from assets.parsing import sandbox
from assets.parsing.blocks import ExtractionError
from assets.parsing.extract import extract_document
from assets.parsing.parse import DocumentToParse, parse_document_batches
from assets.parsing.sandbox import ParserLimits, SandboxedParser
from assets.parsing.worker import PAGE_RECOGNISED
from assets.text.readability import ReadabilityThresholds
from orchestration.tracing.verify import TraceVerifier, traced_text_sha256

LINES = [
    "Lease of the harbor crane",
    "",
    "The crane is let for twelve months from the first of March.",
    "Its driver is paid by the harbor, its repairs by the tenant.",
    "",
    "Either side may end the lease with a notice of 30 days,",
    "in writing, to the address given above.",
]
PARAGRAPHS = ["Lease of the harbor crane", "\n".join(LINES[2:4]), "\n".join(LINES[5:])]
TYPED = [f"Line {n} of a page that was typed and says what the harbor is." for n in range(20)]
PDF = "application/pdf"
installed = pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="needs the extra `ocr`")


def drawn(lines: list[str]) -> Image.Image:
    """A page of A4 with lines of text, at 200 dots an inch."""
    font = ImageFont.load_default(size=30)
    picture = Image.new("RGB", (1654, 2339), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(picture).text((150, 200 + 48 * number), line, fill="black", font=font)
    return picture


def saved(kind: str, *pages: list[str]) -> bytes:
    pictures = [drawn(lines) for lines in pages]
    file = io.BytesIO()
    several = {"save_all": True, "append_images": pictures[1:]} if len(pictures) > 1 else {}
    pictures[0].save(file, kind, resolution=200, **several)
    return file.getvalue()


def scanned(*pages: list[str]) -> bytes:
    """A PDF of pictures of text."""
    return saved("PDF", *pages)


def mixed(scans: int = 1, stamp: str = "") -> bytes:
    """A PDF of two pages of text with scans between them, which may bear a stamp in letters."""
    document = pypdfium2.PdfDocument(make_pdf([TYPED, TYPED]))
    document.import_pages(pypdfium2.PdfDocument(scanned(*[LINES] * scans)), index=1)
    if stamp:
        over = pypdfium2.PdfDocument(make_pdf([[stamp]])).page_as_xobject(0, document)
        page = document[1]
        page.insert_obj(over.as_pageobject())
        page.gen_content()
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def test_a_scan_is_refused_and_the_cure_named() -> None:
    with pytest.raises(ExtractionError, match=r"needs OCR \(HEADWATER_RECIPE__PARSER__OCR\)") as refused:
        extract_document(scanned(LINES), PDF)
    assert refused.value.expectation == "no_text"


@pytest.mark.parametrize("stamp", ["", "Received 3 March, archive 17"])
def test_scans_among_pages_of_text_are_seen_in_the_coverage(stamp: str) -> None:
    found = extract_document(mixed(1, stamp), PDF)
    assert found.text.count("Line 19") == 2
    assert found.text_coverage == pytest.approx(2 / 3)
    assert found.unread_pages == 1
    whole = extract_document(make_pdf([TYPED, [], TYPED]), PDF)  # nothing is on the page in the middle
    assert (whole.text_coverage, whole.unread_pages) == (1, 0)


def test_a_pdf_most_of_which_are_scans_is_quarantined_with_the_cure() -> None:
    row: dict[str, Any] = dict.fromkeys(field.name for field in fields(DocumentToParse))
    row |= {"body": mixed(4), "media_type": PDF}
    [batch] = parse_document_batches(iter([pa.RecordBatch.from_pylist([row])]), ReadabilityThresholds())
    [lost] = batch.to_pylist()
    assert (lost["stage"], lost["expectation"]) == ("damage", "lost_in_parsing")
    assert "4 pages not read, as pictures of text: make setup EXTRAS=ocr" in lost["reason"]


@installed
@pytest.mark.parametrize("stamp", ["", "Received 3 March, archive 17"])
def test_a_single_scan_among_pages_of_text_is_recognised(stamp: str) -> None:
    found = extract_document(mixed(1, stamp), PDF, ocr=True)
    second = found.text[found.pages[1] : found.pages[2]].strip()
    assert second.startswith(stamp)
    assert PARAGRAPHS[1] in second
    assert (found.text_coverage, found.unread_pages) == (1, 0)


@installed
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_picture_is_read_in_the_parsers_own_process(kind: str) -> None:
    parser = SandboxedParser(ParserLimits(ocr=True))
    try:
        found = parser.extract_document(saved(kind, LINES), f"image/{kind.lower()}")
        assert found.text == "\n\n".join(PARAGRAPHS)
        with pytest.raises(ExtractionError, match="No text was recognised") as refused:
            parser.extract_document(saved(kind, []), f"image/{kind.lower()}")
        assert refused.value.expectation == "no_text"
    finally:
        parser.close()


@installed
def test_each_page_of_a_scan_is_said_when_it_is_recognised() -> None:
    said: list[int] = []
    extract_document(
        saved("TIFF", LINES[:1], LINES[:1]), "image/tiff", ocr=True, on_page=lambda: said.append(1)
    )
    assert len(said) == 2


def test_each_recognised_page_gives_a_scan_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [PAGE_RECOGNISED] * 3 + [extracted_fields("All pages.")]
    parser = SandboxedParser(ParserLimits(timeout_s=7))
    monkeypatch.setattr(parser, "_send", lambda *_: None)
    waited: list[float] = []

    def answer(timeout_s: float) -> dict[str, Any]:
        waited.append(timeout_s)
        return answers.pop(0)

    monkeypatch.setattr(parser, "_answer", answer)
    assert parser.extract_document(b"x", PDF).text == "All pages."
    assert waited == [7] * 4
    monkeypatch.setattr(sandbox, "_MAX_RECOGNISED_TIMEOUTS", 0.5)
    answers += [PAGE_RECOGNISED, extracted_fields("")]
    parser.extract_document(b"x", PDF)
    assert all(timeout_s <= 3.5 for timeout_s in waited[4:])  # of all pages together


def extracted_fields(text: str) -> dict[str, Any]:
    """What the process answers for a document."""
    structure: dict[str, Any] = {"headings": [], "pages": [], "text_coverage": None, "unread_pages": 0}
    structure |= {"end": "unknown", "decoding_doubt": 0.0}
    return structure | {"title": None, "text": text}


@installed
def test_a_scan_is_read_in_paragraphs_in_the_parsers_own_process() -> None:
    parser = SandboxedParser(ParserLimits(ocr=True, timeout_s=120))
    try:
        found = parser.extract_document(scanned(LINES, [], ["Annex: two ropes."]), PDF)
    finally:
        parser.close()
    assert found.text == "\n\n".join([*PARAGRAPHS, "Annex: two ropes."])
    assert found.pages
    assert len(found.pages) == 3


@installed
def test_a_recognised_scan_is_verified_by_recognising_it_again() -> None:
    limits, body = ParserLimits(ocr=True, timeout_s=120), scanned(LINES)
    text = SandboxedParser(limits).extract_document(body, PDF).text
    document = {"text": text, "text_sha256": traced_text_sha256(text)}
    checks = TraceVerifier(limits).document_checks(document, [{"body": body, "media_type": PDF}])
    assert checks["text_remade_from_bytes"]


@installed
def test_pages_in_which_nothing_is_recognised_are_refused() -> None:
    with pytest.raises(ExtractionError, match="no text layer"):
        extract_document(scanned([]), PDF, ocr=True)


def test_ocr_without_its_packages_is_a_setting_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValidationError, match="make setup EXTRAS=ocr"):
        ParserLimits(ocr=True)
