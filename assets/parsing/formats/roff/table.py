"""Reads the tables of manual pages, which are written for tbl(1)."""

import re
from collections.abc import Iterable, Iterator

from assets.parsing.formats.lines import format_headed_table, format_table_row
from assets.parsing.formats.roff.requests import RoffLine

_SEPARATOR = re.compile(r"tab\s*\(?\s*(\S)")
_RULE = re.compile(r"[_=\s]*|\.?[_=]")
_MIXED_FONTS = re.compile(r"[BIRLC]{2}")
_MOST_ROWS = 100_000


def read_table(lines: Iterable[RoffLine]) -> list[str]:
    """Returns a table's rows, up to its end, as texts of lines; a rule below the first row is a header's.

    Args:
        lines: The lines after the one that begins the table; they are consumed up to the one that ends it.
    """
    rows, ruled = _rows(iter(lines))
    if ruled and len(rows) > 1:
        return format_headed_table(rows)
    return ["\n".join(filter(None, map(format_table_row, rows)))]


def _rows(lines: Iterator[RoffLine]) -> tuple[list[list[str]], bool]:
    """The rows of a table, and whether a rule stands below the first one, or it alone is bold."""
    rows: list[list[str]] = []
    separator, in_format, in_cell = "\t", True, False
    formats: list[str] = []
    cell: list[str] = []
    ruled = False
    for line in lines:
        text = line.text
        if line.macro == "TE":
            break
        if line.macro == "T&":
            in_format = True
        elif line.macro and in_cell:
            if line.macro[0].isupper():
                cell.append("".join(line.arguments) if _MIXED_FONTS.fullmatch(line.macro) else text)
        elif line.macro or len(rows) == _MOST_ROWS:
            continue
        elif in_format:
            if text.rstrip().endswith(";"):
                found = _SEPARATOR.search(text)
                separator = found[1] if found else separator
                continue
            formats += text.rstrip(". ").split(",")
            in_format = not text.rstrip().endswith(".")
        elif in_cell:
            in_cell = not text.startswith("T}")
            if in_cell:
                cell.append(text)
            else:
                rows[-1][-1] = " ".join(cell)
                cell = []
                in_cell = len(text) > len("T}") and _add_cells(rows[-1], text[3:].split(separator))
        elif _RULE.fullmatch(text):
            ruled = ruled or (len(rows) == 1 and bool(text.strip()))
        else:
            rows.append([])
            in_cell = _add_cells(rows[-1], text.split(separator))
    if in_cell:
        rows[-1][-1] = " ".join(cell)
    bold = [bool(re.search(r"[bB]", each)) for each in formats]
    return rows, ruled or (len(bold) > 1 and bold[0] and not all(bold))


def _add_cells(row: list[str], cells: list[str]) -> bool:
    """Adds cells to a row; returns whether the last one is a block of text that goes on."""
    begins = cells[-1].strip() == "T{"
    row += [each for each in cells if each.strip() not in (r"\^", "^")][: len(cells)]
    if begins:
        row[-1] = ""
    return begins
