"""Detects the media type of a file by its content."""

import io
import json
import re
import struct
import zipfile
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from manpage_text import is_manual_page

from assets.parsing.blocks import ExtractionError
from assets.parsing.decoding import (
    CONTROL_CHARACTERS,
    decode_text,
    looks_like_ebcdic,
    looks_wide,
    text_encoding,
)
from assets.parsing.formats.data.records import is_plainly_delimited
from assets.parsing.formats.mail.mailbox import is_mailbox
from assets.parsing.formats.zip_package import OLE_SIGNATURE, exceeds_zip_part_limit
from assets.parsing.markup import HTML, XML, is_html_fragment, markup_media_type
from assets.parsing.signatures import binary_media_type

if TYPE_CHECKING:
    from magika import Magika

KINDS_VERSION = "6"
"""Increased whenever the same bytes would be told to be of another kind, or be read as other documents."""

PLAIN_TEXT = "text/plain"
CSV, TSV = "text/csv", "text/tab-separated-values"
UTF8_TEXT = "text/plain; charset=utf-8"
"""The media type of rows' texts: they are valid UTF-8 and need no detection of their encoding."""
_OOXML = "application/vnd.openxmlformats-officedocument."
DOCX = f"{_OOXML}wordprocessingml.document"
PPTX = f"{_OOXML}presentationml.presentation"
XLSX = f"{_OOXML}spreadsheetml.sheet"
XLSB = "application/vnd.ms-excel.sheet.binary.macroenabled.12"
_OPENDOCUMENT = "application/vnd.oasis.opendocument."
ODT, ODP, ODS, ODG = (
    f"{_OPENDOCUMENT}{name}" for name in ("text", "presentation", "spreadsheet", "graphics")
)
EPUB = "application/epub+zip"
DOC, XLS, PPT = "application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint"
MSG = "application/vnd.ms-outlook"
EML = "message/rfc822"
PDF = "application/pdf"
RTF = "application/rtf"
JSON, JSON_LINES = "application/json", "application/x-ndjson"
IPYNB = "application/x-ipynb+json"
ORG = "text/x-org"
ROFF = "text/troff"
ZIP, TAR, SEVEN_ZIP = "application/zip", "application/x-tar", "application/x-7z-compressed"
MBOX = "application/mbox"
ARCHIVES = (ZIP, TAR, SEVEN_ZIP, MBOX)
"""The media types of archives: the files or messages inside are documents, and the archive is none."""
CONTENT_CODINGS = {
    "application/gzip": (b"\x1f\x8b\x08", "gzip"),
    "application/x-bzip2": (b"BZh", "bzip2"),
    "application/x-xz": (b"\xfd7zXZ\x00", "xz"),
    "application/zstd": (b"\x28\xb5\x2f\xfd", "zstd"),
}
"""The media types of compressed files, each with its first bytes and the name of its content coding."""
ENCRYPTED_OFFICE = "application/x-ooxml-protected"
"""An office document that is encrypted as a whole, so that its type can not be detected."""
OLE_COMPOUND = "application/x-ole-storage"
EMPTY_FILE = "application/x-empty"
UNKNOWN_BYTES = "application/octet-stream"

_HEAD_BYTES = 4096
# Text types that often can not be told apart by content: only among them the name decides.
_BY_EXTENSION = {
    ".txt": PLAIN_TEXT,
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".rst": "text/x-rst",
    ".org": ORG,
    ".log": PLAIN_TEXT,
    ".csv": CSV,
    ".tsv": TSV,
}
_HTML_EXTENSIONS = (".html", ".htm", ".xhtml", ".xht", ".shtml")
_MAIL_EXTENSIONS = (".eml", ".mht", ".mhtml")
_JSON_LINES_EXTENSIONS = (".jsonl", ".ndjson")
# What a message declares, where the name of a part says nothing.
_BY_DECLARED = {
    "text/markdown": ".md",
    "text/x-rst": ".rst",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "message/rfc822": ".eml",
    "application/json": ".json",
    "application/x-ndjson": ".jsonl",
    "text/plain": ".txt",
}
_BY_LABEL = {
    "txt": PLAIN_TEXT,
    "markdown": "text/markdown",
    "rst": "text/x-rst",
    "html": HTML,
    "csv": CSV,
    "tsv": TSV,
    "json": JSON,
    "jsonl": JSON_LINES,
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
_MIMETYPE_BYTES = 100
_SPARE_TABLE_SECTORS = 109  # those that the header of an OLE file has room for
_BOUNDED_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
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
_MAIL_HEADERS = set(b"from to subject date message-id mime-version received return-path".split())
_MARKUP_NAMED = ("text/markdown", "text/x-rst", ORG)
_SPEAKING_EXTENSIONS = (
    *_BY_EXTENSION,
    *_HTML_EXTENSIONS,
    *_MAIL_EXTENSIONS,
    *_JSON_LINES_EXTENSIONS,
    ".json",
)
_SMALL_JSON_BYTES = 1 << 16
_CODING = "; content-coding="
_NOTEBOOK = re.compile(rb'"nbformat"\s*:\s*\d')
_INFO_NODE = re.compile(rb"^\x1f\n\x0c?(?:File:|Tag Table:|Indirect:|End Tag Table)", re.MULTILINE)
_JSON_START = re.compile(rb"\s*[\[{]")


def detect_media_type(body: bytes, name: str = "", declared: str | None = None) -> str:
    """Returns the media type of a file: what its bytes say, and where they leave it open, what its name says.

    Args:
        body: The file's bytes. Only the beginning and the end are read, and the directory of a ZIP or OLE
            file.
        name: Its name or URI. Its extension decides among text types that often can not be told apart by
            content, such as plain text and Markdown.
        declared: The media type that a message declares for it. It stands in for the extension of a name
            that has none which says something.

    Returns:
        A media type: `application/x-empty` without bytes or with only whitespace, `application/octet-stream`
        for bytes of an unknown type, `text/plain` for source code.
    """
    sample = _sample(body)
    if not sample.strip() and not body.strip():
        return EMPTY_FILE
    extension = _extension(name)
    if found := signature_media_type(body):
        # A message that was taken out of a mailbox keeps the line before it.
        return EML if found == MBOX and extension in _MAIL_EXTENSIONS else found
    sample = _as_utf8(sample)
    # The name of a message is an address, and may end in ".org".
    if not extension or declared == EML or (declared and extension not in _SPEAKING_EXTENSIONS):
        extension = _BY_DECLARED.get((declared or "").lower(), extension)
    return _text_media_type(sample, body, extension)


def signature_media_type(body: bytes) -> str | None:
    """Returns the media type that a file's own signature tells; None for text without one, or unknown bytes.

    Archives, packages, compressed files and messages all have one.
    """
    if body.startswith(b"%PDF-"):
        return PDF
    if body.startswith(OLE_SIGNATURE):
        return _compound_kind(body)
    if body.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _package_kind(body) or ZIP
    if body.startswith(b"{\\rtf"):
        return RTF
    if found := binary_media_type(body):
        return found
    if is_mailbox(body):
        return MBOX
    if _is_mail(_as_utf8(_sample(body))):
        return EML
    return PDF if b"%PDF-" in body[:1024] else None  # PDF readers accept up to 1,024 bytes before it


def content_coding(media_type: str) -> str | None:
    """Returns the compression of a document's bytes, such as `gzip`; None if they are not compressed."""
    _, found, coding = media_type.partition(_CODING)
    return coding.partition(";")[0] if found else None


def with_content_coding(media_type: str, coding: str | None) -> str:
    """Returns a media type that says how the bytes are compressed: `text/html; content-coding=gzip`."""
    return f"{media_type}{_CODING}{coding}" if coding else media_type


def without_content_coding(media_type: str) -> str:
    """Returns the media type of what a document's bytes decompress to."""
    return media_type.partition(_CODING)[0]


def _text_media_type(sample: bytes, body: bytes, extension: str) -> str:
    named = _BY_EXTENSION.get(extension)
    is_text = _is_utf8(sample)
    contains_ascii = not CONTROL_CHARACTERS.search(sample.decode("latin-1"))
    if contains_ascii:
        # A text file may begin with an element and be Markdown or a note all the same.
        if markup := markup_media_type(sample, is_fragment_html=named is None):
            return markup
        if extension in _HTML_EXTENSIONS or (named == PLAIN_TEXT and is_html_fragment(sample)):
            return HTML
        if extension in _MAIL_EXTENSIONS and _HEADER_NAME.match(sample.lstrip()):
            return EML
        if (
            named not in _MARKUP_NAMED
            and _JSON_START.match(sample)
            and (found := _json_media_type(body, extension))
        ):
            return found
    if named not in _MARKUP_NAMED and is_manual_page(body, extension):
        return ROFF
    if _INFO_NODE.search(sample) and _is_utf8(sample.translate(None, b"\x1f\x7f")):
        return PLAIN_TEXT
    # Magika takes 20 ms of processor time per file. For most files these few checks are enough.
    if named and is_text and not _OTHER_TEXT.search(sample):
        return named
    guessed = _magika().identify_bytes(sample).output
    label = str(guessed.label)
    if label in _BY_LABEL:
        kind = _BY_LABEL[label]
    else:
        kind = PLAIN_TEXT if guessed.is_text and label not in _MARKED_UP else guessed.mime_type
    if kind == XML and named and contains_ascii:
        kind = PLAIN_TEXT  # no element encloses all of it: it is a text that begins with one
    if kind == EML and not _HEADER_NAME.match(sample.lstrip()):
        kind = PLAIN_TEXT  # Debian's changelogs have addresses and dates, but no header
    if kind == UNKNOWN_BYTES and is_text:
        kind = PLAIN_TEXT
    if kind == JSON and _NOTEBOOK.search(sample):
        return IPYNB
    if named and (kind in _BY_EXTENSION.values() or (kind == HTML and named in _MARKUP_NAMED)):
        return named
    # Magika takes logs, manual pages and recipes for tables as well.
    if kind in (CSV, TSV) and not _is_table(body):
        return PLAIN_TEXT
    return kind


def _extension(name: str) -> str:
    """Returns the extension in small letters; that of an older log, such as `app.log.1`, is `.log`."""
    extensions = [each.lower() for each in PurePosixPath(name).suffixes]
    last = extensions[-1] if extensions else ""
    return ".log" if ".log" in extensions and last not in _SPEAKING_EXTENSIONS else last


def _is_table(body: bytes) -> bool:
    head = _as_utf8(body[:_HEAD_BYTES]).decode("utf-8", "replace")
    return is_plainly_delimited(head, is_cut=len(body) > _HEAD_BYTES)


def _json_media_type(body: bytes, extension: str) -> str | None:
    """Returns the media type of a small text that is JSON or JSON Lines; None for any other text."""
    if len(body) > _SMALL_JSON_BYTES:
        return None
    try:
        text = decode_text(body)
    except ExtractionError:
        return None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        if _NOTEBOOK.search(body):
            return IPYNB
        return JSON_LINES if extension in _JSON_LINES_EXTENSIONS else JSON
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        records = [json.loads(line) for line in lines]
    except (ValueError, RecursionError):
        return None
    return JSON_LINES if all(isinstance(record, dict | list) for record in records) else None


def _sample(body: bytes) -> bytes:
    return body if len(body) <= 2 * _HEAD_BYTES else body[:_HEAD_BYTES] + body[-_HEAD_BYTES:]


def _package_kind(body: bytes) -> str | None:
    """Returns the media type of a ZIP file by the names of its parts; None for a mere archive."""
    if exceeds_zip_part_limit(body):
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            names = set(archive.namelist())
            mimetype = archive.getinfo("mimetype") if "mimetype" in names else None
            # Before `zipfile` cuts a part off at its size in the directory, it may unpack far more: what it
            # unpacks at once is bounded here, and by other methods it unpacks without a bound.
            if (
                mimetype
                and mimetype.compress_type in _BOUNDED_METHODS
                and mimetype.file_size <= _MIMETYPE_BYTES
            ):
                with archive.open(mimetype) as part:
                    declared = part.read(_MIMETYPE_BYTES).decode("ascii", "replace").strip()
                if declared == EPUB or declared.startswith(_OPENDOCUMENT):
                    return declared.removesuffix("-template")
    except Exception:  # zipfile does not document which errors broken files cause
        return None
    return next((kind for part, kind in _BY_PART.items() if part in names), None)


def _compound_kind(body: bytes) -> str:
    from olefile import OleFileIO

    class Compound(OleFileIO):
        def _check_duplicate_stream(self, first_sect: int, minifat: bool = False) -> None:
            """Does nothing: the check compares each stream with all others, and its finding is ignored."""

    # Olefile reads as many sectors of the allocation table as the header says, also one again and again, and
    # this is not the sandbox. A real table has an entry of four bytes for each sector of the file.
    shift, table_sectors = struct.unpack_from("<30xH12xI", body.ljust(512, b"\0"))
    if shift not in (9, 12) or table_sectors > (len(body) >> shift >> (shift - 2)) + _SPARE_TABLE_SECTORS:
        return OLE_COMPOUND
    try:
        with Compound(io.BytesIO(body)) as compound:
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
    """Returns text in other encodings as UTF-8, on which Magika's model was trained."""
    head = sample[:_HEAD_BYTES]
    if _is_utf8(sample):
        return sample
    if CONTROL_CHARACTERS.search(sample.decode("latin-1")):
        # Of other bytes than these, few are text.
        if b"\x00" not in sample and not looks_wide(head) and not looks_like_ebcdic(sample):
            return sample
        try:
            return decode_text(sample).encode("utf-8", "replace")
        except ExtractionError:
            return sample
    encoding = text_encoding(head)
    # Where the beginning and the end are joined, a character may be lost.
    return sample.decode(encoding, "replace").encode() if encoding else sample


@cache
def _magika() -> "Magika":
    from magika import Magika

    return Magika()
