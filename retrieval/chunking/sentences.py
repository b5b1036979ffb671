"""Finds where a text may be divided: paragraphs, sentences and lines, as exact character positions."""

import re
from collections.abc import Iterator
from enum import IntEnum


class TextBoundary(IntEnum):
    """The kind of boundary before a piece of text; a higher value is a better place to divide."""

    INSIDE = 0
    """Within a word, whose two parts have other tokens apart than together."""
    WORD = 1
    LINE = 2
    SENTENCE = 3
    PARAGRAPH = 4
    SECTION = 5


# No two parts of an alternative can match the same whitespace, so a megabyte of spaces or newlines costs one
# pass. A sentence ends at a mark, perhaps a closing quote, then space before anything but a lower-case
# letter, so that "e.g. this" holds together. CJK marks need no space.
_BREAK = re.compile(
    r"""
    (?P<lines>\n\s*+)
    | (?:(?<=[.!?…])|(?<=[.!?…]["'”’)\]]))[^\S\n]++(?![a-z\n])
    | (?<=[。！？])(?=\S)
    """,
    re.VERBOSE,
)
_LIST_ITEM = re.compile(r"(?:[-*•+–] |\(?[0-9a-zA-Z]{1,3}[.)] )")
_ABBREVIATIONS = frozenset(
    [
        "mr.",
        "mrs.",
        "ms.",
        "dr.",
        "prof.",
        "st.",
        "vs.",
        "fig.",
        "eq.",
        "no.",
        "vol.",
        "pp.",
        "al.",
        "cf.",
        "e.g.",
        "i.e.",
    ]
)
_LONGEST_ABBREVIATION = max(map(len, _ABBREVIATIONS))
_LONGEST_WRAPPED_LINE = 160
"""In characters. Nobody wraps prose by hand at more, so a longer line is a paragraph of its own."""
_LONGEST_SENTENCE = 600
"""In characters. What is longer has no sentences worth the name (code, tables) and is divided by lines."""


def _ends_in_abbreviation(text: str, end: int) -> bool:
    words = text[max(0, end - _LONGEST_ABBREVIATION - 1) : end].split()
    if not words:
        return False
    word = words[-1].lstrip("(\"'“‘")
    # A single capital and a dot is an initial: "J. Smith".
    return word.lower() in _ABBREVIATIONS or (len(word) == 2 and word[0].isupper() and word[1] == ".")


def split_at_boundaries(text: str) -> Iterator[tuple[int, int, TextBoundary]]:
    """Yields the pieces of a text, divided at the end of every line and sentence.

    Yields:
        `(start, end, boundary before it)` in order. A piece is not empty and neither begins nor ends with
        whitespace; together the pieces hold every character that is not whitespace.
    """
    start, boundary = 0, TextBoundary.PARAGRAPH
    for match in _BREAK.finditer(text):
        gap = match["lines"]
        if gap is None and _ends_in_abbreviation(text, match.start()):
            continue
        yield from _stripped(text, start, match.start(), boundary)
        start = match.end()
        if gap is None:
            boundary = TextBoundary.SENTENCE
        elif gap.count("\n") > 1 or _divides_paragraphs(text, match.start(), match.end()):
            boundary = TextBoundary.PARAGRAPH
        elif _LIST_ITEM.match(text, start):
            boundary = TextBoundary.SENTENCE
        else:
            # Hard-wrapped prose ends lines anywhere; only a line that ends a sentence is more.
            boundary = (
                TextBoundary.SENTENCE
                if text[match.start() - 1 : match.start()] in ".!?:"
                else TextBoundary.LINE
            )
    yield from _stripped(text, start, len(text), boundary)


def _divides_paragraphs(text: str, line_end: int, next_start: int) -> bool:
    """Whether the line before or after a line feed is too long to be one of a wrapped paragraph."""
    line_start = text.rfind("\n", 0, line_end) + 1
    next_end = text.find("\n", next_start)
    next_end = len(text) if next_end < 0 else next_end
    return max(line_end - line_start, next_end - next_start) > _LONGEST_WRAPPED_LINE


def _stripped(
    text: str, start: int, end: int, boundary: TextBoundary
) -> Iterator[tuple[int, int, TextBoundary]]:
    piece = text[start:end]
    body = piece.strip()
    if body:
        start += len(piece) - len(piece.lstrip())
        yield start, start + len(body), boundary


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Returns the sentences of a text as `(start, end)` spans; a hard line wrap does not end a sentence.

    A run of lines of more than 600 characters without a sentence end (code, a table) is returned line by
    line.
    """
    spans: list[tuple[int, int]] = []
    lines: list[tuple[int, int]] = []

    def close() -> None:
        if lines and lines[-1][1] - lines[0][0] > _LONGEST_SENTENCE:
            spans.extend(lines)
        elif lines:
            spans.append((lines[0][0], lines[-1][1]))
        lines.clear()

    for start, end, boundary in split_at_boundaries(text):
        if boundary >= TextBoundary.SENTENCE:
            close()
        lines.append((start, end))
    close()
    return spans
