"""Reads Word documents (DOCX)."""

import io
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.formats.data.xml import parse_xml
from assets.parsing.formats.lines import format_headed_table, format_table_row
from assets.parsing.formats.zip_package import open_zip_package

if TYPE_CHECKING:
    from docx.document import Document

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_M = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
# Deleted text, the old place of moved text, the code of fields, and fallbacks, which repeat other content.
_SKIPPED_TAGS = {f"{_W}del", f"{_W}moveFrom", f"{_W}instrText", _FALLBACK}
_FIRST_ROW = 0x20
_NOTE_KINDS = ("footnote", "endnote")
_EQUATIONS = {f"{_M}oMath", f"{_M}oMathPara"}
_EQUATION_SIGNS = {f"{_M}sup": "^", f"{_M}den": "/"}
_SPACES_AROUND_SIGN = re.compile(r" *([\^/]) *")
_HEADING_STYLE = re.compile(r"heading (\d)", re.IGNORECASE)


def read_docx(body: bytes) -> DocumentBlocks:
    """Returns the paragraphs, lists, headings, tables (a line per row) and text boxes of a Word document.

    A footnote or endnote stands in brackets where it is referred to. Of an equation the letters and signs are
    kept in their order, with "^" before what is raised and "/" before a denominator.

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
    body, styles = document.element.body, _heading_styles(document)
    notes = _notes(document)
    visible = " ".join(map(_text_nodes, [body, *notes.values()]))
    unreferenced = _place_notes(body, notes)
    blocks = [*_blocks(body, styles), *(block for note in unreferenced for block in _blocks(note, styles))]
    return DocumentBlocks(blocks, document.core_properties.title, visible_text=visible)


def _notes(document: "Document") -> dict[tuple[str, str | None], Any]:
    """Returns footnotes and endnotes by their kind and id, without those to which only deleted text refers.

    The lines that divide notes from the text are stored among them, with a type.
    """
    notes = {}
    for relation in document.part.rels.values():
        kind = relation.reltype.rpartition("/")[2].removesuffix("s")
        if kind in _NOTE_KINDS and not relation.is_external:
            for note in parse_xml(relation.target_part.blob, "Word document").iter(f"{_W}{kind}"):
                if note.get(f"{_W}type", "normal") == "normal":
                    notes[kind, note.get(f"{_W}id")] = note
    references = [(_note_key(each), _is_skipped(each)) for each in _references(document.element.body)]
    kept = {key for key, skipped in references if not skipped}
    deleted = {key for key, _ in references} - kept
    return {key: note for key, note in notes.items() if key not in deleted}


def _place_notes(body: Any, notes: dict[tuple[str, str | None], Any]) -> list[Any]:
    """Writes the text of notes into what first refers to them, and returns those that nothing refers to."""
    left = dict(notes)
    for reference in _references(body):
        if not _is_skipped(reference) and (note := left.pop(_note_key(reference), None)) is not None:
            text = reference.makeelement(f"{_W}t")
            text.text = f" [{' '.join(block.text.strip() for block in _blocks(note, {}))}]"
            reference.append(text)
    return list(left.values())


def _references(body: Any) -> list[Any]:
    return list(body.iter(*(f"{_W}{kind}Reference" for kind in _NOTE_KINDS)))


def _note_key(reference: Any) -> tuple[str, str | None]:
    return reference.tag.removeprefix(_W).removesuffix("Reference"), reference.get(f"{_W}id")


def _is_skipped(element: Any) -> bool:
    return any(above.tag in _SKIPPED_TAGS for above in element.iterancestors())


def _text_nodes(body: Any) -> str:
    """Returns all text of a document but what is deleted or repeats other content, wherever it stands."""
    texts: list[str] = []
    texts_of_equation = 0
    breaks = (f"{_W}p", f"{_W}tab", f"{_W}br", f"{_W}cr", f"{_W}noBreakHyphen")
    for element in body.iter(*breaks, f"{_W}t", f"{_M}t", f"{_M}oMath"):
        if element.tag == f"{_M}oMath":
            texts_of_equation = 0
        elif element.tag in breaks:
            texts.append(" ")
        elif not _is_skipped(element):
            if element.tag == f"{_M}t":
                texts.append(" " if texts_of_equation else "")
                texts_of_equation += 1
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
            yield from map(TextBlock, _table(element))
        elif element.tag in _EQUATIONS:
            yield TextBlock(_equation(element))
        elif element.tag not in _SKIPPED_TAGS:
            yield from _blocks(element, styles)  # content controls, tracked changes, custom XML
    if items:
        yield TextBlock("\n".join(items))


def _table(table: Any) -> list[str]:
    rows = [list(_cells(row)) for row in table.iter(f"{_W}tr")]
    if len(rows) > 1 and _has_header(table):
        return format_headed_table(rows)
    return ["\n".join(filter(None, map(format_table_row, rows)))]


def _has_header(table: Any) -> bool:
    """Whether the first row repeats on each page, or looks like a header by the table's style."""
    if table.find(f"{_W}tr/{_W}trPr/{_W}tblHeader") is not None:
        return True
    look = table.find(f"{_W}tblPr/{_W}tblLook")
    if look is None:
        return False
    first_row = look.get(f"{_W}firstRow")  # since Word 2010; before, a bit of a number
    if first_row is not None:
        return first_row in ("1", "true", "on")
    return bool(int(look.get(f"{_W}val", "0"), 16) & _FIRST_ROW)


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
        elif child.tag == f"{_M}oMath":
            yield _equation(child)
        elif child.tag == f"{_M}oMathPara":
            yield f"\n{_equation(child)}\n"
        elif child.tag not in _SKIPPED_TAGS and child.tag not in {f"{_W}pPr", f"{_W}rPr"}:
            yield from _runs(child)
            if child.tag == f"{_W}p":  # of a text box
                yield "\n"


def _equation(element: Any) -> str:
    """Returns the letters and signs of an equation in reading order, with spaces between its parts."""
    pieces = (
        element.text or "" if element.tag == f"{_M}t" else _EQUATION_SIGNS[element.tag]
        for element in element.iter(f"{_M}t", *_EQUATION_SIGNS)
        if not _is_skipped(element)
    )
    return _SPACES_AROUND_SIGN.sub(r"\1", " ".join(pieces))
