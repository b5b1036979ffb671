"""What a person would quote of a text: whole sentences, lists, code blocks and table rows, as exact spans."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from retrieval.chunking.sentences import is_term, is_wrapped_number, sentence_spans

MAX_UNIT_CHARS = 400
"""A longer list is quoted item by item, and a longer table row by row: the scorer reads no more of a unit."""

_Kind = Literal["prose", "list", "code", "table", "contents", "heading"]

_ITEM = re.compile(r"[ \t]*(?:[-*•+–‣◦][ \t]+\S|\(?(?:\d{1,3}|[a-zA-Z])[.)][ \t]+\S)")
_FENCE = re.compile(r"[ \t]*(?:```|~~~)")
_PROMPT = re.compile(r"[ \t]*(?:[$#%>] \S|>>> |\.\.\. |In \[\d+\]: )")
_INDENTED = re.compile(r"(?:\t| {4,})\S")
_SENTENCE_LIKE = re.compile(
    r"\s*(?:(?:[^\W\d_][\w'’,-]*[,.:;]? ){6}|[A-Z][\w'’,-]*(?: [^\s;{}()=<>$|]+){2,}[.!?:]$)"
)
"""Six words, or a short sentence from a capital letter to a full stop."""
_ROW = re.compile(r"[ \t]*\|.*\|[ \t]*$|.*\S \| \S|[^\t\n]+\t[^\t\n]+\t.*$")
_RULE = re.compile(r"[\s|+=:-]+$")
_CONTENTS = re.compile(
    r".*(?:\.[ .]{3,}|…)[ \t]*\d*\s*$"
    r"|[ \t]*(?:[-*•+?◦][ \t]+)?\d+(?:\.\d+){1,4}\.?[ \t]+[^.:()]{1,80}$"
    r"|[ \t]*(?:table of )?contents:?$",
    re.IGNORECASE,
)
LINED = re.compile(rf"(?m)^(?:{_ITEM.pattern}|{_FENCE.pattern}|{_PROMPT.pattern}|{_INDENTED.pattern}|[|])")
"""Matches in text that has to stay in its lines: lists, code and tables."""
_LEAD_IN = re.compile(r"[:：][*_`]*$")
_DATE = r"(?:released |on )*(?:\d{1,4}[-. /][\w-]+[-. /,]+\d{1,4}|[a-z]{3,9} \d{1,2}, \d{4})"
_VERSION = re.compile(
    r"[ \t#=*]*(?:\S+ \(\d[\w.+~:-]*\) \S+; urgency=\w+|(?:[\w.+-]+[ -])?(?:version |release |v)?"
    rf"\d+(?:\.\d+)+[\w.+~-]*(?:[ \t]*[-–,:(\[]*[ \t]*(?:{_DATE})?[)\]]?)[ \t=*:]*)$",
    re.IGNORECASE,
)
"""The heading of a version in a changelog: a number with its date, or alone in its line."""
_FINISHED = re.compile(r"[.!?:;。！？：；…][\"'”’)\]*_`]*$")
_UNDERLINE = re.compile(r"[ \t]*([=~^*#\"'-])\1{2,}[ \t]*$")
_LONG_WORD = re.compile(r"[^\W\d_]{4,}")
_MANUAL_PAGES = re.compile(r"(?:\S+[ \t]?\(\d\w{0,8}\)[\s,;.]*(?:and\s+)?){2,}$")
"""A list of manual pages: "init(8), halt(8)"."""
_CAPITALS_OF_HEADING = 0.7
_LONGEST_EXPLANATION = 600
"""In characters. From an option to a sentence that is further away, the two are quoted apart."""
_LEAST_LEAD_WORDS = 3
"""What ends in a colon and has fewer words, such as "Bug fixes:", is a label: it adds nothing apart."""


@dataclass(frozen=True)
class AnswerUnit:
    """A quotable part of a text.

    Attributes:
        spans: The `(start, end)` spans by which it is judged, in order: one, or two where a table's header
            or the sentence before a list stands apart from what belongs to it.
        whole: What is quoted in place of them, where an option is explained by several sentences and this is
            one of them: all from the option to its end. None where that is long, or nothing else.
    """

    spans: tuple[tuple[int, int], ...]
    whole: tuple[tuple[int, int], ...] | None = None

    @property
    def quoted(self) -> tuple[tuple[int, int], ...]:
        """The spans that are quoted."""
        return self.whole or self.spans

    @property
    def start(self) -> int:
        """The position at which the unit begins."""
        return self.spans[0][0]

    @property
    def end(self) -> int:
        """The position after its last character."""
        return self.spans[-1][1]

    def text_of(self, text: str) -> str:
        """Returns the unit's words in one line."""
        return " ".join(" ".join(text[start:end].split()) for start, end in self.spans)


@dataclass(frozen=True)
class _Block:
    kind: _Kind
    lines: tuple[tuple[int, int], ...]
    """The spans of its lines, without surrounding whitespace at its ends."""

    @property
    def start(self) -> int:
        return self.lines[0][0]

    @property
    def end(self) -> int:
        return self.lines[-1][1]


def answer_units(text: str) -> list[AnswerUnit]:
    """Returns the parts of a text that can be quoted as they stand, in the order of the text.

    A sentence that ends in a colon leads into what follows, and is quoted with it: with a list, a code block,
    or the next sentence. A line, such as an option, that deeper indented lines explain is judged with each of
    their sentences, and quoted with all that lies between. A code block is whole, with the sentence before
    it. A list is whole where it is short, else each item stands with the list's lead-in. A row of a table
    stands with the table's header, and what a changelog says with the version's heading. A sentence that a
    blank line cuts in two is one.
    Headings, lists of manual pages and lines of a table of contents are no units.

    Args:
        text: A passage.

    Returns:
        Units whose spans neither begin nor end with whitespace. A lead-in or header may be in
        several units; a lead-in that nothing follows is in none.
    """
    units: list[AnswerUnit] = []
    lead = term = version = heading = None
    for block in _whole_sentences(text, _blocks(text)):
        if term and _indent(text, block.start) <= _indent(text, term[0]):
            term = None
        if block.kind == "prose":
            if _is_version(text, block):
                version, lead = block.lines[0], None
                continue
            if _MANUAL_PAGES.match(text[block.start : block.end]):
                continue
            first = len(units)
            lead, term = _prose(text, block, lead, term, units)
            if version:
                units[first:] = [_joined(text, version, each.start, each.end) for each in units[first:]]
        elif block.kind == "heading":
            lead, heading = None, (block.start, block.end)
        elif block.kind == "contents":
            lead = None
        else:
            lead = lead or version
            if block.kind == "code":
                above = heading if heading and _near(text, heading[1], block.start) else None
                before = lead or above or _sentence_before(text, units, block)
                units.append(_joined(text, before, block.start, block.end))
            elif block.kind == "table":
                units.extend(_rows(text, block, lead))
            else:
                units.extend(_items(text, block, lead))
            lead = None
    return _with_what_follows(text, units)


def _is_version(text: str, block: _Block) -> bool:
    """Whether a paragraph is the heading of a version in a changelog."""
    apart = "\n\n" in text[max(0, block.start - 2) : block.start] or not text[: block.start].strip()
    return apart and len(block.lines) == 1 and bool(_VERSION.match(text[block.start : block.end]))


def _whole_sentences(text: str, blocks: Iterator[_Block]) -> Iterator[_Block]:
    """Yields blocks; paragraphs of which the second begins in the middle of a sentence are one."""
    last: _Block | None = None
    for block in blocks:
        if last and last.kind == block.kind == "prose" and _goes_on(text, last.end, block.start):
            last = _Block("prose", (*last.lines, *block.lines))
            continue
        if last:
            yield last
        last = block
    if last:
        yield last


def _goes_on(text: str, end: int, start: int) -> bool:
    """Whether a sentence that a blank line cuts at one position goes on at another."""
    if not text[start].islower() or _FINISHED.search(text[max(0, end - 8) : end]):
        return False
    line = text[text.rfind("\n", 0, end) + 1 : end]
    return bool(_SENTENCE_LIKE.match(line)) and _indent(text, start) == len(line) - len(line.lstrip())


def _with_what_follows(text: str, units: list[AnswerUnit]) -> list[AnswerUnit]:
    """Has what ends in a colon, such as the last item of a list, go on with what it leads into."""
    whole: list[AnswerUnit] = []
    for unit in reversed(units):
        after = whole[-1].spans[-1] if whole else None
        if after and _ends_in_colon(text, unit.spans[-1]) and _near(text, unit.end, after[0]):
            unit = AnswerUnit((*unit.spans[:-1], (unit.spans[-1][0], after[1])))
        whole.append(unit)
    return whole[::-1]


def _prose(
    text: str,
    block: _Block,
    lead: tuple[int, int] | None,
    term: tuple[int, int] | None,
    units: list[AnswerUnit],
) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Adds a paragraph's sentences; returns the last one if it leads into the next block, and the term."""
    offset = block.start
    for start, end in _joined_spans(text, block):
        span = (offset + start, offset + end)
        line_end = text.find("\n", *span)
        line = (span[0], line_end if line_end > 0 else span[1])
        if is_term(text, *line):
            term = line
        elif term and _indent(text, span[0]) <= _indent(text, term[0]):
            term = None
        if span == term or _ends_in_colon(text, span) or _breaks_off(text, span[1]):
            lead = (lead[0], span[1]) if lead and _near(text, lead[1], span[0]) else span
            continue
        unit = _joined(text, lead or (None if term == line else term), *span)
        if lead is None and term and span[1] - term[0] <= _LONGEST_EXPLANATION:
            unit = AnswerUnit(unit.spans, ((term[0], span[1]),))
        units.append(unit)
        lead = None
    return lead, term


def _joined_spans(text: str, block: _Block) -> Iterator[tuple[int, int]]:
    """Yields a paragraph's sentences; one that a blank line cuts in two is one."""
    last: tuple[int, int] | None = None
    for start, end in sentence_spans(text[block.start : block.end]):
        gap = text[block.start + last[1] : block.start + start] if last else ""
        if last and gap.count("\n") > 1 and _goes_on(text, block.start + last[1], block.start + start):
            last = (last[0], end)
            continue
        if last:
            yield last
        last = (start, end)
    if last:
        yield last


def _breaks_off(text: str, end: int) -> bool:
    """Whether a sentence ends in a comma and something follows, such as code."""
    return text[end - 1] == "," and bool(text[end:].strip())


def _indent(text: str, position: int) -> int:
    line = text[text.rfind("\n", 0, position) + 1 : position + 1]
    return len(line) - len(line.lstrip())


def _sentence_before(text: str, units: Sequence[AnswerUnit], block: _Block) -> tuple[int, int] | None:
    """The last sentence before a code block, if nothing but whitespace lies between."""
    if not units or text[units[-1].end : block.start].strip():
        return None
    return units[-1].spans[-1]


def _items(text: str, block: _Block, lead: tuple[int, int] | None) -> Iterator[AnswerUnit]:
    start = lead[0] if lead and _near(text, lead[1], block.start) else block.start
    if block.end - start <= MAX_UNIT_CHARS:
        yield _joined(text, lead, block.start, block.end)
        return
    begins = [start for start, end in block.lines if _ITEM.match(text[start:end])] or [block.start]
    for place, begin in enumerate(begins):
        stop = begins[place + 1] if place + 1 < len(begins) else block.end
        end = begin + len(text[begin:stop].rstrip())
        if not _reads_as_title(text[begin:end]):
            yield _joined(text, lead, begin, end)


def _rows(text: str, block: _Block, lead: tuple[int, int] | None) -> Iterator[AnswerUnit]:
    lines = [span for span in block.lines if not _RULE.match(text[span[0] : span[1]])]
    if not lines:
        return
    if block.end - block.start <= MAX_UNIT_CHARS or len(lines) == 1:
        yield _joined(text, lead, block.start, block.end)
        return
    header = lines[0]
    for row in lines[1:]:
        yield _joined(text, header, *row)


def _joined(text: str, lead: tuple[int, int] | None, start: int, end: int) -> AnswerUnit:
    """A span with what leads into it: one span if only whitespace lies between."""
    if lead is None or lead[1] > start:
        return AnswerUnit(((start, end),))
    if _near(text, lead[1], start):
        return AnswerUnit(((lead[0], end),))
    if _ends_in_colon(text, lead) and len(text[slice(*lead)].split()) < _LEAST_LEAD_WORDS:
        return AnswerUnit(((start, end),))
    return AnswerUnit((lead, (start, end)))


def _near(text: str, end: int, start: int) -> bool:
    return not text[end:start].strip()


def _ends_in_colon(text: str, span: tuple[int, int]) -> bool:
    return bool(_LEAD_IN.search(text[max(span[0], span[1] - 8) : span[1]]))


def _blocks(text: str) -> Iterator[_Block]:
    """Yields the blocks of a text: runs of lines of one kind, divided at blank lines too."""
    lines: list[tuple[int, int]] = []
    kind: _Kind = "prose"
    fenced, blank = False, False
    position = 0
    for line in text.split("\n"):
        start, end = position, position + len(line)
        position = end + 1
        if not line.strip():
            blank = True
            continue
        if fenced or _FENCE.match(line):
            if not fenced:
                yield from _closed(text, kind, lines)
                lines, kind = [], "code"
            lines.append((start, end))
            fenced = not fenced if _FENCE.match(line) else fenced
            if not fenced:
                yield from _closed(text, kind, lines)
                lines, kind = [], "prose"
            blank = False
            continue
        # What a colon leads into is a block of its own, also without a blank line.
        led = kind == "prose" and bool(lines) and _ends_in_colon(text, lines[-1])
        wrapped = kind == "prose" and bool(lines) and not blank
        if wrapped and is_wrapped_number(text, lines[-1][1], start + len(line) - len(line.lstrip())):
            lines.append((start, end))
            continue
        underlined = kind == "list" or (kind == "prose" and len(lines) == 1)
        if lines and underlined and not blank and _UNDERLINE.match(line):
            yield from _closed(text, kind, lines[:-1])
            yield from _closed(text, "heading", [lines[-1], (start, end)])
            lines, kind = [], "prose"
            continue
        found = _kind(line, kind if lines else "prose", blank or led or not lines)
        # Code and lists go on over one blank line; a paragraph ends there.
        if lines and (found != kind or (blank and kind in ("prose", "table"))):
            yield from _closed(text, kind, lines)
            lines = []
        kind = found
        lines.append((start, end))
        blank = False
    yield from _closed(text, kind, lines)


def _kind(line: str, before: _Kind, blank: bool) -> _Kind:
    if _CONTENTS.match(line):
        return "contents"
    if before == "list" and (_ITEM.match(line) or line[0].isspace() or not blank) and not _PROMPT.match(line):
        return "list"
    if _ITEM.match(line):
        return "list"
    if before == "code" and line[0].isspace() and not (blank and _SENTENCE_LIKE.match(line)):
        return "code"
    if _PROMPT.match(line):
        return "code"
    if _INDENTED.match(line):  # manuals indent their prose too
        wrapped = before == "prose" and not blank
        return "prose" if wrapped or _SENTENCE_LIKE.match(line) else "code"
    return "table" if _ROW.match(line) else "prose"


def _is_heading(text: str, lines: Sequence[tuple[int, int]]) -> bool:
    """Whether a paragraph is one line whose long words have capitals, and text follows it."""
    (start, end), apart = lines[0], "\n\n"
    if len(lines) > 1 or not text[end:].strip() or not text[end:].lstrip(" \t").startswith(apart):
        return False
    if text[:start].strip() and not text[:start].rstrip(" \t").endswith(apart):
        return False
    line = text[start:end].strip()
    return _reads_as_title(line) and not _VERSION.match(line)


def _reads_as_title(line: str) -> bool:
    words = _LONG_WORD.findall(line)
    capitals = sum(word[0].isupper() for word in words)
    return not _FINISHED.search(line) and bool(words) and capitals > _CAPITALS_OF_HEADING * len(words)


def _closed(text: str, kind: _Kind, lines: list[tuple[int, int]]) -> Iterator[_Block]:
    """The block of some lines, without the whitespace at its ends."""
    if not lines:
        return
    if kind == "prose" and _is_heading(text, lines):
        kind = "heading"
    start, end = lines[0][0], lines[-1][1]
    while text[start].isspace():
        start += 1
    while text[end - 1].isspace():
        end -= 1
    spans = [(max(start, a), min(end, b)) for a, b in lines]
    yield _Block(kind, tuple((a, b) for a, b in spans if text[a:b].strip()))
