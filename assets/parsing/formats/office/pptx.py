"""Reads PowerPoint presentations (PPTX): a page per slide."""

import io
from collections.abc import Iterator
from typing import Any

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.formats.lines import format_table_row
from assets.parsing.formats.zip_package import open_zip_package

_A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_MAX_DEPTH = 50  # of nested groups


def read_pptx(body: bytes) -> DocumentBlocks:
    """Returns the slides of a presentation: title as heading, text boxes, tables (a line per row) and notes.

    Raises:
        ExtractionError: `encrypted`; `oversize` for a zip bomb; `unreadable`.
    """
    open_zip_package(body, "PowerPoint presentation")
    from pptx import Presentation

    try:
        deck = Presentation(io.BytesIO(body))
    except (KeyError, ValueError) as error:
        reason = f"The file is not a complete PowerPoint presentation: {error}."
        raise ExtractionError("unreadable", reason) from error
    blocks: list[TextBlock] = []
    visible: list[str] = []
    for number, slide in enumerate(deck.slides, 1):
        visible += (
            "".join(each.text or " " for each in paragraph.iter(f"{_A}t", f"{_A}br"))
            for paragraph in slide.element.iter(f"{_A}p")
        )
        title = slide.shapes.title
        if title is not None and title.text_frame.text.strip():
            blocks.append(TextBlock(title.text_frame.text, 1, number))
        blocks += (
            TextBlock(text, None, number)
            for shape in slide.shapes
            if title is None or shape.shape_id != title.shape_id
            for text in _texts(shape, 0)
        )
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            notes = slide.notes_slide.notes_text_frame.text
            blocks += [TextBlock(f"Notes: {notes}", None, number)] if notes.strip() else []
    return DocumentBlocks(blocks, deck.core_properties.title, len(deck.slides), "\n".join(visible))


def _texts(shape: Any, depth: int) -> Iterator[str]:
    if hasattr(shape, "shapes"):  # a group
        for inner in shape.shapes if depth < _MAX_DEPTH else ():
            yield from _texts(inner, depth + 1)
    elif getattr(shape, "has_table", False):
        rows = (format_table_row(cell.text for cell in row.cells) for row in shape.table.rows)
        yield "\n".join(filter(None, rows))
    elif shape.has_text_frame:
        paragraphs = [each for each in shape.text_frame.paragraphs if each.text.strip()]
        listed = len(paragraphs) > 1 and any(each.level for each in paragraphs)
        yield "\n".join(
            f"{'  ' * each.level}- {each.text.strip()}" if listed else each.text for each in paragraphs
        )
