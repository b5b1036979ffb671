"""Reads manual pages."""

from contextlib import suppress

import manpage_text

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.decoding import decode_text
from assets.parsing.formats.lines import format_headed_table


def read_manual_page(body: bytes) -> DocumentBlocks:
    """Returns the blocks of a manual page; its title is `ls(1)`.

    Raises:
        ExtractionError: `no_text` for a page that only refers to another one.
    """
    page = manpage_text.read_manual_page(_decoded(body), format_headed_table)
    if page.refers_to:
        raise ExtractionError(
            "no_text", f"The manual page holds nothing but the name of another: {page.refers_to}."
        )
    blocks = [TextBlock(block.text, block.level) for block in page.blocks]
    return DocumentBlocks(blocks, page.title, visible_text=page.source_words)


def _decoded(body: bytes) -> str:
    """The text in the encoding that the page declares, or else the likeliest one."""
    if encoding := manpage_text.declared_encoding(body):
        with suppress(LookupError, UnicodeDecodeError):
            return body.decode(encoding)
    return decode_text(body)
