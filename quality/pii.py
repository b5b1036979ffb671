"""Finds personal data in text: patterns propose candidates, and a check of their kind confirms them.

A pattern alone finds too much in technical text: a version number is shaped like an address, and an order
number like a payment card. A candidate counts only when it also passes the check of its kind (a checksum, a
numbering plan, a reserved range). Names and street addresses have no such check and are not looked for; nor
are addresses that are spelled out to escape robots ("ada at example dot com").
"""

import ipaddress
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import phonenumbers
from stdnum import iban, luhn
from stdnum.us import ssn

Span = tuple[int, int]


@dataclass(frozen=True)
class PiiMatch:
    """One piece of personal data: `text[start:end]`, offsets in characters."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class PiiDetector:
    """One kind of personal data.

    Attributes:
        kind: Its name.
        pattern: Proposes candidates. It begins with a literal or a character class, which Python's regex
            engine skips to at C speed. A leading look-behind would switch that off, so the look-behind for
            what must come before a candidate stands after its first character.
        span: Returns the candidate's true span, or None when it fails the check of its kind.
    """

    kind: str
    pattern: re.Pattern[str]
    span: Callable[[re.Match[str]], Span | None]


# RFC 5321 limits the local part to 64 characters; quoted local parts are not worth their false matches.
_LOCAL_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._%+'-]{0,62}[A-Za-z0-9_+-])?\Z")
# RFC 2606 and RFC 6761 set these aside for documentation: nobody's address.
_RESERVED_DOMAIN = re.compile(r"(?:^|\.)(?:example(?:\.(?:com|org|net))?|test|invalid|local|localhost)\Z")
# `icon@2x.png`, `logo@dark.svg`: a file name, not a domain.
_FILE_SUFFIXES = frozenset(
    {"png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "py", "html", "json", "md"}
)


def _email(match: re.Match[str]) -> Span | None:
    at = match.start()
    local = _LOCAL_PART.search(match.string, max(0, at - 64), at)
    domain = match.group(1).lower()
    if local is None or _RESERVED_DOMAIN.search(domain) or domain.rpartition(".")[2] in _FILE_SUFFIXES:
        return None
    return local.start(), match.end()


def _iban(match: re.Match[str]) -> Span | None:
    if match.string[match.end() : match.end() + 1].isalnum():
        return None
    # The pattern runs on into following words in capitals, so the number may end at any space. Its country
    # fixes its length: no more than one of these ends makes it valid.
    ends = (match.end(), *(match.start(1) + at for at, char in enumerate(match.group(1)) if char == " "))
    valid = (end for end in ends if iban.is_valid(match.string[match.start() : end]))
    return next(((match.start(), end) for end in valid), None)


# ISO/IEC 7812: issuer prefixes and lengths of the large card schemes. The Luhn digit alone lets a tenth of
# all long numbers through.
_CARD = re.compile(
    r"4\d{12}(?:\d{3}){0,2}"
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}"
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12}|62\d{14,17}"
)


def _card(match: re.Match[str]) -> Span | None:
    digits = re.sub(r"[ -]", "", match.group())
    return match.span() if _CARD.fullmatch(digits) and luhn.is_valid(digits) else None


def _us_ssn(match: re.Match[str]) -> Span | None:
    return match.span() if ssn.is_valid(match.group().replace(" ", "-")) else None


# What stands before a version: `==99.0.41.21`, `~=99.0.41.21`, `version 99.0.41.21`, `pkg-99.0.41.21`.
_VERSION_CUE = re.compile(
    r"(?:(?:\b(?:version|release|build|ver|rev)[.:]?|[=<>~!]=)\s*|[~^@_-]|(?<!/)/)\Z", re.IGNORECASE
)


def _ipv4(match: re.Match[str]) -> Span | None:
    octets = match.group().split(".")
    if any((len(octet) > 1 and octet[0] == "0") or int(octet) > 255 for octet in octets):
        return None
    # Three numbers of four below 20: one public address in 500, and nearly every four-part version.
    if sum(int(octet) < 20 for octet in octets) >= 3:
        return None
    if not ipaddress.IPv4Address(match.group()).is_global:
        return None
    cue = _VERSION_CUE.search(match.string, max(0, match.start() - 12), match.start())
    return None if cue else match.span()


def _is_valid_phone(number: str, region: str | None) -> bool:
    """Whether a numbering plan has the number: its country's own when `region` is None, else the region's."""
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


_FRACTION = re.compile(r"\+[0-9]+\.[0-9]+")  # `+1.2345678901`


def _international_phone(match: re.Match[str]) -> Span | None:
    number = match.group()
    return match.span() if not _FRACTION.fullmatch(number) and _is_valid_phone(number, None) else None


_COUNTRY = r"(?:(?<![\w.+-])(?:\+|00)?1[ .-]?)?"
_BEFORE_AREA_CODE = re.compile(_COUNTRY + r"\Z")
_BEFORE_BRACKETED_AREA_CODE = re.compile(_COUNTRY + r"\(\Z")


def _nanp_phone(match: re.Match[str]) -> Span | None:
    pattern = _BEFORE_BRACKETED_AREA_CODE if ")" in match.group() else _BEFORE_AREA_CODE
    prefix = pattern.search(match.string, max(0, match.start() - 7), match.start())
    if prefix is None:
        return None
    start = prefix.start()
    before = match.string[max(0, start - 2) : start]
    # Part of something longer: an identifier, a path, a column of numbers.
    if re.search(r"[\w.+/#$-]\Z|[0-9] \Z", before):
        return None
    # Nothing but a telephone number has an extension: it counts even where no such area code is known.
    return (start, match.end()) if match["extension"] or _is_valid_phone(match.group(), "US") else None


PII_DETECTORS: tuple[PiiDetector, ...] = (
    # In order of trust: of two matches that overlap, the earlier detector's counts.
    PiiDetector(
        "email",
        re.compile(r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24})(?![\w-])"),
        _email,
    ),
    PiiDetector(
        "iban",
        re.compile(r"[A-Z](?<!\w[A-Z])[A-Z][0-9]{2}((?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)"),
        _iban,
    ),
    PiiDetector(
        "payment_card",
        re.compile(r"[2-6](?<![\w.+-][2-6])[0-9]{3}(?:[ -]?[0-9]{2,6}){2,4}(?![\w-]|\.[0-9])"),
        _card,
    ),
    PiiDetector(
        "us_ssn",
        re.compile(r"[0-8](?<![\w.+-][0-8])[0-9]{2}([ -])[0-9]{2}\1[0-9]{4}(?![\w-]|\.[0-9])"),
        _us_ssn,
    ),
    PiiDetector(
        "ipv4",
        re.compile(r"[0-9](?<![\w.+][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![\w-]|\.[0-9])"),
        _ipv4,
    ),
    PiiDetector(
        "phone",
        # ITU-T E.164: a plus, then eight to fifteen digits.
        re.compile(r"\+(?<![\w.+/-]\+)[1-9](?:[ .()-]{0,2}[0-9]){7,14}(?![\w-]|[ .][0-9])"),
        _international_phone,
    ),
    PiiDetector(
        "phone",
        # North American numbering plan: area code and exchange begin with 2 to 9, an extension may follow.
        # Groups must be apart: ten digits in one run are an identifier more often than a number. In other
        # countries' national forms, almost any run of digits would be some country's number.
        re.compile(
            r"[2-9][0-9]{2}(?:\)[ .-]{0,2}[2-9][0-9]{2}[ .-]|([ .-])[2-9][0-9]{2}\1)[0-9]{4}"
            r"(?P<extension> ?(?:x|ext\.?) ?[0-9]{1,6})?(?![\w-]|[ .][0-9])"
        ),
        _nanp_phone,
    ),
)


def find_pii(text: str) -> list[PiiMatch]:
    """Returns the personal data in a text, in the order of the text; no two matches overlap.

    Args:
        text: Any text. Only ASCII digits and letters take part in a match.
    """
    found: list[PiiMatch] = []  # in order of start, and so, as none overlap, of end
    for detector in PII_DETECTORS:
        for candidate in detector.pattern.finditer(text):
            span = detector.span(candidate)
            if span is None:
                continue
            place = bisect_left(found, span[1], key=lambda match: match.start)
            if place == 0 or found[place - 1].end <= span[0]:
                found.insert(place, PiiMatch(detector.kind, *span))
    return found


def count_pii(texts: Iterable[str]) -> npt.NDArray[np.int32]:
    """Returns how many pieces of personal data each text has, as int32."""
    return np.fromiter((len(find_pii(text)) for text in texts), dtype=np.int32)
