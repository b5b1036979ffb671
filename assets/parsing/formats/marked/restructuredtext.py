"""Reads reStructuredText by docutils, which is kept from opening files that the text names."""

import re
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.decoding import decode_text
from assets.parsing.formats.lines import format_code, format_headed_table, format_list, format_table_row

if TYPE_CHECKING:
    from docutils import nodes

_SETTINGS = {
    "file_insertion_enabled": False,  # an include directive would read this machine's files
    "raw_enabled": False,
    "_disable_config": True,  # a docutils.conf in the current folder could switch that on
    "report_level": 5,
    "halt_level": 6,
    # Above its default limit of 10,000 characters it gives up the whole document. The sandbox bounds the
    # time.
    "line_length_limit": 1 << 30,
    "warning_stream": False,
    "smart_quotes": False,
    "syntax_highlight": "none",
    "doctitle_xform": True,
}
_ROLE = re.compile(r":[\w.+:-]+:`([^`]*)`|`([^`]*)`(?::[\w.+:-]+:|__?)?")
_TARGET = re.compile(r"\s*<[^<>]*>\s*$")
_DIRECTIVE = re.compile(r"\.\.\s+(?:\|[^|]+\|\s+)?([\w.+:-]+)::[ \t]*([^\n]*)\n?(.*)", re.DOTALL)
_OPTIONS = re.compile(r"(?:[ \t]*:[\w-]+:[^\n]*\n?(?:[ \t]{4,}[^\n:][^\n]*\n)*)*")
# Directives without text: their arguments are files or names of pages, their bodies pictures or page lists.
_WITHOUT_TEXT = {
    *("include", "literalinclude", "raw", "image", "figure", "toctree", "contents", "index", "highlight"),
    *("currentmodule", "module", "py:module", "py:currentmodule", "automodule", "autosummary", "graphviz"),
    *("mermaid", "plot", "tabularcolumns", "default-role", "role", "meta", "grid-item-image"),
}
_CODE = {
    "code",
    "code-block",
    "sourcecode",
    "parsed-literal",
    "prompt",
    "console",
    "ipython",
    "testcode",
    "doctest",
}
# The date of parsing must not become text: the same bytes must give the same text.
_DATE = re.compile(r"^(\.\.[ \t]+\|[^|\n]+\|[ \t]+)date::[^\n]*", re.MULTILINE)
_MAX_REPARSE = 4
_ERROR_LEVEL = 3
_SKIPPED = (
    *("comment", "target", "substitution_definition", "raw", "pending", "decoration", "meta"),
    *("label", "colspec", "citation_reference_target"),
)


def read_rst(body: bytes) -> DocumentBlocks:
    """Returns the blocks of reStructuredText, with the text inside Sphinx's and unknown roles and directives.

    The directives that include files or raw output are disabled. Error messages of docutils are left out.
    """
    return DocumentBlocks(_parsed(decode_text(body), 0))


def _parsed(source: str, reparsed: int) -> list[TextBlock]:
    from docutils.core import publish_doctree
    from docutils.utils import SystemMessage

    try:
        document = publish_doctree(_DATE.sub(r"\1replace:: (date)", source), settings_overrides=_SETTINGS)
    except SystemMessage as error:
        raise ExtractionError("unreadable", f"The reStructuredText can not be parsed: {error}.") from error
    return _blocks(document, 1 if document.get("title") else 0, reparsed)


def _blocks(parent: "nodes.Node", depth: int, reparsed: int) -> list[TextBlock]:
    blocks: list[TextBlock] = []
    for node in parent.children:
        blocks += _block(node, depth, reparsed)
    return blocks


def _block(node: "nodes.Node", depth: int, reparsed: int) -> list[TextBlock]:
    from docutils import nodes

    def inside(child: nodes.Node, deeper: int = 0) -> list[TextBlock]:
        return _blocks(child, depth + deeper, reparsed)

    def flat(child: nodes.Node) -> str:
        if isinstance(child, nodes.TextElement):  # a term or a field's name holds no blocks
            return _inline(child)
        return "\n".join(block.text.strip("\n") for block in inside(child) if block.text.strip())

    match node:
        case nodes.Element() if node.tagname in _SKIPPED or "contents" in node.get("classes", ()):
            return []
        case nodes.title():
            # The topics, sidebars and admonitions that docutils makes titles for are no part of the outline.
            outline = isinstance(node.parent, nodes.section | nodes.document)
            return [TextBlock(_inline(node), max(depth, 1) if outline else None)]
        case nodes.image():  # a link of a picture, such as a badge, is a reference
            return [TextBlock(node.get("alt", ""))]
        case nodes.subtitle():
            return [TextBlock(_inline(node), depth + 1)]
        case nodes.section():
            return inside(node, 1)
        case nodes.literal_block() | nodes.doctest_block() | nodes.math_block():
            return [TextBlock(format_code(node.astext()))]
        case nodes.system_message():
            return _salvaged(node, reparsed)
        case nodes.bullet_list():
            return [TextBlock(format_list(flat(item) for item in node.children))]
        case nodes.enumerated_list():
            return [TextBlock(format_list((flat(item) for item in node.children), int(node.get("start", 1))))]
        case nodes.definition_list():
            return [TextBlock("\n".join(_definition(item, flat) for item in node.children))]
        case nodes.field_list() | nodes.docinfo():
            return [TextBlock("\n".join(": ".join(map(flat, _pair(each))) for each in node.children))]
        case nodes.option_list():
            return [TextBlock("\n".join(": ".join(map(flat, item.children)) for item in node.children))]
        case nodes.option_group():
            return [TextBlock(", ".join(option.astext() for option in node.children))]
        case nodes.line_block():
            return [TextBlock("\n".join(_inline(line) for line in node.findall(nodes.line)))]
        case nodes.table():
            caption = [TextBlock(_inline(title)) for title in node.children if isinstance(title, nodes.title)]
            rows = [[flat(cell) for cell in row.children] for row in node.findall(nodes.row)]
            heads = sum(len(head.children) for head in node.findall(nodes.thead))
            lines = ["\n".join(filter(None, map(format_table_row, rows)))]
            return [*caption, *map(TextBlock, format_headed_table(rows) if heads == 1 else lines)]
        case nodes.footnote() | nodes.citation():
            label = next((child.astext() for child in node.children if isinstance(child, nodes.label)), "")
            return [TextBlock(f"[{label}] {flat(node)}" if label else flat(node))]
        case nodes.Element() if isinstance(node, nodes.Admonition) and not isinstance(node, nodes.admonition):
            return [TextBlock(f"{node.tagname.capitalize()}: {flat(node)}")]
        case nodes.TextElement():
            return [TextBlock(_inline(node))]
        case nodes.Element():
            return inside(node)
    return []


def _pair(field: "nodes.Node") -> list["nodes.Node"]:
    """Returns the name and body of a field, but only the value of a bibliographic one (author, version)."""
    from docutils import nodes

    return list(field.children) if isinstance(field, nodes.field) else [field]


def _definition(item: "nodes.Node", flat: Callable[["nodes.Node"], str]) -> str:
    from docutils import nodes

    terms = [flat(child) for child in item.children if not isinstance(child, nodes.definition)]
    bodies = [flat(child) for child in item.children if isinstance(child, nodes.definition)]
    return "\n".join([" : ".join(terms), *(textwrap.indent(body, "  ") for body in bodies)])


def _salvaged(message: "nodes.Element", reparsed: int) -> list[TextBlock]:
    """Returns the text that docutils could not parse, which is the literal block of an error message.

    Messages below errors are left out: their text is also in the document, or it asked for a file or raw
    output.
    """
    from docutils import nodes

    source = next((each.astext() for each in message.children if isinstance(each, nodes.literal_block)), "")
    if not source or message["level"] < _ERROR_LEVEL:
        return []
    directive = _DIRECTIVE.match(source)
    if directive is None:
        return [TextBlock(source)]
    name, argument, rest = directive[1].lower(), directive[2].strip(), textwrap.dedent(directive[3])
    body = rest[_OPTIONS.match(rest).end() :].strip("\n")  # type: ignore[union-attr]
    if name in _WITHOUT_TEXT:
        return []
    if name in _CODE or reparsed >= _MAX_REPARSE:
        return [TextBlock(format_code(body))]
    if argument and not name.startswith("version") and "deprecated" not in name:
        return [TextBlock(_without_role(argument)), *_parsed(body, reparsed + 1)]
    # "versionadded:: 1.0" has a meaning only together with its name.
    label = TextBlock(f"{name.removeprefix('version').capitalize()} {argument}".strip())
    return [label, *_parsed(body, reparsed + 1)] if argument else _parsed(body, reparsed + 1)


def _inline(node: "nodes.Node") -> str:
    from docutils import nodes

    parts: list[str] = []
    for child in node.children:
        match child:
            case nodes.Text():
                parts.append(str(child).replace("\n", " "))
            case nodes.image() | nodes.target() | nodes.raw() | nodes.system_message():
                pass
            case nodes.problematic():
                parts.append(_without_role(child.astext()))
            case nodes.footnote_reference() | nodes.citation_reference():
                parts.append(f"[{child.astext()}]")
            case nodes.Element():
                parts.append(_inline(child))
    return re.sub(" {2,}", " ", "".join(parts))


def _without_role(source: str) -> str:
    """Returns interpreted text as a reader would see it: `:ref:`the guide <guide>`` is "the guide"."""

    def shown(match: re.Match[str]) -> str:
        text = (match[1] or match[2] or "").replace("\n", " ")
        return _TARGET.sub("", text).removeprefix("~") or text

    return _ROLE.sub(shown, source)
