"""PDF to blocks, through PDFium."""

import re
from ctypes import c_double
from typing import TYPE_CHECKING

import numpy as np

from assets.transforms.blocks import Block, Content, ExtractionError

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfTextPage

_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
# PDFium marks a word broken at a line's end; it joins the halves or leaves the line end after the mark.
_BROKEN_WORD = re.compile("[\x02\ufffe]\n?")
_MAX_PAGES = 20_000
_PARAGRAPH_GAP = 1.35  # in the page's usual distance between lines
_COLUMN_JUMP = 3.0
_SAME_LINE = 0.6
_CLOSING = frozenset(",.;:)]}")


def read_pdf(body: bytes) -> Content:
    """The text layer of each page, in paragraphs; bookmarks that stand as a line on their page are headings.

    Raises:
        ExtractionError: `encrypted` when it opens with a password only, `unreadable` when PDFium can not read
            it, `no_text` when its pages are pictures, `oversize` beyond 20,000 pages.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(body)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise ExtractionError("encrypted", "The PDF opens only with a password.") from error
        raise ExtractionError("unreadable", f"The PDF can not be read: {error}.") from error
    try:
        return _content(document)
    finally:
        document.close()


def _content(document: "PdfDocument") -> Content:
    if len(document) > _MAX_PAGES:
        limit = f"{_MAX_PAGES:,} is the limit"
        raise ExtractionError("oversize", f"The PDF has {len(document):,} pages; {limit}.")
    bookmarks = _bookmarks(document)
    blocks: list[Block] = []
    for number in range(len(document)):
        page = document[number]
        textpage = page.get_textpage()
        for paragraph in _paragraphs(textpage):
            blocks += _with_headings(paragraph, number + 1, bookmarks.get(number, {}))
        textpage.close()
        page.close()
    if not any(block.text.strip() for block in blocks):
        raise ExtractionError("no_text", "The PDF has no text layer: it is a scan or drawn, and needs OCR.")
    return Content(blocks, document.get_metadata_value("Title"), len(document))


def _bookmarks(document: "PdfDocument") -> dict[int, dict[str, int]]:
    """Page index to (bookmark title without spaces, its level)."""
    found: dict[int, dict[str, int]] = {}
    for mark in document.get_toc(max_depth=6):
        target = mark.get_dest()
        page = target.get_index() if target else None
        if page is not None:
            found.setdefault(page, {})[_key(mark.get_title())] = mark.level + 1
    return found


def _key(text: str) -> str:
    return "".join(text.split()).casefold()


def _paragraphs(textpage: "PdfTextPage") -> list[str]:
    """The page's text, cut where the distance between two lines says that a paragraph or column ended."""
    text = textpage.get_text_range()
    ends = [match.start() for match in re.finditer("\r\n", text)]
    pitches = np.array([_pitch(textpage, end - 1, end + 2) for end in ends])
    usual = np.quantile(pitches[pitches > 1], 0.5, method="lower") if (pitches > 1).any() else np.inf
    lines = text.split("\r\n")
    parts = lines[:1]
    for pitch, line in zip(pitches, lines[1:], strict=True):
        parts += [_joint(pitch / usual, line), line]
    return _BROKEN_WORD.sub("", "".join(parts)).translate(_LIGATURES).split("\n\n")


def _joint(pitch: float, following: str) -> str:
    """What stands between two lines, from their distance in usual distances between lines."""
    if pitch > _PARAGRAPH_GAP or pitch < -_COLUMN_JUMP:
        return "\n\n"
    if abs(pitch) < _SAME_LINE:  # a superscript, or the next cell of a table's row
        return "" if following[:1] in _CLOSING else " "
    return "\n"


def _pitch(textpage: "PdfTextPage", before: int, after: int) -> float:
    """How far, in points, the line that starts at a character lies below the one that ends at another."""
    import pypdfium2.raw as pdfium

    bottoms = []
    for index in (before, after):
        x, y = c_double(), c_double()
        if index < 0 or not pdfium.FPDFText_GetCharOrigin(textpage, index, x, y):
            return 0.0
        bottoms.append(y.value)
    return bottoms[0] - bottoms[1]


def _with_headings(paragraph: str, page: int, bookmarks: dict[str, int]) -> list[Block]:
    """Splits a bookmark's title, which can run over several lines, off the start of a paragraph."""
    if bookmarks:
        lines = paragraph.strip().split("\n")
        for count in range(1, min(3, len(lines)) + 1):
            if level := bookmarks.get(_key("".join(lines[:count]))):
                return [
                    Block(" ".join(lines[:count]), level, page),
                    *_with_headings("\n".join(lines[count:]), page, bookmarks),
                ]
    return [Block(paragraph, None, page)]
