"""Reads Word documents (DOCX)."""

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.formats.lines import format_table_row
from assets.parsing.formats.zip_package import open_zip_package

if TYPE_CHECKING:
    from docx.document import Document

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
# Deleted text, the old place of moved text, the code of fields, and fallbacks, which repeat other content.
_SKIPPED_TAGS = {f"{_W}del", f"{_W}moveFrom", f"{_W}instrText", _FALLBACK}
_HEADING_STYLE = re.compile(r"heading (\d)", re.IGNORECASE)


def read_docx(body: bytes) -> DocumentBlocks:
    """Returns the paragraphs, lists, headings, tables (a line per row) and text boxes of a Word document.

    Headings are found by style or outline level. Headers, footers, comments and deleted text are left out;
    inserted text is kept. The title is the one in the document's properties, or the paragraph with the style
    Title.

    Raises:
        ExtractionError: `encrypted`; `oversize` for a zip bomb; `unreadable`.
    """
    open_zip_package(body, "Word document")
    from docx import Document as open_document

    try:
        document = open_document(io.BytesIO(body))
    except (KeyError, ValueError) as error:
        raise ExtractionError("unreadable", f"The file is not a complete Word document: {error}.") from error
    body = document.element.body
    blocks = list(_blocks(body, _heading_styles(document)))
    return DocumentBlocks(blocks, document.core_properties.title, visible_text=_text_nodes(body))


def _text_nodes(body: Any) -> str:
    """Returns all text of a document but what is deleted or repeats other content, wherever it stands."""
    texts: list[str] = []
    for element in body.iter(f"{_W}p", f"{_W}t", f"{_W}tab", f"{_W}br", f"{_W}cr", f"{_W}noBreakHyphen"):
        if element.tag != f"{_W}t":
            texts.append(" ")
        elif not any(above.tag in _SKIPPED_TAGS for above in element.iterancestors()):
            texts.append(element.text or "")
    return "".join(texts)


def _heading_styles(document: "Document") -> dict[str, int]:
    """Returns heading levels by style id; Word keeps the English names of styles in every language."""
    levels = {}
    for style in document.styles.element.iter(f"{_W}style"):
        name = style.find(f"{_W}name")
        named = "" if name is None else name.get(f"{_W}val", "")
        if named.lower() == "title":
            levels[style.get(f"{_W}styleId")] = 1
        elif match := _HEADING_STYLE.fullmatch(named):
            levels[style.get(f"{_W}styleId")] = int(match[1])
    return levels


def _blocks(parent: Any, styles: dict[str, int]) -> Iterator[TextBlock]:
    items: list[str] = []
    for element in parent:
        listed = element.tag == f"{_W}p" and element.find(f"{_W}pPr/{_W}numPr") is not None
        if items and not listed:
            yield TextBlock("\n".join(items))
            items = []
        if element.tag == f"{_W}p":
            text, level = "".join(_runs(element)), _level(element, styles)
            if listed and level is None:
                items.append(f"- {text.strip()}" if text.strip() else "")
            else:
                yield TextBlock(text, level if text.strip() else None)
        elif element.tag == f"{_W}tbl":
            yield TextBlock(
                "\n".join(filter(None, (format_table_row(_cells(row)) for row in element.iter(f"{_W}tr"))))
            )
        elif element.tag not in _SKIPPED_TAGS:
            yield from _blocks(element, styles)  # content controls, tracked changes, custom XML
    if items:
        yield TextBlock("\n".join(items))


def _level(paragraph: Any, styles: dict[str, int]) -> int | None:
    style = paragraph.find(f"{_W}pPr/{_W}pStyle")
    outline = paragraph.find(f"{_W}pPr/{_W}outlineLvl")
    if style is not None and style.get(f"{_W}val") in styles:
        return styles[style.get(f"{_W}val")]
    level = -1 if outline is None else int(outline.get(f"{_W}val", "9"))
    return level + 1 if 0 <= level < 9 else None  # 9 is body text


def _cells(row: Any) -> Iterator[str]:
    for cell in row.iterchildren(f"{_W}tc", f"{_W}sdt"):
        yield " ".join("".join(_runs(paragraph)) for paragraph in cell.iter(f"{_W}p"))


def _runs(element: Any) -> Iterator[str]:
    for child in element:
        if child.tag == f"{_W}t":
            yield child.text or ""
        elif child.tag == f"{_W}tab":
            yield "\t"
        elif child.tag in {f"{_W}br", f"{_W}cr"}:
            yield "\n"
        elif child.tag == f"{_W}noBreakHyphen":
            yield "-"
        elif child.tag not in _SKIPPED_TAGS and child.tag not in {f"{_W}pPr", f"{_W}rPr"}:
            yield from _runs(child)
            if child.tag == f"{_W}p":  # of a text box
                yield "\n"
