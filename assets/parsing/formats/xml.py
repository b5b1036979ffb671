"""Reads XML, and parses XML for the other formats, without entities, DTDs and network access."""

import re
from collections.abc import Iterator
from typing import Any

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock

_DECLARES_ENTITY = re.compile(rb"<!ENTITY\s|<\x00?!\x00E\x00N\x00T\x00I\x00T\x00Y\x00")
_TITLES = {"title", "head", "heading", "caption", "h1", "h2", "h3", "h4", "h5", "h6"}
# Elements whose names add nothing to their text.
_PROSE = {"p", "para", "simpara", "li", "item", "text", "td", "th", "cell", "entry", "line", "body", "note"}
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

    Elements called title, head or similar become headings, whose level is their depth. Attributes are left
    out.

    Raises:
        ExtractionError: `unreadable`; see `parse_xml`.
    """
    return DocumentBlocks(list(_blocks(parse_xml(body, "file"), 1)))


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
