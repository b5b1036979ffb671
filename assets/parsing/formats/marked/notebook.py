"""Reads Jupyter notebooks (IPYNB)."""

import json
from collections.abc import Iterator
from typing import Any

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.decoding import decode_text
from assets.parsing.formats.lines import format_code
from assets.parsing.formats.marked.markdown import read_markdown_source

_MAX_OUTPUT_CHARS = 20_000
"""The characters that are kept of one output; a longer one is a log or a dump."""


def read_notebook(body: bytes) -> DocumentBlocks:
    """Returns the cells of a Jupyter notebook in order: Markdown as blocks, code unchanged, outputs as text.

    An error is reduced to its name and message. Pictures and HTML outputs are left out.

    Raises:
        ExtractionError: `unreadable` if it is not the JSON of a notebook.
    """
    try:
        notebook = json.loads(decode_text(body), strict=False)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ExtractionError("unreadable", f"The notebook is not valid JSON: {error}.") from error
    if not isinstance(notebook, dict):
        raise ExtractionError("unreadable", "The notebook's JSON is not an object.")
    # Before version 4, cells were in worksheets.
    sheets = notebook.get("worksheets") or [notebook]
    blocks: list[TextBlock] = []
    for cell in (cell for sheet in sheets for cell in sheet.get("cells") or []):
        source = _text(cell.get("source") or cell.get("input"))
        match cell.get("cell_type"):
            case "markdown":
                blocks += read_markdown_source(source).blocks
            case "heading":
                blocks.append(TextBlock(source, int(cell.get("level", 1))))
            case "code":
                blocks += [TextBlock(format_code(source)), *map(TextBlock, _outputs(cell))]
            case _:
                blocks += [TextBlock(source), *map(TextBlock, _outputs(cell))]
    title = (notebook.get("metadata") or {}).get("title")
    return DocumentBlocks(blocks, title if isinstance(title, str) else None)


def _outputs(cell: dict[str, Any]) -> Iterator[str]:
    for output in cell.get("outputs") or []:
        if "ename" in output:
            yield f"{output['ename']}: {output.get('evalue', '')}"
        else:
            data = output.get("data") or output
            yield _text(data.get("text/plain") or data.get("text"))[:_MAX_OUTPUT_CHARS]


def _text(value: object) -> str:
    """Returns a multi-line string of a notebook, which may be a list of lines."""
    return "".join(map(str, value)) if isinstance(value, list) else str(value or "")
