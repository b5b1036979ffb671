"""Brings text into one canonical form: equal texts have equal bytes and hashes, and offsets are stable."""

import re
import unicodedata

NORMALIZER_VERSION = "1"
"""Increased whenever the same input would give other text. It is part of the parser's version."""

_NEWLINES = re.compile("\r\n|[\r\x0b\x0c\u2028\u2029]")
# Invisible characters that break search: control characters, soft hyphens, byte order marks, the two
# overrides of the writing direction, which can make text look other than it is, and interlinear anchors.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\ufeff\u202d\u202e\ufff9-\ufffb\ufffe\uffff]")
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_BLANK_LINES = re.compile("\n{4,}")
_MAX_PASSES = 10


def normalize_text(text: str) -> str:
    """Returns text in its canonical form; normalising it again changes nothing.

    Line endings become line feeds, mojibake is repaired, control characters are removed, every space
    character becomes a plain space, characters are composed (Unicode NFC, UAX 15), trailing spaces are
    stripped, at most two blank lines stay in a row, and none at the start or end. Typographic quotes, dashes,
    ligatures and full-width letters stay as they were written.

    Args:
        text: Any string. Unpaired surrogates become U+FFFD, so that the result can be encoded in UTF-8.
    """
    if text.isascii():
        return _tidy(text)
    # A repair can produce characters that compose, or a space at a line's end: repeat until nothing changes.
    for _ in range(_MAX_PASSES):
        before, text = text, _tidy(unicodedata.normalize("NFC", _repair(text)))
        if text == before:
            break
    return text


def collapse_whitespace(text: str) -> str:
    """Returns the normalised text with every run of whitespace replaced by one space."""
    # What was at the ends of two lines can look like one damaged character in one line.
    for _ in range(_MAX_PASSES):
        before, text = text, " ".join(normalize_text(text).split())
        if text == before:
            break
    return text


def _repair(text: str) -> str:
    if _SURROGATES.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    from ftfy import fix_encoding

    # Line by line: the heuristics are slow, most lines are ASCII, and often only a quoted part is damaged.
    return "\n".join(line if line.isascii() else fix_encoding(line) for line in text.split("\n"))


def _tidy(text: str) -> str:
    text = _NEWLINES.sub("\n", text)
    text = _SPACES.sub(" ", _INVISIBLE.sub("", text))
    # Not a regular expression: `[ \t]+$` takes quadratic time on a long run of spaces.
    text = "\n".join(map(str.rstrip, text.split("\n")))
    return _BLANK_LINES.sub("\n\n\n", text).strip("\n")
