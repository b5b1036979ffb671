"""Reads spreadsheets (XLSX, XLSB, XLS, ODS): a page per sheet."""

import datetime as dt
import io
import re
from collections.abc import Iterable

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.formats.data.records import sheet_blocks
from assets.parsing.formats.zip_package import OLE_SIGNATURE, open_zip_package

_MAX_CELLS = 20_000_000
_UNNAMED = re.compile(r"[^\W\d]+ ?\d+")


def read_spreadsheet(body: bytes) -> DocumentBlocks:
    """Returns the sheets of a spreadsheet: the name as a heading, and the rows as `sheet_blocks` has them.

    A formula is read as its value. Charts and comments are left out, and the name of an only sheet if it is
    like "Sheet1".

    Raises:
        ExtractionError: `encrypted`; `oversize` for a zip bomb or more than 20 million cells; `unreadable`.
    """
    if not body.startswith(OLE_SIGNATURE):
        open_zip_package(body, "spreadsheet")
    from python_calamine import CalamineError, CalamineWorkbook, PasswordError, SheetTypeEnum

    try:
        book = CalamineWorkbook.from_filelike(io.BytesIO(body))
        names = [each.name for each in book.sheets_metadata if each.typ == SheetTypeEnum.WorkSheet]
        blocks: list[TextBlock] = []
        for number, name in enumerate(names, 1):
            sheet = book.get_sheet_by_name(name)
            if sheet.width * sheet.height > _MAX_CELLS:
                cells = f"{sheet.width * sheet.height:,} cells, more than the limit of {_MAX_CELLS:,}"
                raise ExtractionError("oversize", f"The sheet {name} has {cells}.")
            found = sheet_blocks(_filled(list(map(_cell_text, row)) for row in sheet.iter_rows()))
            if found and (len(names) > 1 or not _UNNAMED.fullmatch(name)):
                blocks.append(TextBlock(name, 1, number))
            blocks += (TextBlock(block.text, None, number) for block in found)
    except PasswordError as error:
        raise ExtractionError("encrypted", "The spreadsheet opens only with a password.") from error
    except CalamineError as error:
        raise ExtractionError("unreadable", f"The spreadsheet can not be read: {error}.") from error
    except BaseException as error:
        # A panic in the Rust library is not an Exception, and one document must not end a run.
        if type(error).__name__ != "PanicException":
            raise
        raise ExtractionError("unreadable", "The spreadsheet can not be read: it is damaged.") from error
    return DocumentBlocks(blocks, None, len(names))


def _filled(rows: Iterable[list[str]]) -> list[list[str]]:
    """Returns the rows without empty rows and empty columns, which people leave for the layout."""
    filled = [row for row in rows if any(row)]
    columns = [
        index for index in range(max(map(len, filled), default=0)) if any(row[index] for row in filled)
    ]
    return [[row[index] for index in columns] for row in filled]


def _cell_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.15g}"  # the precision of a cell; every number in a spreadsheet is a float
    if isinstance(value, dt.datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    return str(value).strip()
