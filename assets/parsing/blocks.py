"""The blocks that every format reader returns, and their assembly to a document's text and offsets."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from assets.text.damage import SourceEnd
from assets.text.normalization import collapse_whitespace, normalize_text

# What programs write as the title if their user did not.
_MADE_BY = re.compile(r"^Microsoft (?:Word|PowerPoint|Excel) - ")
_PLACEHOLDERS = {"", "untitled", "untitled document", "untitled spreadsheet", "word document", "document"}
_PLACEHOLDERS |= {"powerpoint presentation", "presentation", "slide 1"}
_WORD = re.compile(r"\w+")
_MIN_COVERED_WORDS = 10


class ExtractionError(Exception):
    """The text of a document can not be extracted.

    Attributes:
        expectation: The name, in snake_case, of the expectation that the document does not meet.
        reason: A sentence that says why.
    """

    def __init__(self, expectation: str, reason: str) -> None:
        super().__init__(expectation, reason)
        self.expectation = expectation
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TextBlock:
    """A paragraph, list, table, code block or heading, as a reader found it.

    Attributes:
        text: Its text with line breaks, not yet normalised.
        level: The level of a heading, from 1; None for any other block.
        page: The number of its page, from 1; None where the format has no pages.
    """

    text: str
    level: int | None = None
    page: int | None = None


@dataclass(frozen=True, slots=True)
class DocumentBlocks:
    """What a reader returns for a document.

    Attributes:
        blocks: The blocks in reading order.
        title: The title in the format's metadata, if any; without one, a heading becomes the title.
        page_count: The number of pages; 0 where the format has none.
        visible_text: The text of the source without navigation and hidden parts, found in another way than
            the blocks, to measure how much of it arrived; None where that has no meaning.
        unread_pages: The number of pages that are pictures of text and were not recognised.
    """

    blocks: list[TextBlock]
    title: str | None = None
    page_count: int = 0
    visible_text: str | None = None
    unread_pages: int = 0


@dataclass(frozen=True, slots=True)
class DocumentHeading:
    """A heading, and the offset in characters at which its line starts in the text."""

    char_start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class ExtractedDocument:
    """A document's normalised text and its structure.

    Attributes:
        title: The title in the metadata, else the heading that opens the text, else the only top-level
            heading.
        text: Normalised: `normalize_text(text) == text`.
        headings: The headings in order of position; `text[heading.char_start:].startswith(heading.title)`
            holds.
        pages: The offset in characters at which each page begins, in page order; empty without pages.
        text_coverage: The share of the source's visible words that are in the title or the text; None where
            that has no meaning. A page that was not recognised counts as many lost words as the others have
            on average.
        unread_pages: The number of pages that are pictures of text and were not recognised.
        end: What the source's last bytes say about its end.
        decoding_doubt: The share of characters outside ASCII that another encoding, as likely as the one
            that was taken, reads otherwise.
    """

    title: str | None
    text: str
    headings: list[DocumentHeading] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    text_coverage: float | None = None
    unread_pages: int = 0
    end: SourceEnd = SourceEnd.UNKNOWN
    decoding_doubt: float = 0.0


def assemble_blocks(content: DocumentBlocks) -> ExtractedDocument:
    """Normalises blocks and joins them by blank lines to a document with the offsets of headings and pages.

    Raises:
        ExtractionError: `no_text` if nothing but whitespace is left.
    """
    parts: list[str] = []
    headings: list[DocumentHeading] = []
    pages: list[int] = []
    length = 0  # of "\n\n".join(parts)
    for block in _merged(content.blocks):
        text = normalize_text(block.text) if block.level is None else collapse_whitespace(block.text)
        if not text:
            continue
        start = length + 2 if parts else 0
        if block.level is not None:
            headings.append(DocumentHeading(start, block.level, text))
        # A page without text begins where the next text begins.
        pages.extend([start] * ((block.page or 0) - len(pages)))
        parts.append(text)
        length = start + len(text)
    if not parts:
        raise ExtractionError("no_text", "The document holds no text.")
    pages.extend([length] * (content.page_count - len(pages)))
    title = _metadata_title(content.title) or _heading_title(headings)
    text = "\n\n".join(parts)
    coverage = text_coverage(content.visible_text, f"{content.title or ''}\n{text}")
    if content.unread_pages:
        coverage = (1 if coverage is None else coverage) * (1 - content.unread_pages / content.page_count)
    return ExtractedDocument(title, text, headings, pages, coverage, content.unread_pages)


def text_coverage(visible_text: str | None, text: str) -> float | None:
    """Returns the share of a source's words that are in a text, each as often as the source has it.

    Words are the runs of letters and digits of the normalised source. In a text without spaces a run is a
    sentence.

    Args:
        visible_text: The source's visible text; None where it is not known.
        text: The normalised text that was made from it.

    Returns:
        The share from 0 to 1, or None for a source of fewer than ten words: one of them says nothing.
    """
    if visible_text is None:
        return None
    there = Counter(_WORD.findall(normalize_text(visible_text)))
    if there.total() < _MIN_COVERED_WORDS:
        return None
    return 1 - (there - Counter(_WORD.findall(text))).total() / there.total()


def _metadata_title(metadata: str | None) -> str | None:
    title = _MADE_BY.sub("", collapse_whitespace(metadata or ""))
    return None if title.casefold() in _PLACEHOLDERS else title


def _heading_title(headings: list[DocumentHeading]) -> str | None:
    """Returns the heading at the start of the text, else the only heading of level 1, else None."""
    if headings and headings[0].char_start == 0:
        return headings[0].title
    top = [heading.title for heading in headings if heading.level == 1]
    return top[0] if len(top) == 1 else None


def _merged(blocks: list[TextBlock]) -> Iterable[TextBlock]:
    """Joins consecutive body blocks of a page: thousands of table rows are then normalised in one call."""
    run: list[TextBlock] = []
    for block in blocks:
        if run and (block.level is not None or block.page != run[0].page):
            yield _joined(run)
            run = []
        if block.level is not None:
            yield block
        elif block.text.strip():
            run.append(block)
    if run:
        yield _joined(run)


def _joined(run: list[TextBlock]) -> TextBlock:
    return replace(run[0], text="\n\n".join(each.text.strip("\n") for each in run))
