"""What every format reader returns, and the one place where its text and offsets are put together."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from assets.text.normalization import normalize_text

# What programs write into a title's place when their user did not.
_MADE_BY = re.compile(r"^Microsoft (?:Word|PowerPoint|Excel) - ")
_PLACEHOLDERS = {"", "untitled", "untitled document", "untitled spreadsheet", "word document", "document"}
_PLACEHOLDERS |= {"powerpoint presentation", "presentation", "slide 1"}


class ExtractionError(Exception):
    """A document whose text can not be had.

    Attributes:
        expectation: Machine-readable, snake_case: what was expected of the document and did not hold.
        reason: A sentence for a person.
    """

    def __init__(self, expectation: str, reason: str) -> None:
        super().__init__(expectation, reason)
        self.expectation = expectation
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TextBlock:
    """A paragraph, list, table, code block or heading, as a reader found it.

    Attributes:
        text: Its text, not yet normalised; lines are kept.
        level: 1 and up when it is a heading, else None.
        page: The 1-based page that it is on, where the format has pages.
    """

    text: str
    level: int | None = None
    page: int | None = None


@dataclass(frozen=True, slots=True)
class DocumentBlocks:
    """What a reader makes of a document's bytes.

    Attributes:
        blocks: In reading order.
        title: From the format's metadata, if it has one; a heading is taken when it has not.
        page_count: Number of pages, 0 where the format has none.
    """

    blocks: list[TextBlock]
    title: str | None = None
    page_count: int = 0


@dataclass(frozen=True, slots=True)
class DocumentHeading:
    """A heading and where its line starts in the text."""

    char_start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class ExtractedDocument:
    """A document's normalised text and its structure.

    Attributes:
        title: From metadata, or the heading that opens the text, or its only one on the top level; else None.
        text: Normalised; `normalize(text) == text`.
        headings: In order; `text[h.char_start:].startswith(h.title)` for each.
        pages: The character offset where each page begins, never falling; empty when there are no pages.
    """

    title: str | None
    text: str
    headings: list[DocumentHeading] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)


def collapse_whitespace(text: str) -> str:
    """Normalised text with every run of whitespace as one space."""
    return " ".join(normalize_text(text).split())


def assemble_document(content: DocumentBlocks) -> ExtractedDocument:
    """Normalises a reader's blocks and joins them with blank lines; offsets are right by construction.

    Raises:
        ExtractionError: `no_text` when nothing but whitespace is left.
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
        # A page without text begins where the next text does.
        pages.extend([start] * ((block.page or 0) - len(pages)))
        parts.append(text)
        length = start + len(text)
    if not parts:
        raise ExtractionError("no_text", "The document holds no text.")
    pages.extend([length] * (content.page_count - len(pages)))
    title = _metadata_title(content.title) or _heading_title(headings)
    return ExtractedDocument(title, "\n\n".join(parts), headings, pages)


def _metadata_title(metadata: str | None) -> str | None:
    title = _MADE_BY.sub("", collapse_whitespace(metadata or ""))
    return None if title.casefold() in _PLACEHOLDERS else title


def _heading_title(headings: list[DocumentHeading]) -> str | None:
    """The heading that speaks for the whole: with nothing before it, or the only one on the top level."""
    if headings and headings[0].char_start == 0:
        return headings[0].title
    top = [heading.title for heading in headings if heading.level == 1]
    return top[0] if len(top) == 1 else None


def _merged(blocks: list[TextBlock]) -> Iterable[TextBlock]:
    """Joins runs of body blocks on one page: one call of the normaliser for thousands of table rows."""
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


def format_list(items: Iterable[str], first: int | None = None) -> str:
    """List items as lines, continuation lines indented under their item.

    Args:
        items: The text of each item.
        first: The first number of an ordered list; None for bullets.
    """
    lines = []
    for number, item in enumerate(items, first or 0):
        marker = "- " if first is None else f"{number}. "
        body = item.strip("\n").replace("\n", "\n" + " " * len(marker))
        if body.strip():
            lines.append(marker + body)
    return "\n".join(lines)


def format_table_row(cells: Iterable[str]) -> str:
    """One row of a table as one line: empty when every cell is, a lone cell without its place."""
    texts = [" ".join(cell.split()) for cell in cells]
    if sum(map(bool, texts)) == 1:  # a caption, or a table that only lays out a page
        return "".join(texts)
    while texts and not texts[-1]:
        texts.pop()
    return " | ".join(texts)
