"""Personal data in text: what looks like it, and passes the check that its kind has.

A pattern alone finds too much in technical text: a version number is shaped like an address, an order
number like a payment card. So every pattern only proposes, and a candidate counts when it also passes
its kind's own check (a checksum, a numbering plan, a reserved range). Names and street addresses have no
such check and are not looked for; nor are addresses spelled out to escape robots ("ada at example dot com").
"""

import ipaddress
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Span = tuple[int, int]


@dataclass(frozen=True)
class Match:
    """One piece of personal data: `text[start:end]`, offsets in characters."""

    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Detector:
    """One kind of personal data.

    Attributes:
        kind: Its name.
        pattern: Proposes candidates. It begins with a literal or a character class, which Python's regex
            engine skips to at C speed; a leading look-behind would switch that off, so what must come
            before a candidate is written as a look-behind after its first character.
        span: The candidate's true span, or None when it fails the kind's check.
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


# ISO 13616: the length of an IBAN by its country.
_IBAN_LENGTH = {
    code: int(length)
    for code, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18FO18FR27"
        "GB22GE22GI23GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27"
        "MD24ME22MK19MR27MT31MU30NL18NO15PK24PL28PS29PT25QA29RO24RS22SA24SC31SD18SE24SI19SK24SM27ST25SV28"
        "TL23TN24TR26UA29VA22VG24XK20",
    )
}


def _iban(match: re.Match[str]) -> Span | None:
    length = _IBAN_LENGTH.get(match.group()[:2], 0)
    # The pattern runs on into a following word in capitals: only the country's own length is read.
    places = [place for place, char in enumerate(match.group()) if char != " "][:length]
    if not length or len(places) < length:
        return None
    end = match.start() + places[-1] + 1
    if match.string[end : end + 1].isalnum():
        return None
    compact = match.string[match.start() : end].replace(" ", "")
    # ISO 7064 MOD 97-10: the check digits moved to the end, letters as 10 to 35, remainder 1.
    number = int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4]))
    return (match.start(), end) if number % 97 == 1 else None


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
    if not _CARD.fullmatch(digits):
        return None
    # Luhn (ISO/IEC 7812-1, annex B): every second digit from the right doubled, its digits summed.
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return match.span() if (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0 else None


def _us_ssn(match: re.Match[str]) -> Span | None:
    area, _, group, serial = match.groups()
    # Social Security Administration: never issued.
    never = area in {"000", "666"} or area >= "900" or group == "00" or serial == "0000"
    return None if never else match.span()


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


# `+2024-01-02 10:00`: an added line of a patch. `+1.23456789`: a fraction.
_NOT_A_NUMBER = re.compile(r"\+(?:[12][0-9]{3}-[0-9]{2}-[0-9]{2}|[0-9]+\.[0-9]+\Z)")


def _international_phone(match: re.Match[str]) -> Span | None:
    number = match.group()
    # E.164 has eight digits at the least in practice; with no separator at all, ten, or every
    # "+12345678" of a table would do.
    if _NOT_A_NUMBER.match(number) or (number[1:].isdigit() and len(number) < 11):
        return None
    return match.span()


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
    return start, match.end()


DETECTORS: tuple[Detector, ...] = (
    # In order of trust: where two overlap, the earlier one holds.
    Detector(
        "email",
        re.compile(r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24})(?![\w-])"),
        _email,
    ),
    Detector(
        "iban",
        re.compile(r"[A-Z](?<!\w[A-Z])[A-Z][0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?"),
        _iban,
    ),
    Detector(
        "payment_card",
        re.compile(r"[2-6](?<![\w.+-][2-6])[0-9]{3}(?:[ -]?[0-9]{2,6}){2,4}(?![\w-]|\.[0-9])"),
        _card,
    ),
    Detector(
        "us_ssn",
        re.compile(r"([0-8](?<![\w.+-][0-8])[0-9]{2})([ -])([0-9]{2})\2([0-9]{4})(?![\w-]|\.[0-9])"),
        _us_ssn,
    ),
    Detector(
        "ipv4",
        re.compile(r"[0-9](?<![\w.+][0-9])[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![\w-]|\.[0-9])"),
        _ipv4,
    ),
    Detector(
        "phone",
        # ITU-T E.164: a plus, then eight to fifteen digits.
        re.compile(r"\+(?<![\w.+/-]\+)[1-9](?:[ .()-]{0,2}[0-9]){7,14}(?![\w-]|[ .][0-9])"),
        _international_phone,
    ),
    Detector(
        "phone",
        # North American numbering plan: area code and exchange begin with 2 to 9, an extension may follow.
        # Groups must be apart: ten digits in one run are an identifier more often than a number. Other
        # national forms have no check that would tell them from any number.
        re.compile(
            r"[2-9][0-9]{2}(?:\)[ .-]{0,2}[2-9][0-9]{2}[ .-]|([ .-])[2-9][0-9]{2}\1)[0-9]{4}"
            r"(?: ?(?:x|ext\.?) ?[0-9]{1,6})?(?![\w-]|[ .][0-9])"
        ),
        _nanp_phone,
    ),
)


def find_pii(text: str) -> list[Match]:
    """Finds personal data, in the order of the text, no two overlapping.

    Args:
        text: Any text; only ASCII digits and letters take part in a match.

    Returns:
        Each match with its kind and its offsets in characters.
    """
    found: list[Match] = []  # in order of start, and so, as none overlap, of end
    for detector in DETECTORS:
        for candidate in detector.pattern.finditer(text):
            span = detector.span(candidate)
            if span is None:
                continue
            place = bisect_left(found, span[1], key=lambda match: match.start)
            if place == 0 or found[place - 1].end <= span[0]:
                found.insert(place, Match(detector.kind, *span))
    return found


def count_pii(texts: Iterable[str]) -> npt.NDArray[np.int32]:
    """Counts the personal data in each text.

    Args:
        texts: The texts.

    Returns:
        One count a text, int32.
    """
    return np.fromiter((len(find_pii(text)) for text in texts), dtype=np.int32)
