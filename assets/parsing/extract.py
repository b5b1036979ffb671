"""Extracts the text and structure of a document from its bytes, by its media type."""

from collections.abc import Callable
from dataclasses import replace

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
from assets.parsing.decoding import decode_text, decoding_doubt
from assets.parsing.formats.data.records import read_delimited, read_json
from assets.parsing.formats.data.sheets import read_spreadsheet
from assets.parsing.formats.data.xml import read_xml
from assets.parsing.formats.html.page import read_html
from assets.parsing.formats.mail.message import read_eml, read_msg
from assets.parsing.formats.manual_page import read_manual_page
from assets.parsing.formats.marked.markdown import read_markdown
from assets.parsing.formats.marked.notebook import read_notebook
from assets.parsing.formats.marked.org import read_org
from assets.parsing.formats.marked.restructuredtext import read_rst
from assets.parsing.formats.office.doc import read_doc
from assets.parsing.formats.office.docx import read_docx
from assets.parsing.formats.office.epub import read_epub
from assets.parsing.formats.office.opendocument import read_opendocument
from assets.parsing.formats.office.pptx import read_pptx
from assets.parsing.formats.office.rtf import read_rtf
from assets.parsing.formats.paged.pdf import read_pdf
from assets.parsing.formats.paged.picture import PICTURES, Pixels, read_picture
from assets.parsing.source_end import source_end
from assets.text.damage import SourceEnd

MAX_DOCUMENT_BYTES = 64 << 20
"""The largest body that is parsed by default."""
OCR_CURE = "make setup EXTRAS=ocr, and set HEADWATER_RECIPE__PARSER__OCR=true"
"""How a reader comes to have its pictures and scans read."""


_DECODED = (content_type.PLAIN_TEXT, "text/markdown", "text/x-rst", content_type.ORG, content_type.ROFF)
"""Media types whose encoding nothing declares."""


def _read_text(body: bytes) -> DocumentBlocks:
    return DocumentBlocks([TextBlock(decode_text(body))])


_READERS: dict[str, Callable[[bytes], DocumentBlocks]] = {
    content_type.PLAIN_TEXT: _read_text,
    "text/markdown": read_markdown,
    "text/x-rst": read_rst,
    content_type.ORG: read_org,
    content_type.ROFF: read_manual_page,
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
    content_type.ODG: read_opendocument,
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
    # Words with marks between them that a person can read past.
    **dict.fromkeys(
        ("text/calendar", "text/vcard", "text/srt", "text/vtt", "text/gettext-translation", "text/x-tex"),
        _read_text,
    ),
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
    content_type.ODG: "The OpenDocument drawing",
    content_type.RTF: "The RTF document",
    "text/rtf": "The RTF document",
    content_type.EPUB: "The book",
    content_type.EML: "The message",
    content_type.MSG: "The Outlook message",
    content_type.IPYNB: "The notebook",
    "text/csv": "The table",
    "text/tab-separated-values": "The table",
    content_type.ROFF: "The manual page",
    "application/json": "The JSON",
    "application/x-ndjson": "The JSON",
}
# The names of media types without a reader, by the beginning of the media type.
_UNREADABLE_NAMES = {
    "image/": "Pictures of this kind",
    "audio/": "Sound recordings",
    "video/": "Films",
    "font/": "Fonts",
    content_type.MBOX: "Mailboxes",
    "application/zip": "ZIP archives",
    "application/x-tar": "TAR archives",
    "application/x-7z-compressed": "7z archives",
    "application/x-rar": "RAR archives (unpack it, or make it a ZIP archive)",
    "application/x-lz4": "Files compressed by LZ4 (decompress it, or compress it by gzip or Zstandard)",
    "application/vnd.oasis.opendocument.": "OpenDocument formulas, charts and the like",
    content_type.PPT: "Legacy PowerPoint presentations (.ppt; save them as .pptx)",
    content_type.OLE_COMPOUND: "Compound files that are neither office documents nor Outlook messages",
}


def extract_document(
    body: bytes,
    media_type: str,
    max_size_bytes: int = MAX_DOCUMENT_BYTES,
    ocr: bool = False,
    on_page: Callable[[], None] = lambda: None,
) -> ExtractedDocument:
    """Returns the normalised text, title, headings and page offsets of a document.

    Args:
        body: The document's bytes.
        media_type: As `detect_media_type` returns it; of its parameters "charset=utf-8" and "content-coding"
            count.
        max_size_bytes: A larger body is refused before it is parsed.
        ocr: Whether to recognise the text of pictures and of scanned pages in PDFs; needs the extra `ocr`.
        on_page: Called after each picture and page that was recognised.

    Raises:
        ExtractionError: With the expectation `empty`, `oversize`, `unsupported_media_type`, `encrypted`,
            `unreadable` or `no_text`. Whatever the bytes, only this and MemoryError are raised.
    """
    if not body:
        what = "row has no text" if media_type == content_type.UTF8_TEXT else "file has no bytes"
        raise ExtractionError("empty", f"The {what}.")
    if len(body) > max_size_bytes:
        limit = f"the limit is {max_size_bytes:,}"
        raise ExtractionError("oversize", f"The document has {len(body):,} bytes; {limit}.")
    if media_type == content_type.UTF8_TEXT:
        return assemble_blocks(DocumentBlocks([TextBlock(body.decode("utf-8", "replace"))]))
    if coding := content_coding(media_type):
        body = decompress(body, coding, max_size_bytes).content
    kind = media_type.partition(";")[0].strip().lower()
    reader = _recognising_reader(kind, on_page) if ocr else None
    reader = reader or _READERS.get(kind)
    if reader is None:
        raise _refusal(kind)
    try:
        # Compressed bytes end with their length or checksum, and their reader misses it.
        end = SourceEnd.WHOLE if coding else source_end(body, kind)
        doubt = decoding_doubt(body) if kind in _DECODED else 0.0
        return replace(assemble_blocks(reader(body)), end=end, decoding_doubt=doubt)
    except (ExtractionError, MemoryError):
        raise
    except Exception as error:
        # The libraries do not document which errors broken files cause, so every error counts as one.
        name = _READABLE_NAMES.get(kind, "The picture")
        if isinstance(error, RecursionError):
            raise ExtractionError("unreadable", f"{name} is nested too deeply to be read.") from error
        reason = f"{name} is damaged: {type(error).__name__}: {str(error)[:200]}"
        raise ExtractionError("unreadable", reason) from error


def _recognising_reader(kind: str, on_page: Callable[[], None]) -> Callable[[bytes], DocumentBlocks] | None:
    """Returns the reader of a media type that needs or can use OCR; None for any other."""
    if kind != content_type.PDF and kind not in PICTURES:
        return None
    from assets.parsing.formats.paged.ocr import recognise_text

    def recognise(pixels: Pixels) -> list[str]:
        paragraphs = recognise_text(pixels)
        on_page()
        return paragraphs

    if kind == content_type.PDF:
        return lambda body: read_pdf(body, recognise)
    return lambda body: read_picture(body, recognise)


def _refusal(kind: str) -> ExtractionError:
    if kind == content_type.EMPTY_FILE:
        return ExtractionError("empty", "The file holds nothing but whitespace.")
    if kind == content_type.ENCRYPTED_OFFICE:
        return ExtractionError("encrypted", "The office document opens only with a password.")
    if kind == content_type.UNKNOWN_BYTES:
        return ExtractionError("unsupported_media_type", "The bytes are of no kind of file that is known.")
    if kind in PICTURES:
        return ExtractionError(
            "unsupported_media_type", f"Pictures are not read without OCR ({kind}): {OCR_CURE}."
        )
    name = next((name for beginning, name in _UNREADABLE_NAMES.items() if kind.startswith(beginning)), None)
    if name is None:
        return ExtractionError("unsupported_media_type", f"Files of type {kind} are not read.")
    return ExtractionError("unsupported_media_type", f"{name} are not read ({kind}).")
