"""Reads Org-mode files."""

import re

from assets.parsing.blocks import DocumentBlocks, TextBlock
from assets.parsing.decoding import decode_text

_HEADING = re.compile(r"(\*+)[ \t]+(?:(?:TODO|DONE)[ \t]+)?(.*?)(?:[ \t]+:[\w@#%:]+:)?[ \t]*")
_TITLE = re.compile(r"#\+title:[ \t]*(.+)", re.IGNORECASE)
# Keywords, the fences of blocks, comments, and the lines of drawers.
_MARKUP = re.compile(r"[ \t]*(?:#\+\w+.*|#(?: .*)?|:[A-Z_-]+:.*)")
_LINK = re.compile(r"\[\[([^\[\]]+)\](?:\[([^\[\]]+)\])?\]")

# Code and verbatim text; in Org the marks are at the edges of words.
_VERBATIM = re.compile(r"(?<![\w=~])([=~])(\S|\S.{0,300}?\S)\1(?![\w=~])")


def read_org(body: bytes) -> DocumentBlocks:
    """Returns the headings and lines of an Org file, without its keywords, comments and drawers."""
    title, blocks, lines = None, [], list[str]()
    for line in decode_text(body).splitlines():
        heading, named = _HEADING.fullmatch(line), _TITLE.fullmatch(line)
        if heading or named:
            blocks.append(TextBlock("\n".join(lines)))
            lines = []
        if heading:
            blocks.append(TextBlock(_shown(heading[2]), level=len(heading[1])))
        elif named:
            title = named[1]
        elif not _MARKUP.fullmatch(line):
            lines.append(_shown(line))
    return DocumentBlocks([*blocks, TextBlock("\n".join(lines))], title)


def _shown(text: str) -> str:
    return _VERBATIM.sub(r"\2", _LINK.sub(lambda link: link[2] or link[1], text))
