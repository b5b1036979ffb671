"""Replaces the escapes of roff: characters (groff_char(7)), strings, and those that only set type."""

import re
import unicodedata
from collections.abc import Mapping

_LATIN, _GREEK = "abgdezyhiklmncoprstufxqw", "αβγδεζηθικλμνξοπρστυφχψω"
_SPECIAL = {
    **{"em": "—", "en": "–", "hy": "-", "-": "-", "mi": "−", "pl": "+", "bu": "•", "ci": "○", "sq": "□"},
    **{"aq": "'", "cq": "’", "oq": "‘", "dq": '"', "lq": "“", "rq": "”", "Bq": "„", "bq": "‚", "Fo": "«"},
    **{"Fc": "»", "fo": "‹", "fc": "›", "ha": "^", "ti": "~", "ga": "`", "aa": "´", "rs": "\\", "sl": "/"},
    **{"ba": "|", "br": "|", "bv": "|", "or": "|", "ul": "_", "ru": "_", "at": "@", "sh": "#", "Do": "$"},
    **{"lB": "[", "rB": "]", "lC": "{", "rC": "}", "la": "⟨", "ra": "⟩", "co": "©", "rg": "®", "tm": "™"},
    **{"de": "°", "ct": "¢", "Po": "£", "Ye": "¥", "Eu": "€", "eu": "€", "sc": "§", "ps": "¶", "dg": "†"},
    **{"dd": "‡", "mu": "×", "tmu": "×", "di": "÷", "+-": "±", "<=": "≤", ">=": "≥", "!=": "≠", "==": "≡"},
    **{"->": "→", "<-": "←", "<>": "↔", "ua": "↑", "da": "↓", "rA": "⇒", "lA": "⇐", "if": "∞", "12": "½"},
    **{"14": "¼", "34": "¾", "S1": "¹", "S2": "²", "S3": "³", "ss": "ß", "ae": "æ", "AE": "Æ", "oe": "œ"},
    **{"OE": "Œ", "/o": "ø", "/O": "Ø", "/l": "ł", "/L": "Ł", "oa": "å", "oA": "Å", "-D": "Ð", "Sd": "ð"},
    **{"Tp": "þ", "TP": "Þ", ".i": "ı", "r!": "¡", "r?": "¿", "~~": "≈", "~=": "≅", "ap": "∼", "no": "¬"},
    **{"tno": "¬", "fm": "′", "sd": "″", "mc": "µ", "OK": "✓", "sr": "√", "lz": "◊", "eq": "=", "Ao": "Å"},
    **{"fi": "fi", "fl": "fl", "ff": "ff", "Fi": "ffi", "Fl": "ffl", "es": "∅", "mo": "∈", "md": "⋅"},
    **{"Lq": "“", "Rq": "”", "Le": "≤", "Ge": "≥", "Lt": "<", "Gt": ">", "Pm": "±", "If": "∞", "Ba": "|"},
    **{"Ne": "≠", "Am": "&", "Na": "NaN", "Pi": "π", "R": "®", "Tm": "™"},  # from "Lq" on: those of mdoc
    **{f"*{latin}": greek for latin, greek in zip(_LATIN, _GREEK, strict=True)},
    **{f"*{latin.upper()}": greek.upper() for latin, greek in zip(_LATIN, _GREEK, strict=True)},
}  # fmt: skip
_ACCENTS = {
    **{"'": "\u0301", "`": "\u0300", "^": "\u0302", "~": "\u0303", ":": "\u0308", ",": "\u0327"},
    **{"v": "\u030c", "a-": "\u0304", "ab": "\u0306", "a.": "\u0307", "o": "\u030a"},
}
_NAME = r"(?:\((?P<{0}two>..)|\[(?P<{0}long>[^\]\n]{{0,99}})\]|(?P<{0}one>.))"
_ESCAPE = re.compile(
    rf"""\\(?:
    \*{_NAME.format("s")}                                  # a string
    | \((?P<two>..) | \[(?P<long>[^\]\n]{{0,99}})\]        # a character
    | C'(?P<quoted>[^'\n]{{0,99}})'
    | N'(?P<code>\d{{1,5}})'
    | Z(?P<delimiter>['"])(?P<kept>.{{0,200}}?)(?P=delimiter)
    | [fFmMgkYn](?:\(..|\[[^\]\n]{{0,99}}\]|[+-]?.)        # fonts, colours, registers
    | s(?:\[[^\]\n]{{0,9}}\]|[+-]?\(\d\d|[+-]?'[^'\n]{{0,9}}'|[+-]\d|[1-3]\d|\d)
    | [hvwlLoXABDRSxHb](?P<mark>[^\w\s]).{{0,200}}?(?P=mark)   # movements, widths, lines
    | (?P<space>[ ~0])
    | (?P<tab>t)
    | (?P<nothing>[\^|&%:/,)dur{{}}p!?ac\n])
    | (?P<backslash>[e\\])
    | (?P<itself>.)
    )?""",
    re.VERBOSE | re.DOTALL,
)
_UNICODE = re.compile(r"u([0-9A-F]{4,6}(?:_[0-9A-F]{4,6})*)")
_LAST_CODE_POINT = 0x10FFFF


def plain_text(source: str, strings: Mapping[str, str]) -> str:
    """Returns roff source as it is printed, without fonts and movements.

    Args:
        source: A text line or an argument.
        strings: The strings that the page defined, already plain; those of mdoc(7) are built in.
    """
    if "\\" not in source:
        return source

    def shown(found: re.Match[str]) -> str:
        name = found["stwo"] or found["slong"] or found["sone"]
        if name is not None:
            return strings.get(name, _SPECIAL.get(name, ""))
        name = found["two"] or found["long"] or found["quoted"]
        if name is not None:
            return _special_character(name)
        if found["code"]:
            return _character(int(found["code"]))
        if found["kept"]:
            return found["kept"]
        if found["space"]:
            return " "
        if found["tab"]:
            return "\t"
        return "\\" if found["backslash"] else found["itself"] or ""

    return _ESCAPE.sub(shown, source)


def _special_character(name: str) -> str:
    r"""Returns the character of a name, as in `\(em`, `\[u2014]` or `\[:a]`; `""` if unknown."""
    if name in _SPECIAL:
        return _SPECIAL[name]
    if found := _UNICODE.fullmatch(name):
        return "".join(_character(int(each, 16)) for each in found[1].split("_"))
    if name.startswith("char") and name[4:].isdecimal() and len(name) < 10:
        return _character(int(name[4:]))
    letter, accent = name[1:], _ACCENTS.get(name[:1])
    if accent and len(letter) == 1 and letter.isalpha():
        return unicodedata.normalize("NFC", letter + accent)
    return ""


def _character(code: int) -> str:
    return chr(code) if code <= _LAST_CODE_POINT and not 0xD800 <= code < 0xE000 else ""
