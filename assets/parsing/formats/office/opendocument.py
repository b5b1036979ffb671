"""Reads OpenDocument texts and presentations (ODT, ODP)."""

from collections.abc import Iterator
from typing import Any

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.formats.data.xml import parse_xml
from assets.parsing.formats.lines import format_headed_table, format_list, format_table_row
from assets.parsing.formats.zip_package import open_zip_package, read_zip_part

_KIND = "OpenDocument file"
_NS = "{urn:oasis:names:tc:opendocument:xmlns:%s:1.0}"
_TEXT, _TABLE, _DRAW, _OFFICE = (_NS % name for name in ("text", "table", "drawing", "office"))
_PRESENTATION = _NS % "presentation"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"
# Deleted text, annotations, and the templates of tables of contents.
_SKIPPED_TAGS = {f"{_TEXT}tracked-changes", f"{_OFFICE}annotation", f"{_TEXT}index-title-template"}
_SKIPPED_TAGS |= {f"{_TEXT}table-of-content-source", f"{_OFFICE}forms", f"{_PRESENTATION}settings"}
_MAX_REPEAT = 100


def read_opendocument(body: bytes) -> DocumentBlocks:
    """Returns the paragraphs, headings by outline level, lists, tables (a line per row) and notes.

    Each slide of a presentation is a page.

    Headers, footers, annotations and deleted text are left out. The title is the one in the document's
    properties.

    Raises:
        ExtractionError: `encrypted`; `oversize` for a zip bomb; `unreadable`.
    """
    archive = open_zip_package(body, _KIND)
    if b"encryption-data" in (
        archive.read("META-INF/manifest.xml") if "META-INF/manifest.xml" in archive.namelist() else b""
    ):
        raise ExtractionError("encrypted", "The OpenDocument file opens only with a password.")
    root = parse_xml(read_zip_part(archive, "content.xml", _KIND), _KIND)
    title = None
    if "meta.xml" in archive.namelist():
        found = parse_xml(read_zip_part(archive, "meta.xml", _KIND), _KIND).find(f".//{_TITLE}")
        title = None if found is None else found.text
    content = root.find(f"{_OFFICE}body")
    if content is None or not len(content):
        raise ExtractionError("unreadable", "The OpenDocument file has no body.")
    slides = content.findall(f"{_OFFICE}presentation/{_DRAW}page")
    if not slides:
        blocks = list(_blocks(content, None))
    else:
        blocks = [block for number, slide in enumerate(slides, 1) for block in _blocks(slide, number)]
    return DocumentBlocks(blocks, title, len(slides), _text_nodes(content))


def _text_nodes(content: Any) -> str:
    """Returns the text of all paragraphs and headings but those of annotations and deleted text."""
    return "\n".join(
        _inline(paragraph)
        for paragraph in content.iter(f"{_TEXT}p", f"{_TEXT}h")
        if not any(
            above.tag in _SKIPPED_TAGS or above.tag == paragraph.tag for above in paragraph.iterancestors()
        )
    )


def _blocks(parent: Any, page: int | None) -> Iterator[TextBlock]:
    for element in parent:
        if element.tag in _SKIPPED_TAGS:
            continue
        if element.tag == f"{_TEXT}h":
            level = element.get(f"{_TEXT}outline-level", "1")
            text = _inline(element)
            yield TextBlock(text, (int(level) if level.isdigit() else 1) if text.strip() else None, page)
        elif element.tag == f"{_TEXT}p":
            yield TextBlock(_inline(element), None, page)
        elif element.tag == f"{_TEXT}list":
            yield TextBlock(_list(element), None, page)
        elif element.tag == f"{_TABLE}table":
            rows = [list(_cells(row)) for row in element.iter(f"{_TABLE}table-row")]
            headed = element.find(f"{_TABLE}table-header-rows/{_TABLE}table-row") is not None
            lines = ["\n".join(filter(None, map(format_table_row, rows)))]
            for text in format_headed_table(rows) if headed else lines:
                yield TextBlock(text, None, page)
        elif element.tag == f"{_DRAW}frame" and element.get(f"{_PRESENTATION}class") == "title":
            yield TextBlock(" ".join(block.text for block in _blocks(element, page)), 1, page)
        else:
            yield from _blocks(element, page)  # sections, frames, indexes, tracked changes


def _list(element: Any) -> str:
    items = (
        "\n".join(block.text for block in _blocks(item, None) if block.text.strip())
        for item in element
        if item.tag in {f"{_TEXT}list-item", f"{_TEXT}list-header"}
    )
    return format_list(items)


def _cells(row: Any) -> Iterator[str]:
    for cell in row.iterchildren(f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"):
        text = " ".join(block.text for block in _blocks(cell, None))
        repeated = cell.get(f"{_TABLE}number-columns-repeated", "1")
        yield from [text] * (min(int(repeated), _MAX_REPEAT) if repeated.isdigit() else 1)


def _inline(element: Any) -> str:
    return "".join(_pieces(element))


def _pieces(element: Any) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        if child.tag == f"{_TEXT}s":
            count = child.get(f"{_TEXT}c", "1")
            yield " " * (min(int(count), _MAX_REPEAT) if count.isdigit() else 1)
        elif child.tag == f"{_TEXT}tab":
            yield "\t"
        elif child.tag == f"{_TEXT}line-break":
            yield "\n"
        elif child.tag == f"{_TEXT}note":
            note = child.find(f"{_TEXT}note-body")
            if note is not None:
                yield f" [{' '.join(block.text for block in _blocks(note, None))}]"
        elif child.tag == f"{_DRAW}frame":
            yield "\n".join(block.text for block in _blocks(child, None))
        elif child.tag not in _SKIPPED_TAGS:
            yield from _pieces(child)
        yield child.tail or ""
