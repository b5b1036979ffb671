"""What happened to a text on its way here: markup left in, a wrong decoding, an end that is missing.

Each signal is a number that a threshold of `signals.QualityThresholds` bounds. They read the normalised text
and know nothing of where it came from.
"""

import re

# The elements that prose is marked up with. Any name would take `<module>` of an API listing for a tag.
_TAG = re.compile(
    r"</?(?:a|abbr|article|aside|b|blockquote|body|br|button|center|code|dd|div|dl|dt|em|figure|font|footer"
    r"|form|h[1-6]|head|header|hr|html|i|iframe|img|input|label|li|link|main|meta|nav|ol|option|p|pre|script"
    r"|section|select|small|span|strong|style|sub|sup|svg|table|tbody|td|template|tfoot|th|thead|title|tr|u"
    r"|ul|video)(?:\s[^<>]{0,2000})?/?>",
    re.IGNORECASE,
)

# What announces more, or has not been closed.
_OPEN_END = re.compile(r"(?:[,;:(\[{]|[^\W\d_]-)\Z")
_OPEN_QUOTE = re.compile(r'(?:\A|[\s(])"[^\s"][^"]*\Z')
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))
_DANGLING = re.compile(
    r"(?:a|an|and|are|as|at|be|been|by|can|for|from|has|have|if|in|into|is|its|may|nor|not|of|on|or|our"
    r"|shall|should|such|than|that|the|their|these|this|those|to|was|were|when|where|which|while|will"
    r"|with|without|would|your)\Z",
    re.IGNORECASE,
)
"""English words that hardly ever end a sentence."""
_WORD = re.compile(r"[^\W\d_]+")
_LAST_WORD = re.compile(r"(?:\A|[\s(\"'“‘])([^\W\d_]+)\Z")
_NOT_PROSE = re.compile(r"\s*(?:[-*+•·|#$%>=:~]|\d+[.)]\s|\.\. )")
"""How a line of a list, a table, a prompt or a directive begins."""
_CODE_LINE = re.compile(r"^\s*(?:[#$%>|]|\w+\()", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
_LONG_LINE_CHARS = 50
_FEW_WORDS = 3
_SENTENCE_WORDS = 5
_PROSE_WORDS = 12
"""Words from which a paragraph is taken for prose, for a sentence, and for more than a name."""
_TAIL_CHARS = 4000
"""Of a last paragraph: a document without blank lines is one."""


def markup_line_ratio(text: str, line_count: int) -> float:
    """The share of lines that hold an HTML tag: what is left of a page that was taken for plain text.

    Args:
        text: The text.
        line_count: Its lines with a word.
    """
    if "<" not in text:
        return 0.0
    return min(1.0, sum(_TAG.search(line) is not None for line in text.split("\n")) / max(line_count, 1))


def mojibake_ratio(text: str) -> float:
    """Unlikely sequences and U+FFFD, a non-ASCII character: what a wrong decoding left past repair.

    The sequences are those of ftfy (Speer, "ftfy", Zenodo 2019, doi:10.5281/zenodo.2591652), module
    `ftfy.badness`. What ftfy can mend is mended by `normalize` and not seen here. The ratio is to the
    characters that a wrong decoding can hurt: English has few, and loses them all.
    """
    if text.isascii():
        return 0.0
    from ftfy.badness import badness

    foreign = len(text) - sum(map(str.isascii, text))
    unlikely = sum(badness(line) for line in text.split("\n") if not line.isascii())
    return min(1.0, max(unlikely, text.count("\ufffd")) / foreign)


def detect_cut_off(text: str) -> int:
    """1 where a text stops in the middle of something, else 0.

    A list, a signature or a command line stops without punctuation too, so an open end alone is no sign.
    These are: a colon, comma or open bracket as the last character; a bracket that the last paragraph
    opens and does not close; a word that can't end a sentence; a fragment that begins another word of the
    text and is never a word in it; and a last paragraph of prose that ends in a bare word, where another
    one closed its sentence.

    A cut between two sentences, or in a list or a table, leaves no sign and is not seen.
    """
    text = text.rstrip()
    paragraphs = [paragraph for paragraph in _PARAGRAPH.split(text) if paragraph.strip()]
    if not paragraphs:
        return 0
    last = paragraphs[-1][-_TAIL_CHARS:]
    if _OPEN_END.search(last) or _unclosed(last):
        return 1
    found = _LAST_WORD.search(last)
    if found is None:
        return 0
    word = found.group(1)
    words = _WORD.findall(last)
    if len(words) < _FEW_WORDS:
        return 0
    if _DANGLING.match(word):
        return 1
    if _NOT_PROSE.match(last[last.rfind("\n") + 1 :]) or _CODE_LINE.search(last):
        return 0
    if len(words) >= _PROSE_WORDS and not word.istitle() and (_wrapped(last) or _closes(paragraphs[:-1])):
        return 1
    folded = word.lower()
    if len(folded) == 1 and folded not in "aix":
        return 1
    return int(_begins_only(word, text[: -len(word)]))


def _begins_only(word: str, text: str) -> bool:
    """Whether a word begins others of a text and is none of them itself."""
    inside = rf"(?<![^\W\d_]){re.escape(word)}"
    return (
        re.search(rf"{inside}(?![^\W\d_])", text, re.IGNORECASE) is None
        and re.search(inside, text, re.IGNORECASE) is not None
    )


def _wrapped(paragraph: str) -> bool:
    """Whether it is prose with line breaks: all its lines but the last are long."""
    lines = paragraph.split("\n")[:-1]
    return bool(lines) and all(len(line) >= _LONG_LINE_CHARS for line in lines)


def _closes(paragraphs: list[str]) -> bool:
    """Whether any paragraph is a sentence with its full stop."""
    return any(
        paragraph.rstrip().endswith(".") and len(_WORD.findall(paragraph)) >= _SENTENCE_WORDS
        for paragraph in paragraphs
    )


def _unclosed(paragraph: str) -> bool:
    """Whether a bracket or quotation is opened and not closed."""
    if paragraph.count('"') % 2 and _OPEN_QUOTE.search(paragraph):
        return True
    # Only what is opened after the last close: an emoticon or a numbered "a)" elsewhere says nothing.
    return any(
        paragraph.rfind(opening) > paragraph.rfind(closing)
        and paragraph.count(opening) > paragraph.count(closing)
        for opening, closing in _BRACKETS
    )
