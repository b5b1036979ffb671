"""Collects the text of a page: a paragraph on one line, an item below its term, code as it is."""

import re

from manpage_text.blocks import Block, TableFormat

_STEP = 2
"""Spaces by which the text of an item is indented."""
_CODE_INDENT = " " * 4
_LONGEST_TERM = 90
"""Characters of all terms that share one text."""
_DEEPEST = 20
_BULLET = re.compile(r"[•○□·*o‣–—-]")
_NUMBER = re.compile(r"[(\[]?(\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)\]]")


class PageWriter:
    """Builds the blocks of a page.

    Attributes:
        verbatim: Whether lines are kept as they are, as in code.
    """

    def __init__(self, headed_table: TableFormat) -> None:
        self.verbatim = False
        self._headed_table = headed_table
        self._blocks: list[Block] = []
        self._lines: list[str] = []
        self._words: list[str] = []
        self._terms: list[str] = []
        self._marker = ""
        self._gap = self._glued = self._in_item = self._hangs = False
        self._space = ""
        self._base = 0
        self._outer: list[tuple[int, bool]] = []

    def heading(self, text: str, level: int) -> None:
        """Starts a section, which ends all lists and code."""
        self.finish()
        if text.strip():
            self._blocks.append(Block(text, level))
        self._base, self._in_item, self._outer, self.verbatim = 0, False, [], False

    def text(self, text: str) -> None:
        """Adds words to the paragraph, or a line to code; words after a leading space start a new line."""
        if self.verbatim:
            self.line()
            self._add_lines([text], _CODE_INDENT)
            return
        words = text.strip()
        if not words:
            return
        if text[0] in " \t" and not self._glued:
            self.line()
            words = text.rstrip()
        if not self._words and not self._marker and (marker := _marker(words.strip())):
            self._marker, self._in_item = marker, True
        elif self._words and self._glued:
            self._words.append(self._space + words)
        elif self._terms and self._glued:
            self._terms[-1] += self._space + words
        else:
            self._words += [" ", words]
        self._glued, self._space = False, _space_after(text)

    def glue(self) -> None:
        """Joins the next words to the last ones, without a space unless those end in one."""
        self._glued = True

    def table(self, rows: list[list[str]], headed: bool) -> None:
        """Adds a table as one paragraph, or several."""
        for text in (self._headed_table if headed else table_lines)(rows):
            self.gap()
            self._add_lines(text.split("\n"))
            self.gap()

    def line(self) -> None:
        """Ends a line."""
        if self._words:
            text = "".join(self._words[1:])
            self._words = []
            self._add_lines([text])
        self._glued = False

    def gap(self) -> None:
        """Ends a paragraph."""
        self.line()
        self._gap = True

    def paragraph(self, hangs: bool = False) -> None:
        """Ends a paragraph, and its item.

        Args:
            hangs: Whether the next paragraph can turn out to be the term of the item that follows it.
        """
        self.gap()
        self._put_terms()
        self._in_item, self._marker, self._hangs = False, "", hangs

    def item(self, term: str) -> None:
        """Starts an item with a term, a bullet or a number; consecutive terms share one text."""
        if self._hangs and not term:
            term = "".join(self._words[1:])
            self._words = []
        self.gap()
        self._space, self._hangs = _space_after(term), False
        term = " ".join(term.split())
        marker = _marker(term)
        if marker or not term or sum(map(len, self._terms)) + len(term) > _LONGEST_TERM:
            self._put_terms()
        if term and not marker:
            self._terms.append(term)
        self._marker = marker
        self._in_item = not self._terms

    def push(self, step: int = _STEP) -> None:
        """Indents what follows, at least to the text of the current item."""
        self.line()
        self._put_terms()
        if len(self._outer) < _DEEPEST:
            self._outer.append((self._base, self._in_item))
            self._base, self._in_item = self._indent + (0 if self._in_item else step), False

    def pop(self) -> None:
        """Ends the last indentation."""
        self.line()
        self._put_terms()
        if self._outer:
            self._base, self._in_item = self._outer.pop()

    def finish(self) -> list[Block]:
        """Returns the blocks of the page."""
        self.line()
        self._put_terms()
        if any(map(str.strip, self._lines)):
            self._blocks.append(Block("\n".join(self._lines).rstrip()))
        self._lines, self._gap, self._marker = [], False, ""
        return self._blocks

    @property
    def _indent(self) -> int:
        return self._base + (_STEP if self._in_item else 0)

    def _put_terms(self) -> None:
        """Writes the terms whose text comes next."""
        if self._terms:
            line = ", ".join(self._terms)
            self._terms = []
            self._add_lines([line])
            self._in_item = True

    def _add_lines(self, lines: list[str], deeper: str = "") -> None:
        self._put_terms()
        if self._gap and self._lines and self._lines[-1]:
            self._lines.append("")
        self._gap = False
        indent = " " * self._indent + deeper
        first = " " * (self._indent - _STEP) + self._marker if self._marker else indent
        self._marker = ""
        self._lines.append((first + lines[0]).rstrip())
        self._lines += [(indent + each).rstrip() for each in lines[1:]]


def table_lines(rows: list[list[str]]) -> list[str]:
    """Returns a table as one text with a line for each row."""
    return ["\n".join(filter(None, map(table_row, rows)))]


def table_row(cells: list[str]) -> str:
    """Returns cells joined by ` | `; the only cell with text stands alone."""
    texts = [" ".join(cell.split()) for cell in cells]
    if sum(map(bool, texts)) == 1:
        return "".join(texts)
    while texts and not texts[-1]:
        texts.pop()
    return " | ".join(texts)


def _space_after(text: str) -> str:
    return " " if text[-1:].isspace() else ""


def _marker(term: str) -> str:
    """Returns how the line of a bullet or a number starts; `""` for a term."""
    if _BULLET.fullmatch(term):
        return "- "
    number = _NUMBER.fullmatch(term)
    return f"{number[1]}. " if number else ""
