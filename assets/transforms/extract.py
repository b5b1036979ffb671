"""Bytes to text and structure: what a file is, by its content, and what it says."""

import io
import re
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from assets.transforms.blocks import Block, Content, Extracted, ExtractionError, Heading, assemble
from assets.transforms.decode import CONTROL, decode
from assets.transforms.formats.docx import read_docx
from assets.transforms.formats.html import read_html
from assets.transforms.formats.markdown import read_markdown
from assets.transforms.formats.pdf import read_pdf
from assets.transforms.formats.records import read_delimited, read_json
from assets.transforms.formats.restructuredtext import read_rst

if TYPE_CHECKING:
    from magika import Magika

__all__ = ["MAX_SIZE_BYTES", "Extracted", "ExtractionError", "Heading", "extract", "media_type"]

MAX_SIZE_BYTES = 64 << 20
"""The largest body that is parsed unless a caller says otherwise."""

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
EMPTY = "application/x-empty"
UNKNOWN = "application/octet-stream"
UTF8_TEXT = "text/plain; charset=utf-8"
"""Text known to be sound UTF-8, as row sources give it: decoded without detection."""

_HEAD_BYTES = 4096
# Text kinds that content often can't tell apart: here, and only here, the name's extension decides.
_BY_EXTENSION = {
    ".txt": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".rst": "text/x-rst",
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
    "unknown": UNKNOWN,
    "empty": EMPTY,
}
# What such text doesn't begin with or hold, and text that wants another reader does: markup,
# JSON, TeX, the header lines of mail, calendars and cards, PEM, subtitles, translations.
_OTHER_TEXT = re.compile(
    rb"\A\s*(?:[<{\[%\\]|[\w.-]+:|-----BEGIN|WEBVTT)|</(?:p|div|body|html)>|\d --> \d|^msgid ", re.MULTILINE
)
# Magika's text labels whose markup would be read as words; their readers come with their formats.
_MARKED_UP = {"eml", "mht", "xml", "rtf", "svg", "ics", "vcard", "tex", "ipynb", "pem", "srt", "po"}


def _read_text(body: bytes) -> Content:
    return Content([Block(decode(body))])


_READERS: dict[str, Callable[[bytes], Content]] = {
    "text/plain": _read_text,
    "text/markdown": read_markdown,
    "text/x-rst": read_rst,
    "text/html": read_html,
    "application/pdf": read_pdf,
    DOCX: read_docx,
    "text/csv": read_delimited,
    "text/tab-separated-values": read_delimited,
    "application/json": read_json,
    "application/x-ndjson": read_json,
}


def media_type(body: bytes, name: str = "") -> str:
    """What kind of file the bytes are, by their content.

    Args:
        body: The file; its beginning and end are looked at.
        name: Its name or URI. The extension only decides between plain text, Markdown, reStructuredText and
            CSV, which content often can't tell apart.

    Returns:
        A media type; `application/x-empty` for no bytes or only whitespace, `application/octet-stream` for
        bytes of no known kind, `text/plain` for source code.
    """
    sample = body if len(body) <= 2 * _HEAD_BYTES else body[:_HEAD_BYTES] + body[-_HEAD_BYTES:]
    if not sample.strip() and not body.strip():
        return EMPTY
    if b"%PDF-" in body[:1024]:
        return "application/pdf"
    if body.startswith(b"PK\x03\x04") and _holds_docx(body):
        return DOCX
    named = _BY_EXTENSION.get(PurePosixPath(name).suffix.lower())
    # Magika takes 20 ms of processor time a file. Most files are what these few looks say they are.
    if named and _is_utf8(sample) and not _OTHER_TEXT.search(sample):
        return named
    found = _magika().identify_bytes(_as_utf8(sample)).output
    label = str(found.label)
    if label in _BY_LABEL:
        kind = _BY_LABEL[label]
    else:
        kind = "text/plain" if found.is_text and label not in _MARKED_UP else found.mime_type
    return named if named and (kind in _BY_EXTENSION.values()) else kind


def _holds_docx(body: bytes) -> bool:
    try:
        return "word/document.xml" in zipfile.ZipFile(io.BytesIO(body)).namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _is_utf8(sample: bytes) -> bool:
    """Whether it is UTF-8 without control characters, but for characters cut where the sample was joined."""
    text = sample.decode("utf-8", "replace")
    return text.count("\ufffd") <= 6 and not CONTROL.search(text)


def _as_utf8(sample: bytes) -> bytes:
    """UTF-16 and UTF-32 as UTF-8, which is what the model was trained on."""
    if b"\x00" not in sample:
        return sample
    try:
        return decode(sample).encode("utf-8", "replace")
    except ExtractionError:
        return sample


@cache
def _magika() -> "Magika":
    from magika import Magika

    return Magika()


def extract(body: bytes, media_type: str, max_size_bytes: int = MAX_SIZE_BYTES) -> Extracted:
    """The normalised text, title, headings and page offsets of a document.

    Args:
        body: The document's bytes.
        media_type: As `media_type` found it; parameters other than "charset=utf-8" are ignored.
        max_size_bytes: Larger bodies are refused before they are parsed.

    Raises:
        ExtractionError: With expectation `empty`, `oversize`, `unsupported_media_type`, `encrypted`,
            `unreadable` or `no_text`; nothing else is raised, whatever the bytes.
    """
    if not body:
        raise ExtractionError("empty", "The file has no bytes.")
    if len(body) > max_size_bytes:
        limit = f"the limit is {max_size_bytes:,}"
        raise ExtractionError("oversize", f"The document has {len(body):,} bytes; {limit}.")
    if media_type == UTF8_TEXT:
        return assemble(Content([Block(body.decode("utf-8", "replace"))]))
    kind = media_type.partition(";")[0].strip().lower()
    if kind == EMPTY:
        raise ExtractionError("empty", "The file holds nothing but whitespace.")
    if kind == UNKNOWN:
        raise ExtractionError("unsupported_media_type", "The bytes are of no kind of file that is known.")
    reader = _READERS.get(kind)
    if reader is None:
        raise ExtractionError("unsupported_media_type", f"Files of type {kind} are not read.")
    try:
        return assemble(reader(body))
    except ExtractionError:
        raise
    except Exception as error:
        # The parsers name no set of errors that broken files give, so every one of them is that here.
        reason = f"The {kind} parser failed: {type(error).__name__}: {str(error)[:200]}"
        raise ExtractionError("unreadable", reason) from error
