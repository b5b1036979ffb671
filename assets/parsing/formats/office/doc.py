"""Reads Word files of 1997 to 2003 (DOC).

Only the text is read, from the piece table that the specification describes ([MS-DOC] 2.4.1, "Retrieving
Text"). Styles are not read, so there are no headings. No library in pure Python reads more; those that do
bundle other programs.
"""

import io
import re
import struct
from collections.abc import Iterator

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.decoding import decode_text
from assets.parsing.formats.lines import format_table_row

_ENCRYPTED, _TABLE_1 = 0x0100, 0x0200  # bits of the information block
_FIELD = re.compile("\x13[^\x13\x14\x15]*(?:\x14([^\x13\x14\x15]*))?\x15")
_MAX_FIELD_DEPTH = 10
_CELL, _PARAGRAPH = "\x07", re.compile("[\r\x0c\x0e]")


def read_doc(body: bytes) -> DocumentBlocks:
    """Returns the paragraphs and table rows of a binary Word document, without footnotes, headers and notes.

    Raises:
        ExtractionError: `encrypted`; `unreadable` if it is damaged or older than Word 97.
    """
    from olefile import OleFileIO

    with OleFileIO(io.BytesIO(body)) as compound:
        if not compound.exists("WordDocument"):
            raise ExtractionError("unreadable", "The Word document has no text stream: it is damaged.")
        main = compound.openstream("WordDocument").read()
        if len(main) < 0x1AA or main[:2] != b"\xec\xa5":
            raise ExtractionError("unreadable", "The Word document is damaged, or older than Word 97.")
        flags = struct.unpack_from("<H", main, 0x0A)[0]
        if flags & _ENCRYPTED:
            raise ExtractionError("encrypted", "The Word document opens only with a password.")
        table = compound.openstream("1Table" if flags & _TABLE_1 else "0Table").read()
        title = compound.get_metadata().title
    length = struct.unpack_from("<I", main, 0x4C)[0]  # of the main text, before footnotes and headers
    start, size = struct.unpack_from("<II", main, 0x01A2)
    text = "".join(_pieces(main, table[start : start + size]))[:length]
    return DocumentBlocks(list(split_doc_paragraphs(text)), decode_text(title) if title else None)


def _pieces(main: bytes, clx: bytes) -> Iterator[str]:
    """Yields the text of the piece table, in reading order."""
    at = 0
    while at + 3 <= len(clx) and clx[at] == 1:  # property modifiers come first
        at += 3 + struct.unpack_from("<H", clx, at + 1)[0]
    if at + 5 > len(clx) or clx[at] != 2:
        raise ExtractionError("unreadable", "The Word document has no piece table: it is damaged.")
    plc = clx[at + 5 : at + 5 + struct.unpack_from("<I", clx, at + 1)[0]]
    count = (len(plc) - 4) // 12
    bounds = struct.unpack_from(f"<{count + 1}I", plc)
    for index in range(count):
        chars = max(0, bounds[index + 1] - bounds[index])
        place = struct.unpack_from("<I", plc, 4 * (count + 1) + 8 * index + 2)[0]
        if place & 0x4000_0000:  # one byte per character
            offset = (place & 0x3FFF_FFFF) // 2
            yield main[offset : offset + chars].decode("cp1252", "replace")
        else:
            yield main[place : place + 2 * chars].decode("utf-16-le", "replace")


def split_doc_paragraphs(text: str) -> Iterator[TextBlock]:
    """Splits the text of a DOC file at Word's control characters; a field becomes the text that it shows.

    A paragraph or page ends with one mark. A table row ends with two cell marks: that of its last cell, and
    that of the row.
    """
    for _ in range(_MAX_FIELD_DEPTH):  # innermost first
        text, replaced = _FIELD.subn(lambda field: field[1] or "", text)
        if not replaced:
            break
    rows: list[str] = []
    for paragraph in _PARAGRAPH.split(text):
        *row_ends, rest = re.split("(?<=\x07)\x07", paragraph)
        rows += filter(None, (format_table_row(row.split(_CELL)) for row in row_ends))
        if rows and rest.strip():
            yield TextBlock("\n".join(rows))
            rows = []
        yield TextBlock(format_table_row(rest.split(_CELL)) if _CELL in rest else rest.replace("\x0b", "\n"))
    if rows:
        yield TextBlock("\n".join(rows))
