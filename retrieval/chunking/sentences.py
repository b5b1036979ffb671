"""Finds where a text may be divided: paragraphs, sentences and lines, as exact character positions."""

import re
import unicodedata
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


# Thai and Lao mark no ends of sentences: a space ends a clause, but not after a mark of repetition or
# abbreviation.
_CLAUSE_SCRIPTS = re.compile("[\u0e00-\u0eff]")
_CLAUSE_END = re.compile(r"(?<=[\u0e00-\u0eff])(?<![\u0e2f\u0e46\u0eaf\u0ec6])[^\S\n]+(?=[\u0e00-\u0eff])")
_SHORTEST_CLAUSE = 60
"""In characters. Shorter clauses are one with the next."""
_OPENING, _CLOSING = ("Ps", "Pi"), ("Pe", "Pf")
"""Unicode's categories of brackets and quotation marks."""
_FIRST_IDEOGRAPHIC = "\u2e80"
"""From here on sentences end without a space."""
_LIST_ITEM = re.compile(r"(?:[-*•+–] |\(?[0-9a-zA-Z]{1,3}[.)] )")
_HIGH_NUMBER = re.compile(r"[2-9]\d\. |\d{3}\. ")
_ABBREVIATION = re.compile(
    r"(?:mr|mrs|ms|dr|prof|st|vs|fig|eq|no|vol|pp|al|cf|e\.g|i\.e"
    r"|z\.b|d\.h|bzw|ca|nr|abs|art|vgl|hr|fr|sog|evtl|mme|mlle|sr|sra|srta|dra|ud|uds|núm|pág)\.",
    re.IGNORECASE,
)
_SMALL_NUMBER = re.compile(r"\d{1,2}\.")
_LONGEST_ABBREVIATION = 5
_LINE_ENDS = (".", "!", "?", ":", "。", "！", "？", "：", "।", "؟", "۔")
_LONGEST_WRAPPED_LINE = 160
"""In characters. Nobody wraps prose by hand at more, so a longer line is a paragraph of its own."""
_LONGEST_TERM = 100
"""In characters. A longer line is no term that the lines below it explain."""
_DEEPER = re.compile(r"\n([ \t]{2,})\S")
_LONGEST_SENTENCE = 600
"""In characters. What is longer has no sentences worth the name (code, tables) and is divided by lines."""


def _ends_in_abbreviation(text: str, end: int) -> bool:
    words = text[max(0, end - _LONGEST_ABBREVIATION - 1) : end].split()
    if not words:
        return False
    word = words[-1].lstrip("(\"'“‘")
    # A single letter and a dot is an initial or part of an abbreviation ("J. Smith", "z. B."), and a small
    # number counts something ("am 3. Mai").
    one_letter = len(word) == 2 and word[0].isalpha()
    return one_letter or bool(_ABBREVIATION.fullmatch(word) or _SMALL_NUMBER.fullmatch(word))


def split_at_boundaries(text: str) -> Iterator[tuple[int, int, TextBoundary]]:
    """Yields the pieces of a text, divided at the end of every line and sentence.

    Yields:
        `(start, end, boundary before it)` in order. A piece is not empty and neither begins nor ends with
        whitespace; together the pieces hold every character that is not whitespace.
    """
    start, boundary = 0, TextBoundary.PARAGRAPH
    for gap_start, gap_end in _gaps(text):
        line_feeds = text.count("\n", gap_start, gap_end)
        if not line_feeds and _ends_in_abbreviation(text, gap_start):
            continue
        yield from _stripped(text, start, gap_start, boundary)
        start = gap_end
        if not line_feeds:
            boundary = TextBoundary.SENTENCE
        elif line_feeds > 1 or _divides_paragraphs(text, gap_start, gap_end):
            boundary = TextBoundary.PARAGRAPH
        elif _LIST_ITEM.match(text, start) and not is_wrapped_number(text, gap_start, start):
            boundary = TextBoundary.SENTENCE
        else:
            # Hard-wrapped prose ends lines anywhere; only a line that ends a sentence is more.
            ended = text[gap_start - 1 : gap_start] in _LINE_ENDS
            boundary = TextBoundary.SENTENCE if ended else TextBoundary.LINE
    yield from _stripped(text, start, len(text), boundary)


def is_wrapped_number(text: str, line_end: int, start: int) -> bool:
    """Returns whether a line begins with the last number of a sentence and not with that of a list's item.

    Args:
        text: The text.
        line_end: The position after the line before it.
        start: The position of the line's first character that is no whitespace.
    """
    if not _HIGH_NUMBER.match(text, start) or text[line_end - 1 : line_end] in _LINE_ENDS:
        return False
    before = text[text.rfind("\n", 0, line_end) + 1 : line_end].lstrip()
    return not _LIST_ITEM.match(before)


def is_term(text: str, start: int, end: int) -> bool:
    """Returns whether a line, such as an option's, is explained by the next ones, which are indented deeper.

    Args:
        text: The text.
        start: Where the line's last piece begins, a line feed or whitespace before it.
        end: The position after its last character.
    """
    deeper = _DEEPER.match(text, end)  # first: it ends the search inside of long lines
    if deeper is None:
        return False
    line = text[text.rfind("\n", 0, start) + 1 : end]
    if len(line) > _LONGEST_TERM or line[-1] in ".!?":
        return False
    return len(deeper[1]) > len(line) - len(line.lstrip())


def _gaps(text: str) -> Iterator[tuple[int, int]]:
    """Yields where a line or a sentence ends, as the span of whitespace there, which may be empty.

    Sentences are those of Unicode (UAX 29) by ICU, which knows the full stops of all scripts, but none ends
    before a lower-case letter, nor without a space where letters are not ideographic.
    """
    from icu4py.breakers import SentenceBreaker  # where a worker trains, no text is divided, and ICU is not

    has_clauses = not text.isascii() and _CLAUSE_SCRIPTS.search(text) is not None
    position = gap_start = last = 0
    for segment in SentenceBreaker(text, ""):
        body = segment.strip()
        if body:
            start = position + segment.index(body[0])
            if gap_start and (gap := _gap(text, gap_start, start)):
                last = gap[1]
                yield gap
            gap_start = start + len(body)
            for clause in _CLAUSE_END.finditer(text, start, gap_start) if has_clauses else ():
                if clause.start() - last >= _SHORTEST_CLAUSE:
                    last = clause.end()
                    yield clause.span()
        position += len(segment)


def _gap(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Returns a gap between two of ICU's sentences as the span of its whitespace, unless it is none."""
    if "\n" in text[start:end]:
        return start, end
    if text[end].islower() or unicodedata.category(text[end]) in _CLOSING:
        return None
    if start < end:
        return start, end
    # ICU takes an opening quotation mark for a closing one.
    while unicodedata.category(text[start - 1]) in _OPENING:
        start -= 1
    return (start, start) if max(text[start - 1], text[end]) >= _FIRST_IDEOGRAPHIC else None


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
