"""Detects the media type of a file by its content."""

import io
import re
import zipfile
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from assets.parsing.blocks import ExtractionError
from assets.parsing.decoding import CONTROL_CHARACTERS, decode_text, looks_like_ebcdic
from assets.parsing.formats.zip_package import OLE_SIGNATURE, exceeds_zip_part_limit

if TYPE_CHECKING:
    from magika import Magika

PLAIN_TEXT = "text/plain"
UTF8_TEXT = "text/plain; charset=utf-8"
"""The media type of rows' texts: they are valid UTF-8 and need no detection of their encoding."""
_OOXML = "application/vnd.openxmlformats-officedocument."
DOCX = f"{_OOXML}wordprocessingml.document"
PPTX = f"{_OOXML}presentationml.presentation"
XLSX = f"{_OOXML}spreadsheetml.sheet"
XLSB = "application/vnd.ms-excel.sheet.binary.macroenabled.12"
_OPENDOCUMENT = "application/vnd.oasis.opendocument."
ODT, ODP, ODS = (f"{_OPENDOCUMENT}{name}" for name in ("text", "presentation", "spreadsheet"))
EPUB = "application/epub+zip"
DOC, XLS, PPT = "application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint"
MSG = "application/vnd.ms-outlook"
EML = "message/rfc822"
PDF = "application/pdf"
RTF = "application/rtf"
XML = "application/xml"
IPYNB = "application/x-ipynb+json"
ORG = "text/x-org"
ENCRYPTED_OFFICE = "application/x-ooxml-protected"
"""An office document that is encrypted as a whole, so that its type can not be detected."""
OLE_COMPOUND = "application/x-ole-storage"
EMPTY_FILE = "application/x-empty"
UNKNOWN_BYTES = "application/octet-stream"

_HEAD_BYTES = 4096
# Text types that often can not be told apart by content: only among them the extension decides.
_BY_EXTENSION = {
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".rst": "text/x-rst",
    ".org": ORG,
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
}
_BY_LABEL = {
    "txt": "text/plain",
    "markdown": "text/markdown",
    "rst": "text/x-rst",
    "html": "text/html",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "ipynb": IPYNB,
    "xml": XML,
    "rtf": RTF,
    "eml": EML,
    "mht": EML,
    "unknown": UNKNOWN_BYTES,
    "empty": EMPTY_FILE,
}
_BY_PART = {
    "word/document.xml": DOCX,
    "word/document2.xml": DOCX,  # written by Office 365
    "ppt/presentation.xml": PPTX,
    "xl/workbook.xml": XLSX,
    "xl/workbook.bin": XLSB,
    "META-INF/container.xml": EPUB,
}
_BY_STREAM = {
    "EncryptedPackage": ENCRYPTED_OFFICE,
    "WordDocument": DOC,
    "Workbook": XLS,
    "Book": XLS,  # Excel 5 and 95
    "PowerPoint Document": PPT,
    "__properties_version1.0": MSG,
}
_MAX_MIMETYPE_BYTES = 100
# Signs of text that needs another reader: markup, JSON, TeX, the header lines of mail, calendars and cards,
# PEM, subtitles, translations.
_OTHER_TEXT = re.compile(
    rb"\A\s*(?:[<{\[%\\]|[\w.-]+:|-----BEGIN|WEBVTT)|</(?:p|div|body|html)>|\d --> \d|^msgid ", re.MULTILINE
)
# Magika's labels of text types without a reader whose markup would be read as words.
_MARKED_UP = {"svg", "ics", "vcard", "tex", "pem", "srt", "po"}
_HEADER_LINES = re.compile(rb"\A\s*(?:From [^\n]*\n)?(?:[\w-]{1,60}:[^\n]*\n(?:[ \t]+\S[^\n]*\n)*){2,}")
_FROM_ADDRESS = re.compile(rb"^from:[^\n]*@", re.MULTILINE | re.IGNORECASE)
_HEADER_NAME = re.compile(rb"^([\w-]{1,60}):", re.MULTILINE)
# At least two of these make a message; a list of fields may begin with a date or a subject.
_MAIL_HEADERS = {
    b"from",
    b"to",
    b"subject",
    b"date",
    b"message-id",
    b"mime-version",
    b"received",
    b"return-path",
}
_NOTEBOOK = re.compile(rb'"nbformat"\s*:\s*\d')
# A page that is well-formed XML: its root element is html, after any declarations and comments.
_XHTML = re.compile(rb"\A\s*(?:<\?[^>]*>\s*|<!--[^>]*-->\s*|<!DOCTYPE[^>]*>\s*)*<html[\s>]", re.IGNORECASE)


def detect_media_type(body: bytes, name: str = "") -> str:
    """Returns the media type of a file, detected from its content.

    Args:
        body: The file's bytes. Only the beginning and the end are read, and the directory of a ZIP or OLE
            file.
        name: Its name or URI. The extension only decides between plain text, Markdown, reStructuredText, Org,
            CSV and TSV, which often can not be told apart by content.

    Returns:
        A media type: `application/x-empty` without bytes or with only whitespace, `application/octet-stream`
        for bytes of an unknown type, `text/plain` for source code.
    """
    sample = body if len(body) <= 2 * _HEAD_BYTES else body[:_HEAD_BYTES] + body[-_HEAD_BYTES:]
    if not sample.strip() and not body.strip():
        return EMPTY_FILE
    if body.startswith(b"%PDF-"):
        return PDF
    if body.startswith(OLE_SIGNATURE):
        return _compound_kind(body)
    if body.startswith(b"PK\x03\x04") and (packed := _package_kind(body)):
        return packed
    if body.startswith(b"{\\rtf"):
        return RTF
    sample = _as_utf8(sample)
    if _is_mail(sample):
        return EML
    if b"%PDF-" in body[:1024]:  # PDF readers accept up to 1,024 bytes before it
        return PDF
    named = _BY_EXTENSION.get(PurePosixPath(name).suffix.lower())
    # Magika takes 20 ms of processor time per file. For most files these few checks are enough.
    if named and _is_utf8(sample) and not _OTHER_TEXT.search(sample):
        return named
    found = _magika().identify_bytes(sample).output
    label = str(found.label)
    if label in _BY_LABEL:
        kind = _BY_LABEL[label]
    else:
        kind = "text/plain" if found.is_text and label not in _MARKED_UP else found.mime_type
    if kind == XML and _XHTML.match(sample):
        return "text/html"
    if kind == "application/json" and _NOTEBOOK.search(sample):
        return IPYNB
    return named if named and (kind in _BY_EXTENSION.values()) else kind


def _package_kind(body: bytes) -> str | None:
    """Returns the media type of a ZIP file by the names of its parts; None for a mere archive."""
    if exceeds_zip_part_limit(body):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            names = set(archive.namelist())
            if "mimetype" in names and archive.getinfo("mimetype").file_size <= _MAX_MIMETYPE_BYTES:
                declared = archive.read("mimetype").decode("ascii", "replace").strip()
                if declared == EPUB or declared.startswith(_OPENDOCUMENT):
                    return declared.removesuffix("-template")
    except Exception:  # zipfile does not document which errors broken files cause
        return None
    return next((kind for part, kind in _BY_PART.items() if part in names), None)


def _compound_kind(body: bytes) -> str:
    from olefile import OleFileIO

    try:
        with OleFileIO(io.BytesIO(body)) as compound:
            return next((kind for name, kind in _BY_STREAM.items() if compound.exists(name)), OLE_COMPOUND)
    except Exception:  # olefile does not document which errors broken files cause
        return OLE_COMPOUND


def _is_mail(sample: bytes) -> bool:
    """Whether a sample begins with header lines that only e-mail messages have together."""
    head = _HEADER_LINES.match(sample)
    if head is None:
        return False
    names = {name.lower() for name in _HEADER_NAME.findall(head[0])} & _MAIL_HEADERS
    # Settings files have "from" and "to" as well, but without an address.
    sent = names & {b"received", b"message-id"} or _FROM_ADDRESS.search(head[0])
    return len(names) >= 2 and bool(sent)


def _is_utf8(sample: bytes) -> bool:
    """Whether a sample is UTF-8 without control characters; characters cut at its joint are allowed."""
    text = sample.decode("utf-8", "replace")
    return text.count("\ufffd") <= 6 and not CONTROL_CHARACTERS.search(text)


def _as_utf8(sample: bytes) -> bytes:
    """Returns UTF-16, UTF-32 and EBCDIC as UTF-8, on which Magika's model was trained."""
    if b"\x00" not in sample and not looks_like_ebcdic(sample):
        return sample
    try:
        return decode_text(sample).encode("utf-8", "replace")
    except ExtractionError:
        return sample


@cache
def _magika() -> "Magika":
    from magika import Magika

    return Magika()
