"""Sentences altered so that their text no longer says them, and sentences restated."""

import random
import re
from collections.abc import Callable, Sequence

from retrieval.support.lexicon import FUNCTION_WORDS
from retrieval.support.units import NUMBER_WORDS, UNITS

Rewrite = Callable[[str, random.Random, Sequence[str]], str | None]
"""Returns a sentence rewritten, or None where it has nothing to rewrite; the texts' names are for others."""

_NUMBER = re.compile(r"(?<![\w.,-])\d[\d,.]*(?<![,.])(?![\w-]|\.\d)")
_NUMBER_WORD = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|twelve|twenty)\b(?! hundred)", re.I
)
_WITH_UNIT = re.compile(r"(?<![\w.,-])(\d[\d,.]*)([ -]?)([^\W\d_]+|%)(?!\w)")
_AUXILIARY = re.compile(
    r"\b(is|are|was|were|can|may|must|should|will|shall|could|would|does|do|did|has been|have been)"
    r"\b(?! not\b| only\b| just\b| simply\b|['’])"
)
_NEGATED = re.compile(
    r"\b(is|are|was|were|can|may|must|should|will|shall|could|would|do|does|did) not\b|\bcannot\b"
)
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w-]*[a-z]\w*(?: [A-Z][\w-]*[a-z]\w*)*|(?<=[a-z,] )[A-Z]{2,}(?![\w-])")
_FIRST = re.compile(r"[A-Z][\w-]*(?: [A-Z][\w-]*)*")
_MODAL = re.compile(r"\b(can|could|may|might|must|should|shall|can't|cannot)\b(?! not\b| never\b| no\b|['’])")
_OTHER_MODALS = {
    **dict.fromkeys(("can", "could", "may", "might"), ("must", "should")),
    "must": ("can", "may", "should"),
    "shall": ("may", "can", "should"),
    "should": ("must", "can", "may"),
}
_DIRECTIONS = (
    "increase decrease|increases decreases|increased decreased|increasing decreasing|before after|"
    "more less|up down|enable disable|enables disables|enabled disabled|above below|first last|"
    "maximum minimum|higher lower|high low|larger smaller|large small|longer shorter|start stop|"
    "starts stops|allow forbid|allows forbids|allowed forbidden|include exclude|includes excludes|"
    "included excluded|add remove|adds removes|added removed|open closed|most least|always never|"
    "greater smaller|earlier later|early late|previous next|positive negative|true false|"
    "internal external|inside outside|upper lower|better worse|common rare|older younger|gain loss|"
    "accept reject|accepted rejected|success failure|raise lower|raised lowered|over under|often rarely|"
    "strong weak|fast slow|north south|east west"
)
_OPPOSITE = {
    word: other for pair in _DIRECTIONS.split("|") for word, other in (pair.split(), pair.split()[::-1])
}
_DIRECTION = re.compile(rf"\b(?:{'|'.join(sorted(_OPPOSITE, key=len, reverse=True))})\b")


def _replaced(sentence: str, found: re.Match[str], new: str) -> str:
    return sentence[: found.start()] + new + sentence[found.end() :]


def _any(pattern: re.Pattern[str], sentence: str, chance: random.Random) -> re.Match[str] | None:
    found = list(pattern.finditer(sentence))
    return chance.choice(found) if found else None


def _number(sentence: str, chance: random.Random, names: Sequence[str]) -> str | None:
    if found := _any(_NUMBER, sentence, chance):
        digits = found[0]
        place = chance.choice([place for place, sign in enumerate(digits) if sign.isdigit()])
        first = place == 0
        others = [digit for digit in "0123456789" if digit != digits[place] and not (first and digit == "0")]
        return _replaced(sentence, found, digits[:place] + chance.choice(others) + digits[place + 1 :])
    if found := _any(_NUMBER_WORD, sentence, chance):
        others = [word for word in ("three", "four", "six", "nine", "eleven") if word != found[0].lower()]
        return _replaced(sentence, found, chance.choice(others))
    return None


def _unit(sentence: str, chance: random.Random, names: Sequence[str]) -> str | None:
    measured = [found for found in _WITH_UNIT.finditer(sentence) if found[3] in UNITS and found[3] != "a"]
    if not measured:
        return None
    found = chance.choice(measured)
    kind, size = UNITS[found[3]]
    symbol = len(found[3]) <= 2
    others = [
        name
        for name, (other, factor) in UNITS.items()
        if name.isascii()
        and (len(name) <= 2) == symbol
        and name.islower() == found[3].islower()
        and (
            (other == kind and factor != size)
            or (kind == "months" and other == "time")
            or (found[3] == "%" and other == "mass")
        )
        and (name.endswith("s") == found[3].endswith("s") or symbol)
    ]
    return _replaced(sentence, found, found[1] + found[2] + chance.choice(others)) if others else None


def _negation(sentence: str, chance: random.Random, names: Sequence[str]) -> str | None:
    if found := _any(_NEGATED, sentence, chance):
        return _replaced(sentence, found, found[1] or "can")
    if found := _any(_AUXILIARY, sentence, chance):
        first, _, rest = found[0].partition(" ")
        return _replaced(sentence, found, f"{first} not{' ' + rest if rest else ''}")
    return None


def _entity(sentence: str, chance: random.Random, names: Sequence[str]) -> str | None:
    first = _FIRST.match(sentence)
    begins = first if first and first[0] in names else None
    found = _any(_NAME, sentence, chance) or begins
    words = set(re.findall(r"\w+", sentence.lower()))
    others = [name for name in names if not set(name.lower().split()) & words]
    return _replaced(sentence, found, chance.choice(others)) if found and others else None


def _direction(sentence: str, chance: random.Random, names: Sequence[str]) -> str | None:
    found = _any(_DIRECTION, sentence, chance)
    return _replaced(sentence, found, _OPPOSITE[found[0]]) if found else None


def _modality(sentence: str, chance: random.Random, names: Sequence[str]) -> str | None:
    found = _any(_MODAL, sentence, chance)
    others = _OTHER_MODALS.get(found[0]) if found else None
    return _replaced(sentence, found, chance.choice(others)) if found and others else None


ALTERATIONS: dict[str, Rewrite] = {
    "number": _number,
    "unit": _unit,
    "negation": _negation,
    "entity": _entity,
    "direction": _direction,
    "modality": _modality,
}
"""What makes a sentence say something else."""

_ASIDE = re.compile(r" \([^()]{3,}\)")
_RELATIVE = re.compile(r", (?:which|who|where|such as|including)\b[^,]*(?=[,.])")
_LAST_CLAUSE = re.compile(r"(?:[,;] | )(?:and|but|because|so|although|while|since) [^,;]*\.\Z")
_CONDITION = re.compile(
    r"([A-Z][^,;]*?),? ((?:if|when|because|unless|after|before|while|although|since) [^,;]*)\.\Z"
)
_INTRODUCTION = re.compile(r"((?:In|On|At|For|During|After|Before|With|If|When|By|From) [^,;]*), ([^;]*)\.\Z")
_WORDS = {value: word for word, value in reversed(NUMBER_WORDS.items()) if value > 1}
_SPELLED = {
    **{
        "s": "seconds",
        "ms": "milliseconds",
        "min": "minutes",
        "h": "hours",
        "kg": "kilograms",
        "mg": "milligrams",
    },
    **{
        "g": "grams",
        "km": "kilometers",
        "cm": "centimeters",
        "mm": "millimeters",
        "m": "meters",
        "%": "percent",
    },
    **{
        "MB": "megabytes",
        "GB": "gigabytes",
        "KB": "kilobytes",
        "ml": "milliliters",
        "Hz": "hertz",
        "MHz": "megahertz",
    },
}
_SYMBOLS = {word: symbol for symbol, word in _SPELLED.items()} | {
    word[:-1]: symbol for symbol, word in _SPELLED.items() if word[-1] == "s"
}
_NOT_AFTER = ("is", "are", "was", "were", "do", "does", "did", "should", "could", "would", "has", "have")
_CONTRACTIONS = (
    *(("cannot", "can't"), ("can not", "can't"), ("will not", "won't"), ("it is", "it's"), ("It is", "It's")),
    *(
        (f"{word} not", f"{word}n't")
        for word in [
            "is",
            "are",
            "was",
            "were",
            "do",
            "does",
            "did",
            "should",
            "could",
            "would",
            "has",
            "have",
        ]
    ),
)


def _shortened(sentence: str, chance: random.Random, names: Sequence[str]) -> str | None:
    found = _any(_ASIDE, sentence, chance) or _any(_RELATIVE, sentence, chance)
    if found:
        return _long_enough(_replaced(sentence, found, ""))
    last = _LAST_CLAUSE.search(sentence)
    return _long_enough(sentence[: last.start()] + ".") if last and sentence.count(" either ") == 0 else None


def _long_enough(sentence: str) -> str | None:
    return sentence if len(sentence.split()) >= 5 else None


def _reordered(sentence: str, chance: random.Random, names: Sequence[str]) -> str | None:
    if found := _CONDITION.match(sentence):
        return f"{found[2][0].upper()}{found[2][1:]}, {_lowered(found[1])}."
    if found := _INTRODUCTION.match(sentence):
        return f"{found[2][0].upper()}{found[2][1:]} {_lowered(found[1])}."
    return None


def _lowered(clause: str) -> str:
    common = clause.split()[0].lower() in FUNCTION_WORDS
    return clause[0].lower() + clause[1:] if common else clause


def _number_written_otherwise(sentence: str, chance: random.Random, names: Sequence[str]) -> str | None:
    for found in _NUMBER.finditer(sentence):
        digits = found[0]
        if digits.isdigit() and int(digits) in _WORDS:
            return _replaced(sentence, found, _WORDS[int(digits)])
        if re.fullmatch(r"\d{1,3}(,\d{3})+", digits):
            return _replaced(sentence, found, digits.replace(",", chance.choice(("", " "))))
        if re.fullmatch(r"[1-9]\d{4,}", digits):
            return _replaced(sentence, found, f"{int(digits):,}")
    if word := _NUMBER_WORD.search(sentence):
        return _replaced(sentence, word, str(NUMBER_WORDS[word[0].lower()]))
    return None


def _unit_written_otherwise(sentence: str, chance: random.Random, names: Sequence[str]) -> str | None:
    for found in _WITH_UNIT.finditer(sentence):
        if other := _SPELLED.get(found[3]) or _SYMBOLS.get(found[3]):
            between = found[2] if other != "%" else ""
            between = " " if found[3] == "%" or (not between and len(other) > 2) else between
            return _replaced(sentence, found, found[1] + between + other)
    return None


def _contracted(sentence: str, chance: random.Random, names: Sequence[str]) -> str | None:
    for one, other in _CONTRACTIONS:
        for old, new in ((one, other), (other, one)):
            if found := re.search(rf"\b{old}\b", sentence):
                return _replaced(sentence, found, new)
    return None


RESTATEMENTS: dict[str, Rewrite] = {
    "shortened": _shortened,
    "reordered": _reordered,
    "number written otherwise": _number_written_otherwise,
    "unit written otherwise": _unit_written_otherwise,
    "contraction": _contracted,
}
"""What leaves a sentence true."""


def names_of(sentences: Sequence[str]) -> list[str]:
    """Returns the names that sentences have after their first word."""
    found = {found[0] for sentence in sentences for found in _NAME.finditer(sentence)}
    return sorted(name for name in found if not FUNCTION_WORDS & set(name.casefold().split()))
