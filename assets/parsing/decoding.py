"""Decodes text of unknown encoding."""

import codecs
import re
import string
from functools import lru_cache

from assets.parsing.blocks import ExtractionError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the first half of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HEAD_BYTES = 4096
_SAMPLE_BYTES = 1 << 16
# The encodings that real files have. The detector's full list has similar ones that win on short texts.
LATIN_ENCODINGS = (
    *("cp1252", "cp1250", "cp1254", "cp1257", "cp1258", "iso8859-1", "iso8859-2", "iso8859-9", "iso8859-15"),
    *("mac-roman", "cp437", "cp850", "cp852"),
)
_ENCODINGS = (
    *LATIN_ENCODINGS,
    *("cp1251", "cp1253", "cp1255", "cp1256", "iso8859-5", "iso8859-7", "koi8-r", "koi8-u", "cp866"),
    *("tis-620", "cp874", "shift_jis", "cp932", "euc-jp", "gb18030", "big5", "big5hkscs", "euc-kr", "cp949"),
)
_SUPERSETS = {
    **{"iso8859-1": "cp1252", "iso8859-9": "cp1254", "tis-620": "cp874", "shift_jis": "cp932"},
    **{"euc-kr": "cp949", "euc_kr": "cp949"},
}
"""What programs write where they name the smaller one, as browsers read it (encoding.spec.whatwg.org)."""
_ESCAPES = (b"\x1b$", b"\x1b(J")
"""The sequences with which a text in ISO-2022 goes over to East Asian characters."""
_FOREIGN_WORD = re.compile(rb"[a-zA-Z\x80-\xff]*[\x80-\xff][a-zA-Z\x80-\xff]*")
_TYPOGRAPHY = re.compile(
    rb"[\x85\x92\x99\xa0\xa9\xab\xae\xb0\xbb]"
    rb"|(?<![a-zA-Z])[\x80\x82\x84\x91\x93\x95-\x97\xa3\xa7\xb7]|\x94(?![a-zA-Z])"
)
"""Quotation marks, dashes and signs where Windows writes them, none of them between two letters."""
_MIN_TYPOGRAPHY_SHARE = 0.98
_ADJACENT = re.compile(rb"[\x80-\xff]{2}")
_APOSTROPHE = re.compile(rb"(?<=[a-zA-Z])\x92")
_MIN_LATIN_SHARE = 0.8
"""The share of the bytes above 127 that are in words of Latin letters, in a text in them."""
_FEW_FOREIGN_CHARS = 15
"""The number of characters outside ASCII above which the likeliest encoding is hardly ever wrong."""
_MIN_DOUBTFUL_SHARE = 0.01
"""The share of a text's characters that must be in doubt: a name in a long text is none."""
_HARDLY_KNOWN = 0.05
"""The confidence below which the detector has no letters to go by: a foreign name in an English text."""
_AS_LIKELY = 0.02
"""The difference of confidence up to which another encoding is as likely as the first."""
# The characters of a text in Chinese, Japanese or Korean, and those of them that every such text has.
EAST_ASIAN = re.compile(
    "[\u3000-\u30ff\u3105-\u312f\uff00-\uffef\uac00-\ud7a3\u4e00-\u9fff\n\r\t -~"
    "\u00b1\u00b7\u00d7\u2010-\u203b\u2190-\u2193\u2460-\u2473\u25a0-\u25cf]"
)
_EAST_ASIAN_COMMON = re.compile("[\u3000-\u30ff\uff01-\uff65\n -~]")
_BLOCKS_OF_A_TEXT = 4
"""How many blocks of 256 characters a text in an alphabet is in; Vietnamese is in four."""
_MIN_EAST_ASIAN_SHARE = 0.98
_MIN_COMMON_SHARE = 0.03
_STRUCK_OVER = re.compile("[^\n\b]?\b")
_ESCAPE_SEQUENCE = re.compile(
    "\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b\n]{0,500}(?:\x07|\x1b\\\\)|[()*+][A-Z0-9]|[=>78cDEHMNOZ])"
)
_STRUCK_OVER_BYTES = re.compile(rb"[^\n\x08]?\x08")
CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_INFO_NODE_END = "\n\x1f\n"
_INFO_CONTROLS = dict.fromkeys((0x1F, 0x7F))
"""The characters that divide nodes in GNU Info, and names from places in its tables."""
_MAX_CONTROL_SHARE = 0.02
_ASCII = bytes(range(128))
_ASCII_LETTERS = string.ascii_letters.encode()
_PRINTED_ASCII = bytes({*range(32, 127), *b"\t\n\v\f\r\b\x1b"})
# Most of a mainframe's text. The two code pages of English have different places for a few signs.
_EBCDIC_LETTERS = string.ascii_letters.encode("cp037")
_EBCDIC = _EBCDIC_LETTERS + f"{string.digits}{string.punctuation} \n\x85".encode("cp037") + b"\x4a\x5f"
_MIN_EBCDIC_LETTER_SHARE = 0.3
# What is "[", "^" and a "!" at a word's end in code page 500 is a cent sign, a negation and "|" in 037, whose
# "[" and "^" are a negation and a cent sign in 500.
_SIGNS_OF_500 = re.compile(rb"[\x4a\x5f]|(?<=[\x81-\xa9])\x4f(?=[\x40\x15\x25\x5d])")
_SIGNS_OF_037 = re.compile(rb"[\xba\xb0]|(?<=[\x81-\xa9])\x5a(?=[\x40\x15\x25\x5d])")
_MULTI_BYTE = re.compile("[^\x00-\x7f\ufffd]")


def decode_text(body: bytes) -> str:
    """Decodes text by its byte order mark, else as UTF-16, UTF-32, EBCDIC or UTF-8, else by detection.

    Raises:
        ExtractionError: `unreadable` if the bytes are not text in any encoding.
    """
    if certain := _certain_encoding(body):
        text = body.decode(certain, "replace")
        return text.replace("\x85", "\n") if certain in ("cp037", "cp500") else text
    likely = likely_encodings(body)
    if not likely:
        # If nearly all of it is ASCII, a few unreadable bytes are no reason to lose the rest.
        text = body.decode("utf-8", "replace")
        if text.isascii() or sum(map(str.isascii, text)) > 0.95 * len(text):
            return text
        raise ExtractionError("unreadable", "The bytes are not text in any known encoding.")
    text = _without_terminal_codes(body.decode(likely[0], "replace"))
    if _has_many_controls(text):
        raise ExtractionError("unreadable", "The bytes are not text: too many control characters.")
    return text


def decoding_doubt(body: bytes) -> float:
    """Returns the share of characters outside ASCII that another encoding, as likely, reads otherwise.

    It is 0 where the encoding is certain, where none is as likely as the one that `decode_text` takes, where
    there are enough such characters to tell, and where they are few in a long text. Of a few words in Latin
    letters several encodings are as likely: each reads the accents as letters of other languages.
    """
    if _certain_encoding(body):
        return 0.0
    likely = likely_encodings(body)
    if len(likely) < 2:
        return 0.0
    first, *others = (body[:_SAMPLE_BYTES].decode(name, "replace") for name in likely)
    foreign = len(first) - sum(map(str.isascii, first))
    if foreign > _FEW_FOREIGN_CHARS:
        return 0.0
    doubtful = max(_different_chars(first, other) for other in others)
    return min(1.0, doubtful / max(1, foreign)) if doubtful > _MIN_DOUBTFUL_SHARE * len(first) else 0.0


def _different_chars(first: str, other: str) -> int:
    return sum(a != b for a, b in zip(first, other, strict=False)) + abs(len(first) - len(other))


def _without_terminal_codes(text: str) -> str:
    """Returns a text without the codes by which a terminal shows colours, bold and underlined letters.

    nroff writes bold as `x`, backspace, `x`, and underlined as `_`, backspace, `x`; each character that was
    struck over is left out. Colours are escape sequences (ECMA-48).
    """
    if "\x1b" in text:
        text = _ESCAPE_SEQUENCE.sub("", text)
    return _STRUCK_OVER.sub("", text) if "\b" in text else text


def looks_like_ebcdic(body: bytes) -> bool:
    """Returns whether bytes look like EBCDIC text: its letters, digits, signs and spaces, and no others."""
    sample = body[:_HEAD_BYTES]
    if sample.count(b"\x40") < 0.05 * len(sample) or b"\x20" in sample:
        return False
    cuts = range(4) if len(body) > len(sample) else (0,)  # the sample may end within a character
    if any(_is_in(sample[: len(sample) - cut], "utf-8") for cut in cuts):
        return False  # a few bytes can be both
    letters = len(sample) - len(sample.translate(None, _EBCDIC_LETTERS))
    return letters >= _MIN_EBCDIC_LETTER_SHARE * len(sample) and len(
        sample.translate(None, _EBCDIC)
    ) < 0.1 * len(sample)


def text_encoding(body: bytes) -> str | None:
    """Returns the encoding that `decode_text` takes; None for bytes that are text in none."""
    return _certain_encoding(body) or next(iter(likely_encodings(body)), None)


def looks_wide(body: bytes) -> bool:
    """Returns whether bytes look like text in UTF-16 or UTF-32, with a mark or without."""
    return body.startswith(tuple(mark for mark, _ in _BOMS[1:])) or _unmarked_wide(body) is not None


def _certain_encoding(body: bytes) -> str | None:
    """Returns the encoding that a mark, NULs, escapes or a mainframe's spaces show; None where none does."""
    for mark, encoding in _BOMS:
        if body.startswith(mark):
            return encoding
    if wide := _unmarked_wide(body):
        return wide
    if looks_like_ebcdic(body):
        signs_of_500, signs_of_037 = (
            len(signs.findall(body[:_SAMPLE_BYTES])) for signs in (_SIGNS_OF_500, _SIGNS_OF_037)
        )
        return "cp500" if signs_of_500 > signs_of_037 else "cp037"
    if any(escape in body for escape in _ESCAPES):
        return next(
            (name for name in ("iso2022_jp", "iso2022_jp_2", "iso2022_kr") if _is_in(body, name)), None
        )
    return None


def _unmarked_wide(body: bytes) -> str | None:
    """Returns the name of UTF-16 or UTF-32 without a mark, or None.

    Hardly any other bytes are UTF-32. UTF-16 is told by its characters' upper halves: they are NUL in ASCII,
    and a few control characters in any other alphabet. Chinese, Japanese and Korean are told by their
    punctuation and syllables among nothing but their own characters.
    """
    sample = body[:_HEAD_BYTES]
    if len(body) % 2 or len(body) < 4 or not sample.translate(None, _PRINTED_ASCII):
        return None
    if len(body) % 4 == 0 and len(body) >= 8 and b"\x00" in sample:
        for name in ("utf-32-le", "utf-32-be"):
            if _is_in(sample, name) and not _has_many_controls(sample.decode(name)):
                return name
    pairs = len(sample) // 2
    even, odd = sample[0::2], sample[1::2]
    for name, high, low in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        blocks = sorted((high.count(block) for block in range(32)), reverse=True)
        if low.count(0) < 0.15 * pairs and (
            high.count(0) > 0.7 * pairs or sum(blocks[:_BLOCKS_OF_A_TEXT]) > 0.95 * pairs
        ):
            return name
    return next((name for name in ("utf-16-le", "utf-16-be") if _is_east_asian(sample, name)), None)


def _is_east_asian(sample: bytes, encoding: str) -> bool:
    """Whether bytes are no UTF-8, and in an encoding text in Chinese, Japanese or Korean."""
    text = sample.decode(encoding, "replace")
    if len(EAST_ASIAN.findall(text)) < _MIN_EAST_ASIAN_SHARE * len(text):
        return False
    if len(_EAST_ASIAN_COMMON.findall(text)) < _MIN_COMMON_SHARE * len(text):
        return False
    narrow = sample.decode("utf-8", "replace")
    return "\ufffd" in narrow[:-3] or _has_many_controls(narrow)


def likely_encodings(body: bytes) -> list[str]:
    """Returns the likeliest encoding, and those that are as likely; [] for bytes that are no text.

    UTF-8 is certain where it is valid, or nearly all of it is. Else chardet compares pairs of letters, for
    which a few accents are too little: where letters of ASCII stand beside them, the script is Latin.
    """
    if _is_in(body, "utf-8") or _is_mostly_utf8(body):
        return ["utf-8"]
    return list(_likely_by_letters(_STRUCK_OVER_BYTES.sub(b"", body[:_SAMPLE_BYTES])))


@lru_cache(maxsize=1)  # a text is decoded, and then asked for its doubt
def _likely_by_letters(sample: bytes) -> tuple[str, ...]:
    """Returns the likeliest encoding of a sample that is not UTF-8, and those that are as likely."""
    from chardet import detect_all

    high = len(sample.translate(None, _ASCII))
    if len(_TYPOGRAPHY.findall(sample)) >= _MIN_TYPOGRAPHY_SHARE * high:
        return ("cp1252",)  # which all encodings of Windows have in the same places
    found = detect_all(
        sample,
        ignore_threshold=True,
        compat_names=False,
        include_encodings=("utf-8", *(LATIN_ENCODINGS if _is_latin(sample) else _ENCODINGS)),
        no_match_encoding="utf-8",
    )
    scores = [
        (_SUPERSETS.get(each["encoding"], each["encoding"]), each["confidence"])
        for each in found
        if each["encoding"] and each["encoding"] != "utf-8"
    ]
    likely = list(dict.fromkeys(name for name, score in scores if score > scores[0][1] - _AS_LIKELY))
    if "cp1252" in likely and scores[0][1] < _HARDLY_KNOWN:
        likely.sort(key=lambda name: name != "cp1252")  # which most files in Latin letters are in
    return tuple(likely)


def _is_latin(sample: bytes) -> bool:
    """Whether the bytes above 127 are accents and signs in a text of Latin letters.

    They are fewer than the letters of ASCII, and nearly all stand alone, as in `à` and `été`, or in words
    with at least as many letters. A word in another alphabet is of nothing else, and a character of Chinese
    or Japanese that has a letter's byte begins with another.
    """
    sample = _APOSTROPHE.sub(b"'", sample)
    high = len(sample.translate(None, _ASCII))
    if len(sample) - len(sample.translate(None, _ASCII_LETTERS)) <= high:
        return False
    latin = 0
    for word in _FOREIGN_WORD.findall(sample):
        foreign = len(word.translate(None, _ASCII))
        if 2 * foreign <= len(word) or not _ADJACENT.search(word):
            latin += foreign
    return latin >= _MIN_LATIN_SHARE * high


def _is_in(body: bytes, encoding: str) -> bool:
    try:
        body.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _is_mostly_utf8(body: bytes) -> bool:
    """Whether bytes are UTF-8 with a few damaged ones: nearly all that are not ASCII are valid."""
    text = body.decode("utf-8", "replace")
    return len(_MULTI_BYTE.findall(text)) > 20 * text.count("\ufffd")


def _has_many_controls(text: str) -> bool:
    sample = text[: 4 * _SAMPLE_BYTES]
    if _INFO_NODE_END in sample:
        sample = sample.translate(_INFO_CONTROLS)
    return len(CONTROL_CHARACTERS.findall(sample)) > _MAX_CONTROL_SHARE * len(sample)
