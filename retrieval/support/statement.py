"""Reads a text as a statement: its words, quantities and names, and what negates or qualifies them."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

from common.scripts import UNSPACED
from retrieval.support.lexicon import (
    ADVERBS,
    ENGLISH_WORDS,
    FUNCTION_WORDS,
    GERMAN_WORDS,
    HARD_BREAKS,
    MODALS,
    NEGATIONS,
    NOT_ONLY,
    OPPOSITES,
    SECOND_NEGATIONS,
    SOFT_BREAKS,
    UNABLE,
    light_stem,
)
from retrieval.support.units import NUMBER_WORDS, SCALES, UNITS, Unit

# Each pattern takes what it reads once, so that no text makes it slow.
_LIST_MARK = re.compile(r"\s*(?:[-*•+–#>]{1,6}|\(?\d{1,2}[.)]|\(?[a-z]\))\s+")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?![\d.,]*\d)")
_DOTTED = re.compile(r"(?<!\w)(?:[^\W\d_]\.){2,}")
_TOKEN = re.compile(r"(?<![\w.,)])[-−]?\d[\d.,'’]*\w*|\w+(?:['’-]\w+)*|[^\w\s]")
_QUANTITY = re.compile(r"([-−]?\d[\d.,'’]*)(\D*)\Z")
_DECIMAL = re.compile(r"\d*[.,]?\d+\Z")
_THOUSANDS = re.compile(
    r"\d{1,3}(?:,\d{3})+(?:\.\d+)?\Z|\d{1,3}(?:\.\d{3})+(?:,\d+)?\Z|\d{1,3}(?:['’]\d{3})+(?:\.\d+)?\Z"
)
_COMMON_ENDING = re.compile(r"(?:s|ing|ly|ed|ion|ment|ness|ity|ive)\Z")
"""That of a word which begins a sentence with a capital and is no name."""
_ENDS_CLAUSE = frozenset(".,;:!?()[]{}—–…。、，；：！？")
_BEGINS = frozenset(".:!?•>|")
_ORDINALS = frozenset(["st", "nd", "rd", "th", "er", "e"])
_JOINS = frozenset(["and", "-", "et", "y", "und"])
_ALONE = frozenset(["dozen", "hundred", "thousand", "hundert", "tausend", "cien", "mille", "mil"])
"""Scales that are numbers without one before them."""
_CURRENCIES = frozenset("$€£¥")
_RANGE = frozenset(["to", "and", "or", "bis", "und", "à", "et", "a", "y", "-", "–", "—"])
_CONTRACTED = {"ca": "can", "wo": "will", "sha": "shall", "ai": "is"}
_ENCLITICS = frozenset(["s", "ll", "re", "ve", "d", "m"])
_MONTHS = frozenset(["may"])
_ABBREVIATIONS = frozenset(["NO", "NE", "NI"])
"""Such as nitric oxide, which is no negation."""
_FORWARD, _BACKWARD = 4, 2
"""How many words a negation reaches."""

_CUES = NEGATIONS | UNABLE | MODALS.keys()

Cue = Literal["negated", "possible", "advised", "necessary", "barred"]


class Item(NamedTuple):
    """A word or a quantity that a statement is about.

    Attributes:
        word: The folded word; of a quantity the number as it is written.
        stem: Its stem, by which opposites are found.
        values: The numbers that it can be read as; empty for a word.
        unit: Its unit; None where it has none.
        is_name: Whether it is a name or an identifier, as its capitals, digits and signs tell.
        begins: Whether it is the first word of a sentence.
        clause: The number of its clause.
        part: The number of the part of a sentence that it is in, of one or more clauses.
    """

    word: str
    stem: str
    values: tuple[float, ...]
    unit: Unit | None
    is_name: bool
    begins: bool
    clause: int
    part: int


@dataclass(frozen=True)
class Statement:
    """What a text states.

    Attributes:
        items: Its words and quantities, in order, without function words.
        heads: By the place of an item what negates or qualifies that item itself.
        scopes: By the place of an item all that negates or qualifies the words around it.
        cues: All cues of the text.
        negations: How many times it negates.
    """

    items: tuple[Item, ...]
    heads: dict[int, frozenset[Cue]]
    scopes: dict[int, frozenset[Cue]]
    cues: frozenset[Cue]
    negations: int


@lru_cache(maxsize=2048)
def read_statement(text: str) -> Statement:
    """Returns what a text states; a mark of a list before it is left out."""
    plain = _plain(text)
    mark = _LIST_MARK.match(plain)
    return _Reader(_tokens(plain[mark.end() :] if mark else plain)).read()


def content_words(text: str) -> list[str]:
    """Returns the folded words and numbers of a text without function words."""
    return [item.word for item in read_statement(text).items]


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFC", text).replace("US$", "$")
    text = _DOTTED.sub(lambda found: found[0].replace(".", ""), text)
    return _SPACED_THOUSANDS.sub(lambda found: re.sub(r"\s", "", found[0]), text)


def _tokens(text: str) -> list[str]:
    """The words, numbers and signs of a text; contractions are two words."""
    tokens: list[str] = []
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token[0].isdigit() or token[0] in "-−":
            number = token.rstrip(".,'’")
            tokens += [number, *([token[len(number)]] if number != token else [])]
        elif "-" in token:
            parts = token.split("-")
            # An option such as "--without-proxy" negates nothing.
            tokens += [token] if _CUES & set(map(str.casefold, parts)) else _tokens(" - ".join(parts))
        elif "'" in token or "’" in token:
            tokens += _uncontracted(re.split("['’]", token))
        elif token.casefold() == "cannot":
            tokens += ["can", "not"]
        elif UNSPACED.search(token):
            tokens += [first + second for first, second in pairwise(token)] or [token]
        else:
            tokens.append(token)
    return tokens


def _uncontracted(parts: Sequence[str]) -> Iterator[str]:
    first, last = parts[0], parts[-1].casefold()
    if last == "t" and first[-1:].casefold() == "n" and len(parts) == 2:
        short = first[:-1] if first.casefold() != "can" else first
        yield _CONTRACTED.get(short.casefold(), short)
        yield "not"
    elif last in _ENCLITICS and len(parts) == 2 and len(first) > 1:
        yield first
    else:
        yield from (part for part in parts if part)


class _Reader:
    """Reads tokens one after another; what is read is in `items` and `cues`."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tokens
        self.folded = [token.casefold() for token in tokens]
        german = len(GERMAN_WORDS.intersection(tokens))
        self.nouns_have_capitals = german > len(ENGLISH_WORDS.intersection(tokens))
        self.has_case = any(token != token.upper() for token in tokens)
        self.items: list[Item] = []
        self.cues: list[tuple[Cue, int, int, int]] = []
        self.clause = self.part = 0

    def read(self) -> Statement:
        place, begins = 0, True
        while place < len(self.tokens):
            token, word = self.tokens[place], self.folded[place]
            if not (token[0].isalnum() or (token[0] in "_-−" and len(token) > 1)):
                if token in _ENDS_CLAUSE:
                    self.clause += 1
                    self.part += 1
                begins = begins or token in _BEGINS
                place += 1
                continue
            taken = self._quantity(place, begins)
            if not taken:
                self._word(place, token, word, begins)
            begins = False
            place += taken or 1
        return self._stated()

    def _word(self, place: int, token: str, word: str, begins: bool) -> None:
        follows = self.folded[place + 1] if place + 1 < len(self.folded) else ""
        if word in HARD_BREAKS:
            self.clause += 1
            self.part += 1
        elif word in SOFT_BREAKS:
            self.clause += 1
        if token in _ABBREVIATIONS:
            self._add(word, word, (), None, True, begins)
        elif word in NEGATIONS or word in UNABLE or (word in SECOND_NEGATIONS and not self._is_negated()):
            if follows not in NOT_ONLY:
                self._cue("negated")
            if word in UNABLE:
                self._cue("possible")
        elif word in MODALS and not (word in _MONTHS and token[0].isupper() and not begins):
            self._cue(MODALS[word])
        elif word not in FUNCTION_WORDS or light_stem(word) in OPPOSITES or self._is_name(token, begins):
            name = self._is_name(token, begins)
            self._add(word, light_stem(word), (), None, name, begins)

    def _is_name(self, token: str, begins: bool) -> bool:
        if any(map(str.isdigit, token)) or "_" in token.strip("_"):
            return True
        if not self.has_case or token.casefold() in FUNCTION_WORDS:
            return False
        if any(map(str.isupper, token[1:])):
            return True
        common = begins and _COMMON_ENDING.search(token)
        return token[0].isupper() and not common and not self.nouns_have_capitals

    def _is_negated(self) -> bool:
        return any(cue == "negated" and part == self.part for cue, _, _, part in self.cues[-2:])

    def _cue(self, cue: Cue) -> None:
        self.cues.append((cue, len(self.items), self.clause, self.part))

    def _add(
        self, word: str, stem: str, values: tuple[float, ...], unit: Unit | None, name: bool, begins: bool
    ) -> None:
        self.items.append(Item(word, stem, values, unit, name, begins, self.clause, self.part))

    def _quantity(self, place: int, begins: bool) -> int:
        """Reads a number with its unit; returns how many tokens it has, 0 where there is none."""
        token = self.tokens[place]
        values: tuple[float, ...] = ()
        unit, taken = None, 0
        found = _QUANTITY.match(token)
        if found:
            values = _readings(found[1])
            suffix = found[2]
            if not values or (suffix and suffix not in UNITS and suffix.casefold() not in _ORDINALS):
                return 0
            unit, taken = UNITS.get(suffix), 1
        else:
            number, taken = _number_in_words(self.folded, place)
            values = (float(number),) if taken else ()
        if not taken:
            return 0
        while place + taken < len(self.folded) and self.folded[place + taken] in SCALES and found:
            values = tuple(value * SCALES[self.folded[place + taken]] for value in values)
            taken += 1
        if unit is None:
            unit, more = self._unit(place + taken)
            taken += more
        if unit is None and place and self.tokens[place - 1] in _CURRENCIES:
            unit = UNITS[self.tokens[place - 1]]
        elif unit is None:
            unit = self._unit_of_range(place + taken)
        self._add(token.casefold(), "", values, unit, False, begins)
        return taken

    def _unit(self, place: int) -> tuple[Unit | None, int]:
        """The unit at a place, and how many tokens it has."""
        start = place
        if self._at(place) in ("-", "‑"):
            place += 1
        unit = None
        if self._at(place) in ("°", "º") and (unit := UNITS.get(f"°{self._at(place + 1)}")):
            place += 2
        elif unit := UNITS.get(self._at(place)) or UNITS.get(self._at(place).casefold()):
            place += 1
        if unit is None:
            return None, 0
        if self._at(place) in ("/", "per") and (
            other := UNITS.get(self._at(place + 1)) or UNITS.get(self._at(place + 1).casefold())
        ):
            return (f"{unit[0]}/{other[0]}", unit[1] / other[1]), place + 2 - start
        return unit, place - start

    def _unit_of_range(self, place: int) -> Unit | None:
        """The unit of the number after "to", which is that of the number before it too."""
        if self._at(place).casefold() in _RANGE and _QUANTITY.match(self._at(place + 1)):
            number = _QUANTITY.match(self._at(place + 1))
            return (number and UNITS.get(number[2])) or self._unit(place + 2)[0]
        return None

    def _at(self, place: int) -> str:
        return self.tokens[place] if place < len(self.tokens) else ""

    def _stated(self) -> Statement:
        heads: dict[int, set[Cue]] = {}
        scopes: dict[int, set[Cue]] = {}
        negated = {self._head(place, part) for cue, place, _, part in self.cues if cue == "negated"}
        cues = set[Cue]()
        for cue, place, clause, part in self.cues:
            head = self._head(place, part)
            said: Cue = "barred" if cue in ("possible", "necessary") and head in negated else cue
            cues.add(said)
            if head is not None:
                heads.setdefault(head, set()).add(said)
            for other in range(max(place - _BACKWARD, 0), min(place + _FORWARD, len(self.items))):
                item = self.items[other]
                if (item.part == part) if other >= place else (item.clause == clause):
                    scopes.setdefault(other, set()).add(said)
            if head is not None:
                scopes.setdefault(head, set()).add(said)
        return Statement(
            tuple(self.items),
            {place: frozenset(each) for place, each in heads.items()},
            {place: frozenset(each) for place, each in scopes.items()},
            frozenset(cues),
            sum(cue == "negated" for cue, *_ in self.cues),
        )

    def _head(self, place: int, part: int) -> int | None:
        """The item that a cue before the item at `place` is about."""
        for head in range(place, len(self.items)):
            item = self.items[head]
            if item.part != part:
                break
            if not (item.word.endswith("ly") or item.word in ADVERBS):
                return head
        return place - 1 if place and self.items[place - 1].part == part else None


def _readings(number: str) -> tuple[float, ...]:
    """The values that digits with separators can mean: "1.000" is one, or a thousand; none of a version."""
    sign = -1.0 if number[0] in "-−" else 1.0
    digits = number.lstrip("-−")
    found = []
    if _DECIMAL.match(digits):
        found.append(float(digits.replace(",", ".")))
    if grouped := _THOUSANDS.match(digits):
        last = max(digits.rfind("."), digits.rfind(","))
        fraction = digits[last:] if last >= 0 and len(set(re.sub(r"\d", "", grouped[0]))) > 1 else ""
        whole = digits[: len(digits) - len(fraction)]
        found.append(float(re.sub(r"\D", "", whole) + fraction.replace(",", ".")))
    return tuple(sign * value for value in found)


def _number_in_words(words: Sequence[str], start: int) -> tuple[int, int]:
    """The number that words spell, and how many words it has: (120, 4) of "one hundred and twenty"."""
    total = current = room = 0  # a number that is less than `room` adds to the one before
    place = start
    while place < len(words):
        word, follows = words[place], words[place + 1] if place + 1 < len(words) else ""
        value, scale = NUMBER_WORDS.get(word), SCALES.get(word)
        if word in _JOINS and room and 0 < NUMBER_WORDS.get(follows, room) < room:
            pass
        elif word in ("one", "a") and follows in SCALES and place == start:
            current = 1
        elif value is not None and (place == start or value < room):
            current += value
            room = 10 if value >= 20 else 0
        elif scale and current < scale and (current or word in _ALONE):
            current = max(current, 1) * scale
            room = scale
            if scale >= 1000:
                total, current = total + current, 0
                if total >= scale * 1000:
                    break
        else:
            break
        place += 1
    return total + current, place - start
