"""Reads PDF by PDFium."""

import itertools
import re
from collections import deque
from ctypes import c_double
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.formats.paged.picture import TextRecogniser
from assets.parsing.formats.paged.scan import drawn_page, is_blank, is_scan

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfTextPage

_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
# PDFium marks a word that is broken at a line's end; it joins the halves or keeps the line end after the
# mark.
_BROKEN_WORD = re.compile("([^\\W_]*)[\x02\ufffe]\n?([^\\W_]*)")
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_NUMBER = re.compile(r"\d+")
_MAX_PAGES = 20_000
_PARAGRAPH_GAP = 1.35  # in the page's usual distances between lines
_COLUMN_JUMP = 3.0
_SAME_LINE = 0.6
_CLOSING = frozenset(",.;:)]}")
_MAX_EDGE_LINES = 4  # of one group of a running header or footer
_MAX_EDGE_GROUPS = 3  # of lines with space between, in a running header or footer
_PAGE_WORDS = {"page", "p.", "pg.", "seite", "página", "pagina", "стр."}
_MIN_COLUMN_LINES = 8
_MIN_COLUMN_WORDS = 4  # per line
_COLUMN_FILL = 0.8
_MIN_CONTINUED_SHARE = 0.5  # of a column's lines continue a sentence
_SAMPLED_LINES = 24
_MAX_PROSE_LINE_CHARS = 1000


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a page or column: its offsets in the page's text, and its ends in points."""

    start: int
    end: int
    text: str
    left: float
    right: float
    first_y: float
    last_y: float


def read_pdf(body: bytes, recognise: TextRecogniser | None = None) -> DocumentBlocks:
    """Returns the text layer of a PDF as paragraphs, page by page, with bookmarks as headings.

    A bookmark becomes a heading if its title is a line of its page. Columns are read one after the other,
    also where the page draws them line by line across. Running headers, footers and page numbers are left
    out: lines at the edge of a page that also stand there on one of the two pages before. A word that is
    divided at the end of a line is joined, with a hyphen if the document's other words show that it has one.

    Args:
        body: The file's bytes.
        recognise: OCR for pages that are scans or have no text layer: returns the paragraphs in a picture, as
            `ocr.recognise_text` does. Without it, scans are counted as unread pages.

    Raises:
        ExtractionError: `encrypted` if the file opens only with a password; `unreadable` if PDFium can not
            read it; `no_text` if all pages are pictures; `oversize` beyond 20,000 pages.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(body)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise ExtractionError("encrypted", "The PDF opens only with a password.") from error
        raise ExtractionError("unreadable", f"The PDF can not be read: {str(error).rstrip('.')}.") from error
    try:
        return _content(document, recognise)
    finally:
        document.close()


def _content(document: "PdfDocument", recognise: TextRecogniser | None) -> DocumentBlocks:
    if len(document) > _MAX_PAGES:
        limit = f"{_MAX_PAGES:,} is the limit"
        raise ExtractionError("oversize", f"The PDF has {len(document):,} pages; {limit}.")
    bookmarks = _bookmarks(document)
    blocks: list[TextBlock] = []
    visible: list[str] = []
    unread_pages = 0
    edges: deque[tuple[set[str], set[str]]] = deque([(set(), set())] * 2, maxlen=2)
    for number in range(len(document)):
        page = document[number]
        textpage = page.get_textpage()
        lines = _without_running(_lines(textpage), number, edges) if textpage.count_chars() else []
        paragraphs = _paragraphs(textpage, lines) if lines else []
        words = _word_count(paragraphs)
        if recognise is None:
            unread_pages += is_scan(page, words)
        elif is_scan(page, words) or not (textpage.count_chars() or is_blank(page)):
            recognised = recognise(drawn_page(page))
            if _word_count(recognised) > words:
                paragraphs, lines = recognised, []
        visible += (line.text for line in lines)
        for paragraph in paragraphs:
            blocks += _with_headings(paragraph, number + 1, bookmarks.get(number, {}))
        textpage.close()
        page.close()
    if not any(block.text.strip() for block in blocks):
        reason = "The PDF has no text layer: it is a scan or drawn, and needs OCR"
        cure = "make setup EXTRAS=ocr, and set it to true" if recognise is None else "nothing was recognised"
        raise ExtractionError("no_text", f"{reason} (HEADWATER_RECIPE__PARSER__OCR): {cure}.")
    title = document.get_metadata_value("Title")
    shown = "\n".join(visible).translate(_LIGATURES)
    return DocumentBlocks(_mended(blocks), title, len(document), shown, unread_pages)


def _word_count(paragraphs: list[str]) -> int:
    return sum(len(paragraph.split()) for paragraph in paragraphs)


def _bookmarks(document: "PdfDocument") -> dict[int, dict[str, int]]:
    """Returns the levels of bookmarks by page index and by title in lower case without spaces."""
    found: dict[int, dict[str, int]] = {}
    for mark in document.get_toc(max_depth=6):
        target = mark.get_dest()
        page = target.get_index() if target else None
        if page is not None:
            found.setdefault(page, {})[_key(mark.get_title())] = mark.level + 1
    return found


def _key(text: str) -> str:
    return "".join(text.split()).casefold()


def _paragraphs(textpage: "PdfTextPage", lines: list[_Line]) -> list[str]:
    """Returns a page's text, split where the distance of two lines shows that a paragraph or column ended."""
    columns = _columns(textpage, lines)
    pitches = np.nan_to_num([a.last_y - b.first_y for a, b in itertools.pairwise(columns)])
    usual = np.quantile(pitches[pitches > 1], 0.5, method="lower") if (pitches > 1).any() else np.inf
    parts = [line.text for line in columns[:1]]
    for pitch, line in zip(pitches, columns[1:], strict=True):
        parts += [_joint(pitch / usual, line.text), line.text]
    return "".join(parts).translate(_LIGATURES).split("\n\n")


def _lines(textpage: "PdfTextPage") -> list[_Line]:
    """Returns the lines of a page as PDFium separates them."""
    lines, start = [], 0
    for text in textpage.get_text_range().split("\r\n"):
        end = start + len(text)
        lines.append(_line(textpage, text, start, end))
        start = end + 2
    return lines


def _line(textpage: "PdfTextPage", text: str, start: int, end: int) -> _Line:
    (left, first_y), (right, last_y) = _origin(textpage, start), _origin(textpage, end - 1)
    return _Line(start, end, text, left, right, first_y, last_y)


def _origin(textpage: "PdfTextPage", index: int) -> tuple[float, float]:
    """Returns the position of a character's origin, in points."""
    import pypdfium2.raw as pdfium

    x, y = c_double(), c_double()
    if index < 0 or not pdfium.FPDFText_GetCharOrigin(textpage, index, x, y):
        return float("nan"), float("nan")
    return x.value, y.value


def _joint(pitch: float, following: str) -> str:
    """Returns the text between two lines, by their distance in usual distances between lines."""
    if pitch > _PARAGRAPH_GAP or pitch < -_COLUMN_JUMP:
        return "\n\n"
    if abs(pitch) < _SAME_LINE:  # a superscript, or the next cell of a table's row
        return "" if following[:1] in _CLOSING else " "
    return "\n"


def _columns(textpage: "PdfTextPage", lines: list[_Line]) -> list[_Line]:
    """Returns lines in reading order: lines that run across two columns of prose are split.

    The left column comes first. Rows of a table have such a gap as well, but stay as they are. Their cells
    are short, leave much of their column empty, and begin like a name or a number.
    """
    gutter = _gutter(textpage, lines)
    if gutter is None:
        return lines
    ordered: list[_Line] = []
    sides: tuple[list[_Line], list[_Line]] = ([], [])
    for line in lines:
        halves = _halves(textpage, line, gutter)
        if len(halves) == 1 and line.left < gutter < line.right:  # a heading over both columns, or a footer
            ordered += [*_columns(textpage, sides[0]), *_columns(textpage, sides[1]), line]
            sides = ([], [])
            continue
        for half in halves:
            sides[half.left > gutter].append(half)
    return [*ordered, *_columns(textpage, sides[0]), *_columns(textpage, sides[1])]


def _gutter(textpage: "PdfTextPage", lines: list[_Line]) -> float | None:
    """Returns the middle of the gap between two columns of prose, which most of the widest lines have."""
    if not lines:
        return None
    width = max(line.right for line in lines) - min(line.left for line in lines)
    wide = [
        line
        for line in lines
        if line.right - line.left > 0.6 * width and len(line.text) < _MAX_PROSE_LINE_CHARS
    ]
    if len(wide) < _MIN_COLUMN_LINES or len(wide) < 0.3 * len(lines):
        return None
    sample = wide[:: -(-len(wide) // _SAMPLED_LINES)]
    gaps = [_gaps(textpage, line) for line in sample]
    middles = [(left + right) / 2 for found in gaps for left, right in found]
    held = [sum(any(left < middle < right for left, right in found) for found in gaps) for middle in middles]
    if not held or max(held) < max(_MIN_COLUMN_LINES, 0.7 * len(sample)):
        return None
    gutter = middles[int(np.argmax(held))]
    halves = [found for line in sample if len(found := _halves(textpage, line, gutter)) == 2]
    if not halves:
        return None
    return gutter if all(map(_is_prose, zip(*halves, strict=True))) else None


def _is_prose(column: tuple[_Line, ...]) -> bool:
    """Whether the lines of a column are long, fill it, and mostly begin in the middle of a sentence."""
    widths = np.array([line.right - line.left for line in column])
    words = np.median([len(line.text.split()) for line in column])
    begins = [line.text.lstrip()[:1] for line in column]
    continued = sum(letter.isalpha() and not letter.isupper() for letter in begins)
    return bool(
        words >= _MIN_COLUMN_WORDS
        and np.median(widths) >= _COLUMN_FILL * widths.max()
        and continued >= _MIN_CONTINUED_SHARE * len(column)
    )


def _gaps(textpage: "PdfTextPage", line: _Line) -> list[tuple[float, float]]:
    """Returns the ends, in points, of the gaps in a line that are wider than its letters are high."""
    found = []
    for match in re.finditer(" +", line.text):
        if not 0 < match.start() < match.end() < len(line.text):
            continue
        _, bottom, left, top = textpage.get_charbox(line.start + match.start() - 1, loose=True)
        right = textpage.get_charbox(line.start + match.end(), loose=True)[0]
        if right - left > 0.9 * (top - bottom):
            found.append((left, right))
    return found


def _halves(textpage: "PdfTextPage", line: _Line, gutter: float) -> list[_Line]:
    """Returns the parts of a line before and after a gutter, or the line itself if it has no gap there."""
    if not line.left < gutter < line.right:
        return [line]
    for match in re.finditer(" +", line.text):
        after = line.start + match.end()
        if _origin(textpage, after)[0] > gutter:
            before = line.start + match.start()
            if _gaps_over(textpage, before - 1, after, gutter):
                left, right = line.text[: match.start()], line.text[match.end() :]
                return [
                    _line(textpage, left, line.start, before),
                    _line(textpage, right, after, line.end),
                ]
            break
    return [line]


def _gaps_over(textpage: "PdfTextPage", before: int, after: int, gutter: float) -> bool:
    """Whether two neighbouring characters are on different sides of a gutter."""
    return bool(textpage.get_charbox(before)[2] < gutter < textpage.get_charbox(after)[0])


def _without_running(lines: list[_Line], number: int, edges: deque[tuple[set[str], set[str]]]) -> list[_Line]:
    """Returns the lines without running headers and footers.

    These are lines that one of the two pages before has at the same edge. It takes two pages because left and
    right pages often differ. The first page of a run keeps its header and footer. Lines that differ only in a
    number that grows with the pages are the same.

    Args:
        lines: The lines of the page.
        number: The index of the page, from 0.
        edges: The lines at the top and bottom of the two pages before; those of this page are appended.
    """
    ordered = sorted((line for line in lines if line.text.strip()), key=lambda line: -line.first_y)
    heights = np.nan_to_num([line.first_y for line in ordered])
    steps = -np.diff(heights)
    usual = np.median(steps[steps > 1]) if (steps > 1).any() else np.inf
    # An edge is separated from the text by a wider distance; the head of a table above its rows is not.
    cuts = [index + 1 for index in np.flatnonzero(steps > _PARAGRAPH_GAP * usual).tolist()]
    groups = [ordered[start:end] for start, end in itertools.pairwise([0, *cuts, len(ordered)])]
    text = max(groups, key=lambda group: sum(len(line.text) for line in group))
    running: set[int] = set()
    stood: list[set[str]] = []
    for side, outer in enumerate((groups[:_MAX_EDGE_GROUPS], groups[: -_MAX_EDGE_GROUPS - 1 : -1])):
        before = edges[0][side] | edges[1][side]
        stood.append(set())
        whole = open_edge = True
        for group in outer:
            if len(group) > _MAX_EDGE_LINES:
                break
            names = [_running_names(line.text, number) for line in group]
            stood[side].update(*names)
            repeated = {line.start for line, said in zip(group, names, strict=True) if said & before}
            whole = whole and len(repeated) == len(group)
            running |= repeated if whole or (open_edge and group is not text) else set()
            open_edge = whole
    edges.append((stood[0], stood[1]))
    return [line for line in lines if line.start not in running]


def _running_names(text: str, number: int) -> set[str]:
    """Returns the names of a line as a running header: its text, with and without a page number.

    A word with a number is no header: "Question 7" is the subject of its page.
    """
    text = " ".join(text.split()).casefold()
    names = {text} if any(map(str.isalpha, text)) else set()
    for found in _NUMBER.finditer(text):
        rest = f"{text[: found.start()]}#{text[found.end() :]}"
        words = [word for word in rest.split() if any(map(str.isalpha, word))]
        if len(found[0]) < 6 and (len(words) != 1 or words[0] in _PAGE_WORDS):
            names.add(f"{int(found[0]) - number}:{rest}")
    return names


def _mended(blocks: list[TextBlock]) -> list[TextBlock]:
    """Returns the blocks with the words joined that were broken at a line's end."""
    if not any("\x02" in block.text or "\ufffe" in block.text for block in blocks):
        return blocks
    whole = (_BROKEN_WORD.sub(" ", block.text).casefold() for block in blocks)
    known = {word for text in whole for word in _WORD.findall(text)}

    def joined(broken: re.Match[str]) -> str:
        return broken[1] + ("-" if _is_compound(broken[1], broken[2], known) else "") + broken[2]

    return [replace(block, text=_BROKEN_WORD.sub(joined, block.text)) for block in blocks]


def _is_compound(left: str, right: str, known: set[str]) -> bool:
    """Whether a broken word has its hyphen also within a line, judged by the document's other words."""
    first, second = left.casefold(), right.casefold()
    if not first or not second or first + second in known:
        return False
    if f"{first}-{second}" in known or first[-1].isdigit() or second[0].isdigit():
        return True
    if right[0].isupper() and not left.isupper():
        return True
    return len(first) > 2 and len(second) > 2 and first in known and second in known


def _with_headings(paragraph: str, page: int, bookmarks: dict[str, int]) -> list[TextBlock]:
    """Splits the title of a bookmark, of up to three lines, from the beginning of a paragraph."""
    if bookmarks:
        lines = paragraph.strip().split("\n")
        for count in range(1, min(3, len(lines)) + 1):
            if level := bookmarks.get(_key(_BROKEN_WORD.sub(r"\1\2", "".join(lines[:count])))):
                return [
                    TextBlock(" ".join(lines[:count]), level, page),
                    *_with_headings("\n".join(lines[count:]), page, bookmarks),
                ]
    return [TextBlock(paragraph, None, page)]
