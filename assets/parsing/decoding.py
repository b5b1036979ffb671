"""Decodes text of unknown encoding."""

import codecs
import re
import string

from assets.parsing.blocks import ExtractionError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the first half of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES = 1 << 18
# The encodings that real files have. The detector's full list has similar ones that win on short texts.
_ENCODINGS = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"),
    *("iso8859_2", "iso8859_5", "iso8859_7", "koi8_r", "mac_roman", "cp437"),
    *("cp932", "euc_jp", "iso2022_jp", "gb18030", "big5", "euc_kr"),
]
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
# Letters, digits, space, line ends, full stop and comma in EBCDIC: most of a mainframe's text.
_EBCDIC = f"{string.ascii_letters}{string.digits} .,-\n\x85".encode("cp037")
_MULTI_BYTE = re.compile("[^\x00-\x7f\ufffd]")
_WESTERN = re.compile(
    "[\u00a0-\u00d6\u00d8-\u00f6\u00f8-\u00ff\u2018-\u201e\u2013\u2014\u2026\u20ac\u2022\u2122]"
)


def decode_text(body: bytes) -> str:
    """Decodes text by its byte order mark, else as UTF-16, UTF-32, EBCDIC or UTF-8, else by detection.

    Raises:
        ExtractionError: `unreadable` if the bytes are not text in any encoding.
    """
    for mark, encoding in _BOMS:
        if body.startswith(mark):
            return body.decode(encoding, "replace")
    if wide := _unmarked_wide(body):
        return body.decode(wide, "replace")
    if looks_like_ebcdic(body):
        return body.decode("cp037").replace("\x85", "\n")
    try:
        return _checked(body.decode("utf-8"))
    except UnicodeDecodeError:
        return _mostly_utf8(body) or _checked(_detected(body))


def looks_like_ebcdic(body: bytes) -> bool:
    """Returns whether bytes look like EBCDIC text: nearly all are its letters, digits and spaces."""
    sample = body[:4096]
    if sample.count(b"\x40") < 0.05 * len(sample) or b"\x20" in sample:
        return False
    return len(sample.translate(None, _EBCDIC)) < 0.1 * len(sample)


def _unmarked_wide(body: bytes) -> str | None:
    """Returns the name of UTF-16 or UTF-32 if NULs are where ASCII text in it has them, else None."""
    sample = body[:4096]
    if len(body) % 4 == 0 and len(sample) >= 8:
        nuls = [sample[place::4].count(0) / (len(sample) / 4) for place in range(4)]
        if min(nuls[1:]) > 0.7 and nuls[0] < 0.05:
            return "utf-32-le"
        if min(nuls[:3]) > 0.7 and nuls[3] < 0.05:
            return "utf-32-be"
    pairs = len(sample) // 2
    if pairs < 2 or len(body) % 2:
        return None
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd > pairs * 0.7 and even < pairs * 0.05:
        return "utf-16-le"
    return "utf-16-be" if even > pairs * 0.7 and odd < pairs * 0.05 else None


def _mostly_utf8(body: bytes) -> str | None:
    """Decodes UTF-8 with a few damaged bytes; returns None unless nearly all of it is valid."""
    text = body.decode("utf-8", "replace")
    return _checked(text) if len(_MULTI_BYTE.findall(text)) > 20 * text.count("\ufffd") else None


def _detected(body: bytes) -> str:
    # Most such text is Western European, and short texts are too little for a detector. So text is
    # Windows-1252, a superset of Latin-1, if its bytes above 127 are few and nearly all of them are letters
    # there.
    sample = body[:_SAMPLE_BYTES].decode("cp1252", "replace")
    high = len(sample) - sum(map(str.isascii, sample))
    if len(_WESTERN.findall(sample)) >= 0.98 * high and high < 0.15 * len(sample):
        return body.decode("cp1252", "replace")
    from charset_normalizer import from_bytes

    best = from_bytes(body[:_SAMPLE_BYTES], cp_isolation=_ENCODINGS).best()
    if best is None:
        # If nearly all of it is ASCII, a few unreadable bytes are no reason to lose the rest.
        text = body.decode("utf-8", "replace")
        if text.isascii() or sum(map(str.isascii, text)) > 0.95 * len(text):
            return text
        raise ExtractionError("unreadable", "The bytes are not text in any known encoding.")
    return body.decode(best.encoding, "replace")


def _checked(text: str) -> str:
    sample = text[:_SAMPLE_BYTES]
    if len(CONTROL_CHARACTERS.findall(sample)) > 0.02 * len(sample):
        raise ExtractionError("unreadable", "The bytes are not text: too many control characters.")
    return text
