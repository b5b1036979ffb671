"""How lists and table rows become lines of text, the same in every format."""

import re
import textwrap
from collections.abc import Iterable

_CODE_INDENT = "    "
_PROSE_LINE = re.compile(r"[ \t]*(?:[^\W\d_][\w'’,-]*[,.:;]? ){6}")
_MAX_TABLE_CHARS = 700
"""Of the rows of one text of a table: with its header it fits into a chunk of the default size."""


def format_list(items: Iterable[str], first: int | None = None) -> str:
    """Returns list items as lines, each with a bullet or number; continuation lines are indented.

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


def format_code(text: str) -> str:
    """Returns a code block with its lines indented, so that it can be told from prose and stays whole.

    Preformatted prose, half of whose lines begin with six words, is returned as it is.
    """
    lines = [line for line in text.split("\n") if line.strip()]
    prose = sum(bool(_PROSE_LINE.match(line)) for line in lines)
    return text if 2 * prose >= len(lines) else textwrap.indent(text.strip("\n"), _CODE_INDENT)


def format_table_row(cells: Iterable[str]) -> str:
    """Returns a table row as one line with ` | ` between cells; a single non-empty cell stands alone."""
    texts = [" ".join(cell.split()) for cell in cells]
    if sum(map(bool, texts)) == 1:  # a caption, or a table that only lays out a page
        return "".join(texts)
    while texts and not texts[-1]:
        texts.pop()
    return " | ".join(texts)


def format_headed_table(rows: list[list[str]]) -> list[str]:
    """Returns a table whose first row is its header: as lines, or if it is long as `format_table_rows`."""
    lines = "\n".join(filter(None, map(format_table_row, rows)))
    if len(lines) <= _MAX_TABLE_CHARS or len(rows[0]) < 2:
        return [lines]
    return format_table_rows(rows[0], rows[1:])


def format_table_rows(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Returns a table in Markdown, as one text or, if it is long, as several that each repeat the header.

    A text has at most about 700 characters, so that it fits into a chunk of the default size. A header that
    would fill half of that is not repeated.
    """
    top = f"{_markdown_row(header)}\n|{' --- |' * len(header)}\n"
    texts: list[str] = []
    lines: list[str] = []
    size = 0
    for cells in rows:
        line = _markdown_row(cells)
        if lines and size + len(line) > _MAX_TABLE_CHARS:
            texts.append("\n".join(lines))
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    texts.append("\n".join(lines))
    repeated = top if len(top) < _MAX_TABLE_CHARS / 2 else ""
    return [(repeated if number else top) + text for number, text in enumerate(texts)]


def _markdown_row(cells: Iterable[str]) -> str:
    texts = [" ".join(cell.split()).replace("|", r"\|") for cell in cells]
    return f"| {' | '.join(texts)} |"
