"""Quality signals for damage to a text: markup that was left in, wrong decoding, a missing end.

Each signal is a number that a threshold of `training_fit` or `readability` bounds. It depends on the
normalised text, and a missing end also on what the source's last bytes say about it.
"""

import re
from enum import StrEnum


class SourceEnd(StrEnum):
    """What a source says about its end."""

    WHOLE = "whole"
    """It says that nothing follows: a page by its last tags, compressed bytes by their checksum."""
    LINE = "line"
    """It ends with a whole line. What breaks off while it is fetched does so anywhere in a line."""
    TORN = "torn"
    """It ends inside a tag, or leaves an element open."""
    UNKNOWN = "unknown"
    """It says nothing."""


# The elements of prose. A pattern for any name would take `<module>` in an API listing for a tag.
_TAG = re.compile(
    r"</?(?:a|abbr|article|aside|b|blockquote|body|br|button|center|code|dd|div|dl|dt|em|figure|font|footer"
    r"|form|h[1-6]|head|header|hr|html|i|iframe|img|input|label|li|link|main|meta|nav|ol|option|p|pre|script"
    r"|section|select|small|span|strong|style|sub|sup|svg|table|tbody|td|template|tfoot|th|thead|title|tr|u"
    r"|ul|video)(?:\s[^<>]{0,2000})?/?>",
    re.IGNORECASE,
)

# Ends of a text that announce more, or leave something open.
_OPEN_END = re.compile(r"(?:[,:(\[{]|[^\W\d_]-)\Z")
_FIELD = re.compile(r"^[ \t]*:[\w -]+:\Z", re.MULTILINE)
"""A last line that is a field of reStructuredText without a value."""
_OPEN_QUOTE = re.compile(r'(?:\A|[\s(])"[^\s"][^"]*\Z')
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))
_DANGLING = re.compile(
    r"(?:a|an|and|are|as|at|be|been|by|can|for|from|has|have|if|in|into|is|its|may|nor|not|of|on|or|our"
    r"|shall|should|such|than|that|the|their|these|this|those|to|was|were|when|where|which|while|will"
    r"|with|without|would|your)\Z",
    re.IGNORECASE,
)
"""English words that rarely end a sentence."""
_WORD = re.compile(r"[^\W\d_]+")
_LAST_WORD = re.compile(r"(?:\A|[\s(\"'“‘])([^\W\d_]+)\Z")
_NOT_PROSE = re.compile(r"\s*(?:[-*+•·|#$%>=:~]|\d+[.)]\s|\.\. )")
"""The beginnings of lines of lists, tables, prompts and directives."""
_CODE_LINE = re.compile(r"^\s*(?:[#$%>|]|\w+\()", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_WRAPPED_LINE_MIN_CHARS = 50
"""The length from which a line may be part of a wrapped paragraph."""
_FRAGMENT_MIN_WORDS = 3
"""A shorter last paragraph is a name or a heading, which ends in any word that is one."""
_SENTENCE_MIN_WORDS = 5
"""The number of words from which a paragraph with a full stop counts as a sentence."""
_PROSE_MIN_WORDS = 12
"""The number of words from which a paragraph counts as prose."""
_TAIL_CHARS = 4000
"""How much of the last paragraph is read: a document without blank lines is one paragraph."""


def markup_line_ratio(text: str, line_count: int) -> float:
    """Returns the share of lines with an HTML tag, which is high for a page that was read as plain text.

    Args:
        line_count: The number of its lines that have a word.
    """
    if "<" not in text:
        return 0.0
    return min(1.0, sum(_TAG.search(line) is not None for line in text.split("\n")) / max(line_count, 1))


def mojibake_ratio(text: str) -> float:
    """Returns the number of unlikely sequences or of U+FFFD per non-ASCII character, whichever is larger.

    Both are traces of a wrong decoding that could not be repaired: `normalize_text` has already repaired what
    ftfy can. The sequences are those of `ftfy.badness` (Speer, "ftfy", Zenodo 2019,
    doi:10.5281/zenodo.2591652). The ratio is to non-ASCII characters because a wrong decoding damages only
    those; an English text has few, and all of them are damaged.
    """
    if text.isascii():
        return 0.0
    foreign = len(text) - sum(map(str.isascii, text))
    return min(1.0, _damaged_chars(text) / foreign)


def damaged_char_ratio(text: str) -> float:
    """Returns the number of unlikely sequences or of U+FFFD per character, whichever is larger.

    The damage is that of `mojibake_ratio`, measured against the whole text: how much of it is left to read.
    """
    return 0.0 if text.isascii() else min(1.0, _damaged_chars(text) / len(text))


def _damaged_chars(text: str) -> int:
    from ftfy.badness import badness

    unlikely = sum(badness(line) for line in text.split("\n") if not line.isascii())
    return max(unlikely, text.count("\ufffd"))


def detect_cut_off(text: str, end: SourceEnd = SourceEnd.UNKNOWN) -> int:
    """Returns 1 if a text stops in the middle of something, else 0.

    What the source says about its end decides, where it says that nothing follows or that something is left
    open. A missing full stop is no sign: lists, signatures and command lines have none either. The signs are:

    - the last character is a colon, comma or open bracket;
    - the last paragraph opens a bracket or quotation and does not close it;
    - the last word is one that can not end a sentence, such as "the";
    - the last word is the beginning of another word of the text, and is nowhere else a word itself;
    - the last paragraph is prose and ends in a bare word, while another paragraph ends in a full stop.

    A cut between two sentences, or inside a list or a table, is not detected. Of a source that ends with a
    whole line only prose counts that ends in a comma or in a word that can not end a sentence: whoever wrote
    the line's end may have meant to end there.

    Args:
        text: Normalised text.
    """
    if end in (SourceEnd.WHOLE, SourceEnd.TORN):
        return int(end is SourceEnd.TORN)
    text = text.rstrip()
    paragraphs = [paragraph for paragraph in _PARAGRAPH.split(text) if paragraph.strip()]
    if not paragraphs:
        return 0
    last = paragraphs[-1][-_TAIL_CHARS:]
    if end is SourceEnd.LINE:
        return int(_is_prose(last) and _ends_within_sentence(last))
    if (_OPEN_END.search(last) and not _FIELD.search(last)) or _is_unclosed(last):
        return 1
    found = _LAST_WORD.search(last)
    if found is None:
        return 0
    word = found.group(1)
    words = _WORD.findall(last)
    if len(words) < _FRAGMENT_MIN_WORDS:
        dangling = len(word) > 1 and _DANGLING.match(word) is not None
        return int(dangling or _is_only_a_beginning(word, text[: -len(word)]))
    if _DANGLING.match(word):
        return 1
    if not _is_prose(last, min_words=0):
        return 0
    if (
        len(words) >= _PROSE_MIN_WORDS
        and not word.istitle()
        and (_is_wrapped(last) or _has_sentence(paragraphs[:-1]))
    ):
        return 1
    folded = word.lower()
    if len(folded) == 1 and folded not in "aix":
        return 1
    return int(_is_only_a_beginning(word, text[: -len(word)]))


def _is_prose(paragraph: str, min_words: int = _PROSE_MIN_WORDS) -> bool:
    """Whether a paragraph is long enough and neither ends in a list or table nor has lines of code."""
    return (
        len(_WORD.findall(paragraph)) >= min_words
        and not _NOT_PROSE.match(paragraph[paragraph.rfind("\n") + 1 :])
        and not _CODE_LINE.search(paragraph)
    )


def _ends_within_sentence(paragraph: str) -> bool:
    """Whether a paragraph ends in a comma, or in a word that can not end a sentence."""
    found = _LAST_WORD.search(paragraph)
    return paragraph.endswith(",") or (found is not None and _DANGLING.match(found.group(1)) is not None)


def _is_only_a_beginning(word: str, text: str) -> bool:
    """Whether a word is the beginning of other words of a text, but never a word of the text itself."""
    inside = rf"(?<![^\W\d_]){re.escape(word)}"
    return (
        re.search(rf"{inside}(?![^\W\d_])", text, re.IGNORECASE) is None
        and re.search(inside, text, re.IGNORECASE) is not None
    )


def _is_wrapped(paragraph: str) -> bool:
    """Whether a paragraph is wrapped prose: all its lines but the last are long."""
    lines = paragraph.split("\n")[:-1]
    return bool(lines) and all(len(line) >= _WRAPPED_LINE_MIN_CHARS for line in lines)


def _has_sentence(paragraphs: list[str]) -> bool:
    """Whether any paragraph ends in a full stop and is long enough to be a sentence."""
    return any(
        paragraph.rstrip().endswith(".") and len(_WORD.findall(paragraph)) >= _SENTENCE_MIN_WORDS
        for paragraph in paragraphs
    )


def _is_unclosed(paragraph: str) -> bool:
    """Whether a paragraph opens a bracket or quotation without closing it."""
    if paragraph.count('"') % 2 and _OPEN_QUOTE.search(paragraph):
        return True
    # Only brackets opened after the last closing one: an emoticon or a numbered "a)" elsewhere means nothing.
    return any(
        paragraph.rfind(opening) > paragraph.rfind(closing)
        and paragraph.count(opening) > paragraph.count(closing)
        for opening, closing in _BRACKETS
    )
