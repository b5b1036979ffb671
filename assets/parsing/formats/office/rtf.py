"""Reads RTF."""

import re

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.formats.lines import format_table_row

_TITLE = re.compile(r"\{\\title\s([^{}\\]{1,500})\}")


def read_rtf(body: bytes) -> DocumentBlocks:
    """Returns the paragraphs and table rows that striprtf finds, without styles, pictures and headers.

    Raises:
        ExtractionError: `unreadable` if the bytes do not begin as RTF does.
    """
    from striprtf.striprtf import rtf_to_text

    # RTF is ASCII. Other bytes are in the code page that the file names; Latin-1 keeps them unchanged.
    source = body.decode("latin-1").lstrip("\xef\xbb\xbf \r\n\t")
    if not source.startswith("{\\rtf"):
        raise ExtractionError("unreadable", "The file does not begin as RTF does.")
    text = rtf_to_text(source, errors="replace")
    # A table row is a line that ends with the bar after its last cell.
    lines = (format_table_row(line.split("|")) if line.endswith("|") else line for line in text.split("\n"))
    title = _TITLE.search(source)
    return DocumentBlocks(
        [TextBlock(line) for line in _paragraphs(list(lines), text)], title[1] if title else None
    )


def _paragraphs(lines: list[str], text: str) -> list[str]:
    """Joins consecutive lines of a table; makes every other line a paragraph."""
    paragraphs: list[str] = []
    in_table = False
    for line, raw in zip(lines, text.split("\n"), strict=True):
        if raw.endswith("|") and in_table:
            paragraphs[-1] += f"\n{line}"
        else:
            paragraphs.append(line)
        in_table = raw.endswith("|")
    return paragraphs
