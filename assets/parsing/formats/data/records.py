"""Reads CSV, TSV, JSON and JSON Lines: a paragraph per record, a line per value."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.decoding import decode_text
from assets.parsing.formats.html.page import html_fragment_blocks
from assets.parsing.formats.lines import format_table_row
from assets.parsing.markup import is_html_fragment

_DELIMITERS = ",;\t|"
_SNIFFED_CHARS = 1 << 16
_RECORDS_PER_BLOCK = 1000
_MIN_FIELDS = 3
_SHORT_NAME = re.compile(r"[^\W\d][^\d,;.!?]{0,29}")
_QUOTED = re.compile(r'"[^"]*"')
# One that is not closed reaches to the end, so that nothing is looked through twice.
_STRING = r'(?P<string>"(?:[^"\\]|\\.?)*+"?)'
_COMMENT = re.compile(rf"{_STRING}|//[^\n]*+|/\*(?:[^*]|\*(?!/))*+(?:\*/)?", re.DOTALL)
_LAST_COMMA = re.compile(rf"{_STRING}|,(?=\s*+[\]}}])", re.DOTALL)
_JSON_START = re.compile(r"\s*+[\[{]")
_TITLE_KEYS = ("title", "name")
# The default limit of 128 KiB per cell is too small: people keep whole documents in columns.
csv.field_size_limit(1 << 27)


def read_delimited(body: bytes) -> DocumentBlocks:
    """Returns the rows of CSV or TSV as "column: value" lines, or unchanged lines if there is no header.

    The delimiter is detected. Text that is not a table, or has only one cell in most lines, is kept
    unchanged.
    """
    text = decode_text(body)
    delimiter = _delimiter(text)
    try:
        widths = Counter(map(len, _rows(text, delimiter)))
    except csv.Error:
        return DocumentBlocks([TextBlock(text)])
    if 2 * widths[1] >= widths.total():
        return DocumentBlocks([TextBlock(text)])
    return DocumentBlocks(sheet_blocks(_rows(text, delimiter)))


def is_plainly_delimited(text: str, is_cut: bool) -> bool:
    """Returns whether a text without a name that says so is CSV or TSV beyond doubt.

    All rows have as many fields as the first. It has quotes around all its fields, or is a header of three or
    more short names without digits, none after a space: lists and logs have commas too.

    Args:
        text: The beginning of the text.
        is_cut: Whether there is more: then the last row does not count.
    """
    delimiter = _delimiter(text)
    try:
        rows = list(_rows(text, delimiter))
    except csv.Error:
        return False
    rows = rows[:-1] if is_cut else rows
    if len(rows) < 2 or len({len(row) for row in rows}) > 1:
        return False
    first = text.lstrip().partition("\n")[0].strip()
    if len(rows[0]) > 1 and all(_QUOTED.fullmatch(field) for field in first.split(delimiter)):
        return True
    return len(rows[0]) >= _MIN_FIELDS and all(map(_SHORT_NAME.fullmatch, rows[0]))


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    """Yields the rows that are not empty: a list of all rows would take thirty times the size of the text."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    return (row for row in rows if any(map(str.strip, row)))


def sheet_blocks(rows: Iterable[list[str]]) -> list[TextBlock]:
    """Returns a table as blocks: the captions above it, then one paragraph per row.

    If the table has a header, each cell is a line "column: value"; cells beyond the header have no name. Rows
    may differ in length.

    Args:
        rows: Rows of cells as text; no row is empty.
    """
    rows = iter(rows)
    above: list[TextBlock] = []
    first = next(rows, None)
    while first is not None and sum(map(bool, map(str.strip, first))) == 1:
        above.append(TextBlock(format_table_row(first)))
        first = next(rows, None)
    if first is None:
        return above
    second = next(rows, None)
    if second is None:
        return [*above, TextBlock(format_table_row(first))]
    rows = chain([second], rows)
    header = _header(first)
    if header is None:
        return [*above, TextBlock("\n".join(map(format_table_row, chain([first], rows))))]
    while records := "\n\n".join(_record(header, row) for row in islice(rows, _RECORDS_PER_BLOCK)):
        above.append(TextBlock(records))
    return above


def _delimiter(text: str) -> str:
    """Returns the delimiter that splits most of the first lines into equally many cells, two or more."""
    lines = [line for line in text[:_SNIFFED_CHARS].splitlines()[:100] if line.strip()]

    def agreement(delimiter: str) -> int:
        widths = Counter(map(len, csv.reader(lines, delimiter=delimiter)))
        return max((count for width, count in widths.items() if width > 1), default=0)

    return max(_DELIMITERS, key=agreement)


def _header(row: list[str]) -> list[str] | None:
    """Returns the header if a row can be one: names differ, none is a number or, but the first, empty."""
    names = [name.strip() for name in row]
    if len(set(names)) < len(names) or not all(names[1:]):
        return None
    return None if any(map(_is_number, names)) else names


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


def _record(header: list[str], row: list[str]) -> str:
    lines = [
        f"{name}: {value}" if name else value
        for name, value in zip(header, map(str.strip, row), strict=False)
        if value
    ]
    if len(row) > len(header):
        lines += filter(None, map(str.strip, row[len(header) :]))
    return "\n".join(lines)


def read_json(body: bytes) -> DocumentBlocks:
    """Returns JSON or JSON Lines as "path: value" lines, one block per JSON line or element of the top list.

    Numbers stay as they were written; nulls and empty strings are left out. A value that is HTML, as content
    management systems export it, is its visible text. The title is the `title` or `name` of the outermost
    object.

    JSON as people write it for programs, with comments and commas at the end of a list, and several documents
    after one another are kept unchanged.

    Raises:
        ExtractionError: `unreadable` if the text is none of these; the reason names the line of the error.
    """
    text = decode_text(body).strip()
    try:
        records = _parsed(text)
    except ExtractionError:
        if not _is_relaxed_json(text):
            raise
        return DocumentBlocks([TextBlock(text)])
    title = None
    if len(records) == 1 and isinstance(records[0], dict):
        title = next((found for key in _TITLE_KEYS if isinstance(found := records[0].get(key), str)), None)
    return DocumentBlocks([TextBlock("\n".join(_lines(record, ""))) for record in records], title)


def _parsed(text: str) -> list[object]:
    # Numbers as strings: 1.10 is a version as often as a float, and no integer is too long.
    decoder = json.JSONDecoder(strict=False, parse_int=str, parse_float=str, parse_constant=str)
    try:
        whole = decoder.decode(text)
    except json.JSONDecodeError as whole_error:
        lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if len(lines) < 2:
            raise _unreadable(f"line {whole_error.lineno}: {whole_error.msg}") from whole_error
        records = []
        for number, line in lines:
            try:
                records.append(decoder.decode(line.strip()))
            except json.JSONDecodeError as error:
                # If the first line is valid by itself, it was meant to be JSON Lines, else one document.
                fault = (
                    f"line {number}: {error.msg}"
                    if records
                    else f"line {whole_error.lineno}: {whole_error.msg}"
                )
                raise _unreadable(fault) from error
        return records
    except RecursionError as error:
        raise _unreadable("it is nested too deeply") from error
    return whole if isinstance(whole, list) else [whole]


def _is_relaxed_json(text: str) -> bool:
    """Whether a text is one whole object or list or several, but for comments and last commas."""
    text = _LAST_COMMA.sub(_kept_string, _COMMENT.sub(_kept_string, text))
    decoder = json.JSONDecoder(strict=False, parse_int=str)
    at = 0
    while start := _JSON_START.match(text, at):
        try:
            at = decoder.raw_decode(text, start.end() - 1)[1]
        except (json.JSONDecodeError, RecursionError):
            return False
    return at > 0 and not text[at:].strip()


def _kept_string(match: re.Match[str]) -> str:
    return match["string"] or " "


def _unreadable(fault: str) -> ExtractionError:
    return ExtractionError("unreadable", f"The JSON can not be parsed, {fault}.")


def _lines(value: object, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _lines(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        if any(isinstance(inner, dict | list) for inner in value):
            for index, inner in enumerate(value):
                yield from _lines(inner, f"{path}[{index}]")
        elif shown := ", ".join(filter(None, map(_shown, value))):
            yield f"{path}: {shown}" if path else shown
    elif shown := _shown(value):
        joint = ":\n" if "\n" in shown else ": "
        yield f"{path}{joint}{shown}" if path else shown


def _shown(scalar: object) -> str:
    if isinstance(scalar, bool):
        return str(scalar).lower()
    shown = "" if scalar is None else str(scalar).strip()
    if shown.startswith("<") and is_html_fragment(shown.encode("utf-8", "replace")):
        return "\n".join(block.text for block in html_fragment_blocks(shown)) or shown
    return shown
