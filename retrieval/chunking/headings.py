"""The headings of a document, and the path of headings above a chunk."""

from collections.abc import Mapping, Sequence
from typing import Any

MAX_HEADING_CHARACTERS = 300
"""The longest title that a path of headings shows whole. Every chunk of a section carries its path: without a
limit, a heading of a megabyte would be stored, and indexed, once per chunk."""
MAX_HEADING_PATH_CHARACTERS = 1000
"""The longest path of headings; of a longer one, the outermost headings are left out."""


def usable_chunk_headings(text: str, headings: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, str]]:
    """Returns headings as `(char_start, level, title)` in order, one per position, none inside a word."""
    found: dict[int, tuple[int, str]] = {}
    for heading in headings:
        start = heading["char_start"]
        begins_word = 0 <= start < len(text) and not text[start].isspace()
        if begins_word and (start == 0 or text[start - 1].isspace()):
            found.setdefault(start, (heading["level"], " ".join((heading["title"] or "").split())))
    return [(start, *found[start]) for start in sorted(found)]


class ChunkHeadingPath:
    """Finds the path of headings above positions, which are asked for in ascending order.

    Args:
        outline: The headings, from `usable_chunk_headings`.
    """

    def __init__(self, outline: list[tuple[int, int, str]]) -> None:
        self._outline = outline
        self._next = 0
        self._stack: list[tuple[int, str]] = []

    def at(self, position: int) -> str | None:
        """Returns the path at a position, as `A > B > C`; None before the first heading."""
        while self._next < len(self._outline) and self._outline[self._next][0] <= position:
            _, level, title = self._outline[self._next]
            while self._stack and self._stack[-1][0] >= level:
                self._stack.pop()
            self._stack.append((level, title))
            self._next += 1
        return _bounded_path([title for _, title in self._stack if title])


def _bounded_path(titles: list[str]) -> str | None:
    """Joins titles, outermost first, cut to the limits above."""
    path = ""
    for title in reversed(titles):
        shown = title if len(title) <= MAX_HEADING_CHARACTERS else title[: MAX_HEADING_CHARACTERS - 1] + "…"
        longer = f"{shown} > {path}" if path else shown
        if len(longer) > MAX_HEADING_PATH_CHARACTERS:
            break
        path = longer
    return path or None
