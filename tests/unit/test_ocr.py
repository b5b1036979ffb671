"""Scanned pages: recognised where that is wanted and can be, else refused with the cure."""

import importlib.util
import io

import pytest
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError

from assets.parsing.blocks import ExtractionError
from assets.parsing.extract import extract_document
from assets.parsing.sandbox import ParserLimits, SandboxedParser
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
PDF = "application/pdf"
installed = pytest.mark.skipif(importlib.util.find_spec("rapidocr") is None, reason="needs the extra `ocr`")


def scanned(*pages: list[str]) -> bytes:
    """A PDF of pictures of text, at 200 dots an inch."""
    font = ImageFont.load_default(size=30)
    pictures = []
    for lines in pages:
        picture = Image.new("RGB", (1654, 2339), "white")
        for number, line in enumerate(lines):
            ImageDraw.Draw(picture).text((150, 200 + 48 * number), line, fill="black", font=font)
        pictures.append(picture)
    file = io.BytesIO()
    pictures[0].save(file, "PDF", resolution=200, save_all=True, append_images=pictures[1:])
    return file.getvalue()


def test_a_scan_is_refused_and_the_cure_named() -> None:
    with pytest.raises(ExtractionError, match=r"needs OCR \(HEADWATER_RECIPE__PARSER__OCR\)") as refused:
        extract_document(scanned(LINES), PDF)
    assert refused.value.expectation == "no_text"


@installed
def test_a_scan_is_read_in_paragraphs_in_the_parsers_own_process() -> None:
    parser = SandboxedParser(ParserLimits(ocr=True, timeout_s=120))
    try:
        found = parser.extract_document(scanned(LINES, [], ["Annex: two ropes."]), PDF)
    finally:
        parser.close()
    paragraphs = ["Lease of the harbor crane", "\n".join(LINES[2:4]), "\n".join(LINES[5:])]
    assert found.text == "\n\n".join([*paragraphs, "Annex: two ropes."])
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
