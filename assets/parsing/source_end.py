"""Does a source end where its author ended it? What its last bytes say of that."""

import re
from collections import Counter

from assets.parsing import content_type
from assets.text.damage import SourceEnd

_HTML_TYPES = ("text/html", "application/xhtml+xml")
_LINE_TYPES = (content_type.PLAIN_TEXT, "text/markdown", "text/x-rst", content_type.ORG)
_LINE_END_BYTES = 4
"""The bytes in which a line feed is in every encoding, UTF-32 included."""
_EBCDIC_NEW_LINES = (b"\x15", b"\x25")
_OPAQUE = re.compile(
    rb"<!--.*?(?:-->|\Z)|<(script|style|textarea|title)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE
)
_WITHIN_A_TAG = re.compile(rb"<(?:[a-zA-Z/!?][^<>]*)?\Z")
_LAST_TAG = re.compile(rb"</(?:html|body)\s*>((?:\s+|</?[a-zA-Z][^<>]*>)*)\Z", re.IGNORECASE)
_MUST_END = re.compile(
    rb"<(/?)(div|table|ul|ol|dl|pre|section|article|main|nav|header|footer|blockquote|h[1-6]|head)(?=[\s>])",
    re.IGNORECASE,
)
"""Tags of elements whose end the HTML standard demands."""


def source_end(body: bytes, media_type: str) -> SourceEnd:
    """Returns what the bytes of a source say about its end.

    Args:
        body: The bytes, as they were decompressed.
        media_type: Its media type without parameters. Where others than text and HTML have an end, their
            reader misses it.
    """
    if media_type in _HTML_TYPES:
        return _html_end(body.replace(b"\0", b""))
    if media_type in _LINE_TYPES and _ends_a_line(body):
        return SourceEnd.LINE
    return SourceEnd.UNKNOWN


def _ends_a_line(body: bytes) -> bool:
    last = body[-_LINE_END_BYTES:].replace(b"\0", b"")
    return last.endswith((b"\n", b"\r", *_EBCDIC_NEW_LINES))


def _html_end(body: bytes) -> SourceEnd:
    # What is left of a comment or script that does not end is the beginning of a tag.
    left = _OPAQUE.sub(lambda found: b" " if found[0].endswith(b">") else b"<!", body)
    if _LAST_TAG.search(left):
        return SourceEnd.WHOLE
    if _WITHIN_A_TAG.search(left):
        return SourceEnd.TORN
    if _ends_a_line(body):
        return SourceEnd.LINE  # some pages, written by hand or by simple programs, close nothing
    open_elements: Counter[bytes] = Counter()
    for closing, name in _MUST_END.findall(left):
        open_elements[name.lower()] += -1 if closing else 1
    return SourceEnd.TORN if max(open_elements.values(), default=0) > 0 else SourceEnd.UNKNOWN
