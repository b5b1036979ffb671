"""Bytes to text and structure: what a file of a known kind says."""

from collections.abc import Callable

from assets.transforms import kinds
from assets.transforms.blocks import Block, Content, Extracted, ExtractionError, assemble
from assets.transforms.decode import decode
from assets.transforms.formats.docx import read_docx
from assets.transforms.formats.epub import read_epub
from assets.transforms.formats.html import read_html
from assets.transforms.formats.legacy import read_doc
from assets.transforms.formats.mail import read_eml, read_msg
from assets.transforms.formats.markdown import read_markdown
from assets.transforms.formats.notebook import read_notebook
from assets.transforms.formats.opendocument import read_opendocument
from assets.transforms.formats.org import read_org
from assets.transforms.formats.pdf import read_pdf
from assets.transforms.formats.pptx import read_pptx
from assets.transforms.formats.records import read_delimited, read_json
from assets.transforms.formats.restructuredtext import read_rst
from assets.transforms.formats.rtf import read_rtf
from assets.transforms.formats.sheets import read_sheets
from assets.transforms.formats.xml import read_xml

MAX_SIZE_BYTES = 64 << 20
"""The largest body that is parsed unless a caller says otherwise."""

PLAIN_TEXT = "text/plain"
UTF8_TEXT = "text/plain; charset=utf-8"
"""Text known to be sound UTF-8, as row sources give it: decoded without detection."""


def _read_text(body: bytes) -> Content:
    return Content([Block(decode(body))])


_READERS: dict[str, Callable[[bytes], Content]] = {
    PLAIN_TEXT: _read_text,
    "text/markdown": read_markdown,
    "text/x-rst": read_rst,
    kinds.ORG: read_org,
    "text/html": read_html,
    "application/xhtml+xml": read_html,
    kinds.XML: read_xml,
    "text/xml": read_xml,
    "application/pdf": read_pdf,
    kinds.DOCX: read_docx,
    kinds.PPTX: read_pptx,
    kinds.XLSX: read_sheets,
    kinds.XLSB: read_sheets,
    kinds.XLS: read_sheets,
    kinds.ODS: read_sheets,
    kinds.ODT: read_opendocument,
    kinds.ODP: read_opendocument,
    kinds.DOC: read_doc,
    kinds.RTF: read_rtf,
    "text/rtf": read_rtf,
    kinds.EPUB: read_epub,
    kinds.EML: read_eml,
    kinds.MSG: read_msg,
    kinds.IPYNB: read_notebook,
    "text/csv": read_delimited,
    "text/tab-separated-values": read_delimited,
    "application/json": read_json,
    "application/x-ndjson": read_json,
}
# What a person calls kinds that have one, in the reason why a file can not be read.
_READ = dict.fromkeys(_READERS, "The text file") | {
    "text/html": "The HTML page",
    "application/xhtml+xml": "The XHTML page",
    kinds.XML: "The XML file",
    "text/xml": "The XML file",
    "application/pdf": "The PDF",
    kinds.DOCX: "The Word document",
    kinds.DOC: "The Word document",
    kinds.PPTX: "The PowerPoint presentation",
    kinds.XLSX: "The spreadsheet",
    kinds.XLSB: "The spreadsheet",
    kinds.XLS: "The spreadsheet",
    kinds.ODS: "The spreadsheet",
    kinds.ODT: "The OpenDocument text",
    kinds.ODP: "The OpenDocument presentation",
    kinds.RTF: "The RTF document",
    "text/rtf": "The RTF document",
    kinds.EPUB: "The book",
    kinds.EML: "The message",
    kinds.MSG: "The Outlook message",
    kinds.IPYNB: "The notebook",
    "text/csv": "The table",
    "text/tab-separated-values": "The table",
    "application/json": "The JSON",
    "application/x-ndjson": "The JSON",
}
# What a person calls kinds that have no reader.
_UNREAD = {
    "image/": "Pictures",
    "audio/": "Sound recordings",
    "video/": "Films",
    "font/": "Fonts",
    "application/zip": "ZIP archives",
    "application/gzip": "Compressed files",
    "application/x-tar": "Archives",
    "application/x-7z-compressed": "Archives",
    "application/vnd.oasis.opendocument.": "OpenDocument drawings, formulas and the like",
    kinds.PPT: "Legacy PowerPoint presentations (.ppt; save them as .pptx)",
    kinds.COMPOUND: "Compound files that are neither office documents nor Outlook messages",
}


def extract(
    body: bytes, media_type: str, max_size_bytes: int = MAX_SIZE_BYTES, ocr: bool = False
) -> Extracted:
    """The normalised text, title, headings and page offsets of a document.

    Args:
        body: The document's bytes.
        media_type: As `kinds.media_type` found it; parameters other than "charset=utf-8" are ignored.
        max_size_bytes: Larger bodies are refused before they are parsed.
        ocr: Whether pages of a PDF without a text layer are recognised, which wants the extra `ocr`.

    Raises:
        ExtractionError: With expectation `empty`, `oversize`, `unsupported_media_type`, `encrypted`,
            `unreadable` or `no_text`; nothing else is raised, whatever the bytes, but MemoryError.
    """
    if not body:
        raise ExtractionError("empty", "The file has no bytes.")
    if len(body) > max_size_bytes:
        limit = f"the limit is {max_size_bytes:,}"
        raise ExtractionError("oversize", f"The document has {len(body):,} bytes; {limit}.")
    if media_type == UTF8_TEXT:
        return assemble(Content([Block(body.decode("utf-8", "replace"))]))
    kind = media_type.partition(";")[0].strip().lower()
    reader = _read_scanned if ocr and kind == "application/pdf" else _READERS.get(kind)
    if reader is None:
        raise _refusal(kind)
    try:
        return assemble(reader(body))
    except (ExtractionError, MemoryError):
        raise
    except Exception as error:
        # The parsers name no set of errors that broken files give, so every one of them is that here.
        if isinstance(error, RecursionError):
            raise ExtractionError("unreadable", f"{_READ[kind]} is nested too deeply to be read.") from error
        reason = f"{_READ[kind]} is damaged: {type(error).__name__}: {str(error)[:200]}"
        raise ExtractionError("unreadable", reason) from error


def _read_scanned(body: bytes) -> Content:
    from assets.transforms.formats.scan import recognised

    return read_pdf(body, recognised)


def _refusal(kind: str) -> ExtractionError:
    if kind == kinds.EMPTY:
        return ExtractionError("empty", "The file holds nothing but whitespace.")
    if kind == kinds.PROTECTED:
        return ExtractionError("encrypted", "The office document opens only with a password.")
    if kind == kinds.UNKNOWN:
        return ExtractionError("unsupported_media_type", "The bytes are of no kind of file that is known.")
    name = next((name for beginning, name in _UNREAD.items() if kind.startswith(beginning)), None)
    if name is None:
        return ExtractionError("unsupported_media_type", f"Files of type {kind} are not read.")
    return ExtractionError("unsupported_media_type", f"{name} are not read ({kind}).")
