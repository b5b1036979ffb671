"""Reads XML, and parses XML for the other formats, without entities, DTDs and network access."""

import re
from collections.abc import Iterator
from typing import Any

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.decoding import decode_text
from assets.parsing.formats.html.page import html_fragment_blocks

_DECLARES_ENTITY = re.compile(rb"<!ENTITY\s|<\x00?!\x00E\x00N\x00T\x00I\x00T\x00Y\x00")
_SGML = re.compile(rb"\s*<!DOCTYPE\s+(?!svg)[\w.-]+(?:\s+(?:SYSTEM|PUBLIC\s+\"-//)[^>]*)?>", re.IGNORECASE)
_TAG = re.compile(r"<!--.*?(?:-->|\Z)|</?[a-zA-Z][^<>]*>|<![^<>]*>", re.DOTALL)
_TITLES = {"title", "head", "heading", "caption", "h1", "h2", "h3", "h4", "h5", "h6"}
# Elements whose names add nothing to their text.
_PROSE = {"p", "para", "simpara", "li", "item", "text", "td", "th", "cell", "entry", "line", "body", "note"}
# Elements of feeds (RSS, Atom) whose text may be HTML.
_MAY_BE_HTML = {"description", "encoded", "content", "summary"}
_HTML = re.compile(
    r"</(?:p|a|b|i|em|strong|div|[ou]l|li|span|h[1-6]|pre|code|table|blockquote)>|<(?:br|p|img)\b"
)
_LABELLED_CHARS = 200
_MAX_DEPTH = 200


def parse_xml(body: bytes, kind: str) -> Any:
    """Returns the root element of untrusted XML, without comments and processing instructions.

    Raises:
        ExtractionError: `unreadable` if it is not well-formed, has elements nested deeper than libxml2's
            limit
            of 256, or declares entities, which XML bombs and the inclusion of other files need.
    """
    from lxml import etree  # type: ignore[import-untyped]

    if _DECLARES_ENTITY.search(body):
        raise ExtractionError(
            "unreadable", f"The {kind} declares entities of its own, which are not expanded."
        )
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        return etree.fromstring(body, parser)
    except etree.XMLSyntaxError as error:
        raise ExtractionError("unreadable", f"The {kind} is not well-formed XML: {error.msg}.") from error


def read_xml(body: bytes) -> DocumentBlocks:
    """Returns the text of XML elements: prose as paragraphs, and short fields as "name: value" lines.

    Elements called title, head or similar become headings, whose level is their depth. HTML in the text of a
    feed's elements is read as HTML. Attributes are left out. Of SGML, whose elements need no end, the lines
    are returned without their tags.

    Raises:
        ExtractionError: `unreadable`; see `parse_xml`.
    """
    try:
        return DocumentBlocks(list(_blocks(parse_xml(body, "file"), 1)))
    except ExtractionError:
        if _DECLARES_ENTITY.search(body) or not _SGML.match(body):
            raise
    lines = map(str.strip, _TAG.sub("", decode_text(body)).splitlines())
    return DocumentBlocks([TextBlock("\n".join(lines))])


def _name(element: Any) -> str:
    tag = element.tag if isinstance(element.tag, str) else ""
    return tag.rpartition("}")[2]


def _blocks(element: Any, depth: int) -> Iterator[TextBlock]:
    fields: list[str] = []
    for child in element:
        if _is_text(child) or depth > _MAX_DEPTH:
            text, name = _text(child), _name(child)
            if not text:
                continue
            if name in _MAY_BE_HTML and not len(child) and _HTML.search(text):
                if fields:
                    yield TextBlock("\n".join(fields))
                    fields = []
                yield from html_fragment_blocks(child.text)
                continue
            short = len(text) <= _LABELLED_CHARS and "\n" not in text
            if short and name.lower() not in _TITLES and name.lower() not in _PROSE:
                fields.append(f"{name}: {text}")
                continue
            if fields:
                yield TextBlock("\n".join(fields))
                fields = []
            if short and name.lower() in _TITLES:
                yield TextBlock(text, level=min(depth, 6))
            else:
                yield TextBlock(text)
            continue
        if fields:
            yield TextBlock("\n".join(fields))
            fields = []
        yield from _blocks(child, depth + 1)
    if fields:
        yield TextBlock("\n".join(fields))
    if not len(element) and depth == 1:
        yield TextBlock(element.text or "")


def _text(element: Any) -> str:
    """Returns an element's text: in one line if it has child elements, else its lines without indentation."""
    if len(element):
        return " ".join("".join(element.itertext()).split())
    return "\n".join(map(str.strip, (element.text or "").strip().splitlines()))


def _is_text(element: Any) -> bool:
    """Whether an element has text of its own: it is a leaf, or has words between its child elements."""
    if not len(element):
        return True
    return bool((element.text or "").strip()) or any((child.tail or "").strip() for child in element)
