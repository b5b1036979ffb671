"""One canonical form of text, so that equal writing has equal bytes, equal hashes and stable offsets."""

import re
import unicodedata

NORMALIZER_VERSION = "1"
"""Raised whenever the same input would give other text: it is part of the parser's config digest."""

_NEWLINES = re.compile("\r\n|[\r\x0b\x0c\u2028\u2029]")
# Format characters that show nothing and break search: soft hyphen, byte order marks, the two
# overrides that can make text read otherwise than it is written, and interlinear anchors.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\ufeff\u202d\u202e\ufff9-\ufffb\ufffe\uffff]")
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_BLANK_LINES = re.compile("\n{4,}")
_MAX_PASSES = 10


def normalize_text(text: str) -> str:
    """Brings text into its canonical form, in which it stays: normalising again changes nothing.

    In this order: line endings to a line feed, mojibake repaired, control characters removed, every space
    character to a plain space, Unicode NFC (UAX 15), trailing spaces stripped, at most two blank lines in a
    row, none at the start or end. Typographic quotes, dashes, ligatures and full-width letters stay as they
    were written.

    Args:
        text: Any string; unpaired surrogates become U+FFFD, so that the result is always UTF-8 encodable.
    """
    if text.isascii():
        return _tidy(text)
    # A repair can bring out a character that composes, or a space at a line's end: to the fixed point.
    for _ in range(_MAX_PASSES):
        before, text = text, _tidy(unicodedata.normalize("NFC", _repair(text)))
        if text == before:
            break
    return text


def _repair(text: str) -> str:
    if _SURROGATES.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    from ftfy import fix_encoding

    # A line at a time: its heuristics are slow, most lines are ASCII, and damage is often a quoted part only.
    return "\n".join(line if line.isascii() else fix_encoding(line) for line in text.split("\n"))


def _tidy(text: str) -> str:
    text = _NEWLINES.sub("\n", text)
    text = _SPACES.sub(" ", _INVISIBLE.sub("", text))
    # Not a regular expression: `[ \t]+$` takes quadratic time on a long run of spaces.
    text = "\n".join(map(str.rstrip, text.split("\n")))
    return _BLANK_LINES.sub("\n\n\n", text).strip("\n")
