"""Reads Markdown (CommonMark with tables)."""

import re
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

from assets.parsing.blocks import DocumentBlocks, TextBlock
from assets.parsing.decoding import decode_text
from assets.parsing.formats.lines import format_code, format_headed_table, format_list

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n((?:[\w-]+:.*\n|[ \t#-].*\n|\n)*?)---[ \t]*(?:\n|\Z)")
_FRONT_TITLE = re.compile(r"^title:[ \t]*(['\"]?)(.+?)\1[ \t]*$", re.MULTILINE)
_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)


class _Pictures(Enum):
    """Whose alternative texts are text."""

    NONE = 0
    UNLINKED = 1
    """Pictures that are links are mostly badges."""
    ALL = 2


def read_markdown(body: bytes) -> DocumentBlocks:
    """Returns the headings, paragraphs, code, lists and tables of Markdown; drops tags, URLs and badges."""
    return read_markdown_source(decode_text(body))


def read_markdown_source(source: str) -> DocumentBlocks:
    """Returns the blocks of decoded Markdown; the title is the one in the front matter, if any."""
    from markdown_it.tree import SyntaxTreeNode

    source = source.replace("\r\n", "\n")
    title = None
    if front := _FRONT_MATTER.match(source):
        found = _FRONT_TITLE.search(front[1])
        title = found[2] if found else None
        source = source[front.end() :]
    return DocumentBlocks(_blocks(SyntaxTreeNode(_parser().parse(source))), title)


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"maxNesting": 100}).enable(["table", "strikethrough"])
    # Link addresses are dropped anyway, and checking and escaping them would take a sixth of the time.
    parser.normalizeLink = lambda url: url  # type: ignore[method-assign]
    return parser


def _blocks(parent: "SyntaxTreeNode") -> list[TextBlock]:
    blocks: list[TextBlock] = []
    for node in parent.children:
        match node.type:
            case "heading":
                text = _inline(node, _Pictures.NONE) or _inline(node, _Pictures.ALL)
                blocks.append(TextBlock(text, level=int(node.tag[1])))
            case "paragraph":
                blocks.append(TextBlock(_inline(node)))
            case "fence" | "code_block":
                blocks.append(TextBlock(format_code(node.content)))
            case "bullet_list":
                blocks.append(TextBlock(format_list(map(_item, node.children))))
            case "ordered_list":
                first = int(node.attrs.get("start", 1))
                blocks.append(TextBlock(format_list(map(_item, node.children), first)))
            case "table":
                rows = [row for group in node.children for row in group.children]
                cells = [[_inline(cell) for cell in row.children] for row in rows]
                blocks += map(TextBlock, format_headed_table(cells))
            case "html_block":
                from assets.parsing.formats.html.page import html_fragment_blocks

                blocks += html_fragment_blocks(node.content)
            case "blockquote":
                blocks += _blocks(node)
    return blocks


def _item(node: "SyntaxTreeNode") -> str:
    return "\n".join(block.text.strip("\n") for block in _blocks(node) if block.text.strip())


def _inline(node: "SyntaxTreeNode", pictures: _Pictures = _Pictures.UNLINKED) -> str:
    """Returns the visible text of inline nodes, with the alternative texts of some pictures."""
    parts: list[str] = []
    for child in node.children:
        match child.type:
            case "text" | "code_inline":
                parts.append(child.content)
            case "softbreak":
                parts.append(" ")
            case "hardbreak":
                parts.append("\n")
            case "html_inline":
                parts.append("\n" if _LINE_BREAK.fullmatch(child.content) else "")
            case "image":
                parts.append("" if pictures is _Pictures.NONE else child.content)
            case "link" if pictures is _Pictures.UNLINKED:
                parts.append(_inline(child, _Pictures.NONE))
            case _:
                parts.append(_inline(child, pictures))
    return re.sub(" {2,}", " ", "".join(parts)).strip()
