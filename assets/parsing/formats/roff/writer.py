"""Writes the text of a manual page: paragraphs in one line, items below their terms, code in its lines."""

import re

from assets.parsing.blocks import TextBlock

_STEP = 2
"""By how many spaces what belongs to a term or an item is indented."""
_CODE_INDENT = " " * 4
_LONGEST_TERM = 90
"""In characters, of all terms that share a text."""
_DEEPEST = 20
_BULLET = re.compile(r"[•○□·*o‣–—-]")
_NUMBER = re.compile(r"[(\[]?(\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)\]]")


class PageWriter:
    """What was read of a page, as blocks.

    Attributes:
        verbatim: Whether lines are kept as they are, as in code.
    """

    def __init__(self) -> None:
        """Begins an empty page."""
        self.verbatim = False
        self._blocks: list[TextBlock] = []
        self._lines: list[str] = []
        self._words: list[str] = []
        self._terms: list[str] = []
        self._marker = ""
        self._gap = self._glued = self._in_item = self._hangs = False
        self._space = ""
        self._base = 0
        self._outer: list[tuple[int, bool]] = []

    def heading(self, text: str, level: int) -> None:
        """Begins a section; all lists and code end."""
        self.finish()
        if text.strip():
            self._blocks.append(TextBlock(text, level))
        self._base, self._in_item, self._outer, self.verbatim = 0, False, [], False

    def text(self, text: str) -> None:
        """Adds words to the paragraph, or a line to code; words after a space begin a line."""
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
        """Has the next words follow without a space, or with the one that the last words end in."""
        self._glued = True

    def block(self, text: str) -> None:
        """Adds lines, such as a table's, as a paragraph of its own."""
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
        """Ends a paragraph, and the item that it is in.

        Args:
            hangs: Whether what follows the next paragraph may be set below it, as below a term.
        """
        self.gap()
        self._put_terms()
        self._in_item, self._marker, self._hangs = False, "", hangs

    def item(self, term: str) -> None:
        """Begins an item with a term, a bullet or a number; terms without text between them share it."""
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
        """Begins what is set deeper, at least as deep as the text of the item that it is in."""
        self.line()
        self._put_terms()
        if len(self._outer) < _DEEPEST:
            self._outer.append((self._base, self._in_item))
            self._base, self._in_item = self._indent + (0 if self._in_item else step), False

    def pop(self) -> None:
        """Ends what is set deeper."""
        self.line()
        self._put_terms()
        if self._outer:
            self._base, self._in_item = self._outer.pop()

    def finish(self) -> list[TextBlock]:
        """Ends the page, and returns its blocks."""
        self.line()
        self._put_terms()
        if any(map(str.strip, self._lines)):
            self._blocks.append(TextBlock("\n".join(self._lines).rstrip()))
        self._lines, self._gap, self._marker = [], False, ""
        return self._blocks

    @property
    def _indent(self) -> int:
        return self._base + (_STEP if self._in_item else 0)

    def _put_terms(self) -> None:
        """Writes the terms that wait for their text, which is set deeper."""
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
        if self._marker:
            lines = [
                " " * (self._indent - _STEP) + self._marker + lines[0],
                *(indent + each for each in lines[1:]),
            ]
            self._marker = ""
        else:
            lines = [indent + each for each in lines]
        self._lines += map(str.rstrip, lines)


def _space_after(text: str) -> str:
    return " " if text[-1:].isspace() else ""


def _marker(term: str) -> str:
    """The beginning of an item's line for a bullet or a number; nothing for a term."""
    if _BULLET.fullmatch(term):
        return "- "
    number = _NUMBER.fullmatch(term)
    return f"{number[1]}. " if number else ""
