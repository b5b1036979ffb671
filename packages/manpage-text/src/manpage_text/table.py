"""Reads tables written for tbl(1)."""

import re
from collections.abc import Iterator

from manpage_text.lines import RoffLine

_SEPARATOR = re.compile(r"tab\s*\(?\s*(\S)")
_RULE = re.compile(r"[_=\s]*|\.?[_=]")
_MIXED_FONTS = re.compile(r"[BIRLC]{2}")
_MOST_ROWS = 100_000


def read_table(lines: Iterator[RoffLine]) -> tuple[list[list[str]], bool]:
    """Returns a table's cells by row, and whether the first row is a header: ruled off, or alone in bold.

    Args:
        lines: The lines after `.TS`; those up to `.TE` are consumed.
    """
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
                if found := _SEPARATOR.search(text):
                    separator = found[1]
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
    return rows, len(rows) > 1 and (ruled or (len(bold) > 1 and bold[0] and not all(bold)))


def _add_cells(row: list[str], cells: list[str]) -> bool:
    """Adds cells to a row; returns whether the last one is a text block of several lines."""
    begins = cells[-1].strip() == "T{"
    row += [each for each in cells if each.strip() not in (r"\^", "^")][: len(cells)]
    if begins:
        row[-1] = ""
    return begins
