"""Extracts the text and structure of a document from its bytes, by its media type."""

from collections.abc import Callable

from assets.parsing import content_type
from assets.parsing.blocks import (
    DocumentBlocks,
    ExtractedDocument,
    ExtractionError,
    TextBlock,
    assemble_blocks,
)
from assets.parsing.compression import decompress
from assets.parsing.content_type import content_coding
from assets.parsing.decoding import decode_text
from assets.parsing.formats.doc import read_doc
from assets.parsing.formats.docx import read_docx
from assets.parsing.formats.epub import read_epub
from assets.parsing.formats.html import read_html
from assets.parsing.formats.mail import read_eml, read_msg
from assets.parsing.formats.markdown import read_markdown
from assets.parsing.formats.notebook import read_notebook
from assets.parsing.formats.opendocument import read_opendocument
from assets.parsing.formats.org import read_org
from assets.parsing.formats.pdf import read_pdf
from assets.parsing.formats.pptx import read_pptx
from assets.parsing.formats.records import read_delimited, read_json
from assets.parsing.formats.restructuredtext import read_rst
from assets.parsing.formats.rtf import read_rtf
from assets.parsing.formats.sheets import read_spreadsheet
from assets.parsing.formats.xml import read_xml

MAX_DOCUMENT_BYTES = 64 << 20
"""The largest body that is parsed by default."""


def _read_text(body: bytes) -> DocumentBlocks:
    return DocumentBlocks([TextBlock(decode_text(body))])


_READERS: dict[str, Callable[[bytes], DocumentBlocks]] = {
    content_type.PLAIN_TEXT: _read_text,
    "text/markdown": read_markdown,
    "text/x-rst": read_rst,
    content_type.ORG: read_org,
    "text/html": read_html,
    "application/xhtml+xml": read_html,
    content_type.XML: read_xml,
    "text/xml": read_xml,
    "application/pdf": read_pdf,
    content_type.DOCX: read_docx,
    content_type.PPTX: read_pptx,
    content_type.XLSX: read_spreadsheet,
    content_type.XLSB: read_spreadsheet,
    content_type.XLS: read_spreadsheet,
    content_type.ODS: read_spreadsheet,
    content_type.ODT: read_opendocument,
    content_type.ODP: read_opendocument,
    content_type.DOC: read_doc,
    content_type.RTF: read_rtf,
    "text/rtf": read_rtf,
    content_type.EPUB: read_epub,
    content_type.EML: read_eml,
    content_type.MSG: read_msg,
    content_type.IPYNB: read_notebook,
    "text/csv": read_delimited,
    "text/tab-separated-values": read_delimited,
    "application/json": read_json,
    "application/x-ndjson": read_json,
}
# The names of media types with a reader, for the reason why a file can not be read.
_READABLE_NAMES = dict.fromkeys(_READERS, "The text file") | {
    "text/html": "The HTML page",
    "application/xhtml+xml": "The XHTML page",
    content_type.XML: "The XML file",
    "text/xml": "The XML file",
    "application/pdf": "The PDF",
    content_type.DOCX: "The Word document",
    content_type.DOC: "The Word document",
    content_type.PPTX: "The PowerPoint presentation",
    content_type.XLSX: "The spreadsheet",
    content_type.XLSB: "The spreadsheet",
    content_type.XLS: "The spreadsheet",
    content_type.ODS: "The spreadsheet",
    content_type.ODT: "The OpenDocument text",
    content_type.ODP: "The OpenDocument presentation",
    content_type.RTF: "The RTF document",
    "text/rtf": "The RTF document",
    content_type.EPUB: "The book",
    content_type.EML: "The message",
    content_type.MSG: "The Outlook message",
    content_type.IPYNB: "The notebook",
    "text/csv": "The table",
    "text/tab-separated-values": "The table",
    "application/json": "The JSON",
    "application/x-ndjson": "The JSON",
}
# The names of media types without a reader, by the beginning of the media type.
_UNREADABLE_NAMES = {
    "image/": "Pictures",
    "audio/": "Sound recordings",
    "video/": "Films",
    "font/": "Fonts",
    "application/zip": "ZIP archives",
    "application/x-tar": "TAR archives",
    "application/x-7z-compressed": "7z archives (unpack it, or make it a ZIP archive)",
    "application/x-rar": "RAR archives (unpack it, or make it a ZIP archive)",
    "application/x-lz4": "Files compressed by LZ4 (decompress it, or compress it by gzip or Zstandard)",
    "application/vnd.oasis.opendocument.": "OpenDocument drawings, formulas and the like",
    content_type.PPT: "Legacy PowerPoint presentations (.ppt; save them as .pptx)",
    content_type.OLE_COMPOUND: "Compound files that are neither office documents nor Outlook messages",
}


def extract_document(
    body: bytes, media_type: str, max_size_bytes: int = MAX_DOCUMENT_BYTES, ocr: bool = False
) -> ExtractedDocument:
    """Returns the normalised text, title, headings and page offsets of a document.

    Args:
        body: The document's bytes.
        media_type: As `detect_media_type` returns it; of its parameters "charset=utf-8" and "content-coding"
            count.
        max_size_bytes: A larger body is refused before it is parsed.
        ocr: Whether to recognise the text of PDF pages that have no text layer; needs the extra `ocr`.

    Raises:
        ExtractionError: With the expectation `empty`, `oversize`, `unsupported_media_type`, `encrypted`,
            `unreadable` or `no_text`. Whatever the bytes, only this and MemoryError are raised.
    """
    if not body:
        raise ExtractionError("empty", "The file has no bytes.")
    if len(body) > max_size_bytes:
        limit = f"the limit is {max_size_bytes:,}"
        raise ExtractionError("oversize", f"The document has {len(body):,} bytes; {limit}.")
    if media_type == content_type.UTF8_TEXT:
        return assemble_blocks(DocumentBlocks([TextBlock(body.decode("utf-8", "replace"))]))
    if coding := content_coding(media_type):
        body = decompress(body, coding, max_size_bytes).content
    kind = media_type.partition(";")[0].strip().lower()
    reader = _read_scanned if ocr and kind == "application/pdf" else _READERS.get(kind)
    if reader is None:
        raise _refusal(kind)
    try:
        return assemble_blocks(reader(body))
    except (ExtractionError, MemoryError):
        raise
    except Exception as error:
        # The libraries do not document which errors broken files cause, so every error counts as one.
        if isinstance(error, RecursionError):
            raise ExtractionError(
                "unreadable", f"{_READABLE_NAMES[kind]} is nested too deeply to be read."
            ) from error
        reason = f"{_READABLE_NAMES[kind]} is damaged: {type(error).__name__}: {str(error)[:200]}"
        raise ExtractionError("unreadable", reason) from error


def _read_scanned(body: bytes) -> DocumentBlocks:
    from assets.parsing.formats.ocr import ocr_page

    return read_pdf(body, ocr_page)


def _refusal(kind: str) -> ExtractionError:
    if kind == content_type.EMPTY_FILE:
        return ExtractionError("empty", "The file holds nothing but whitespace.")
    if kind == content_type.ENCRYPTED_OFFICE:
        return ExtractionError("encrypted", "The office document opens only with a password.")
    if kind == content_type.UNKNOWN_BYTES:
        return ExtractionError("unsupported_media_type", "The bytes are of no kind of file that is known.")
    name = next((name for beginning, name in _UNREADABLE_NAMES.items() if kind.startswith(beginning)), None)
    if name is None:
        return ExtractionError("unsupported_media_type", f"Files of type {kind} are not read.")
    return ExtractionError("unsupported_media_type", f"{name} are not read ({kind}).")
