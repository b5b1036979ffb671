"""Whether a passage says what a sentence says. The only place that decides it.

A sentence is supported by one span as a whole: its quantities, its names, and what negates or qualifies its
words must agree with that span, and then most of its words must be in it.
"""

import math

from retrieval.support.lexicon import NEGATIVE_PREFIXES, OPPOSITES
from retrieval.support.statement import Item, Statement, read_statement

_SHORT_WORDS = 6
_MIN_SHARE, _MIN_SHARE_SHORT = 0.65, 0.6
"""The least share of a sentence's words and quantities that a span holds if it supports the sentence: that of
longer sentences, and that of those with at most six, in which one synonym counts for more."""
_COMMON_LETTERS = 4
_COMMON_SHARE = 0.6
_LONGEST_ENDING = 3
_NEIGHBOURS = (-2, -1, 1, 2)


def support(sentence: str, span: str, context: str = "") -> float:
    """Returns how well a span supports a sentence: the share of its words that the span holds, or 0.

    It is 0 where the span does not support the sentence; what a span holds word for word has 1.

    Args:
        sentence: A sentence that cites the span.
        span: The cited text, such as a sentence of a passage.
        context: What names the subject of the span, such as its document's title and its heading.
    """
    if sentence.split() == span.split():
        return 1.0 if sentence.strip() else 0.0
    said, held = read_statement(sentence), read_statement(span)
    if not said.items:
        return 0.0
    pairs = _Alignment(said, held)
    share = len(pairs.places) / len(said.items)
    least = _MIN_SHARE if len(said.items) > _SHORT_WORDS else _MIN_SHARE_SHORT
    if share < least or not pairs.agrees(read_statement(context)):
        return 0.0
    return share


def supports(sentence: str, span: str, context: str = "") -> bool:
    """Returns whether a span supports a sentence, with the arguments of `support`."""
    return support(sentence, span, context) > 0


class _Alignment:
    """Which item of a span each item of a sentence is."""

    def __init__(self, said: Statement, held: Statement) -> None:
        self.said, self.held = said, held
        self.candidates = [
            {place for place, other in enumerate(held.items) if _same(item, other)} for item in said.items
        ]
        self.places = {
            place: max(found, key=lambda other: (self._neighbours(place, other), -abs(other - place)))
            for place, found in enumerate(self.candidates)
            if found
        }

    def agrees(self, context: Statement) -> bool:
        return (
            self._quantities_agree()
            and self._names_agree(context)
            and self._opposites_agree()
            and self._negations_agree()
            and self._modalities_agree()
        )

    def _neighbours(self, place: int, other: int) -> int:
        """How many words beside a word of the sentence are beside a word of the span too."""
        near = {other + step for step in _NEIGHBOURS}
        return sum(
            bool(self.candidates[place + step] & near)
            for step in _NEIGHBOURS
            if 0 <= place + step < len(self.candidates)
        )

    def _quantities_agree(self) -> bool:
        for place, item in enumerate(self.said.items):
            if not item.values:
                continue
            if len(self.candidates[place]) < sum(_same(item, other) for other in self.said.items):
                return False
            counted = place + 1
            found = self.candidates[counted] if counted < len(self.candidates) else set()
            if found and not self.said.items[counted].values and self.said.items[counted].part == item.part:
                # What is counted has another number there, and not this one.
                before = [(self.held.items[other - 1], self.held.items[other]) for other in found if other]
                numbers = [each for each, noun in before if each.values and each.part == noun.part]
                if numbers and not any(_same(item, each) for each in numbers):
                    return False
        return True

    def _names_agree(self, context: Statement) -> bool:
        return all(
            place in self.places or any(_same(item, other) for other in context.items)
            for place, item in enumerate(self.said.items)
            if item.is_name
        )

    def _opposites_agree(self) -> bool:
        for place, item in enumerate(self.said.items):
            opposites = [other for other, held in enumerate(self.held.items) if _are_opposite(item, held)]
            if not opposites:
                continue
            if place in self.places:
                near = self._neighbours(place, self.places[place])
                if any(self._neighbours(place, other) > near for other in opposites):
                    return False
            else:
                other = max(opposites, key=lambda other: self._neighbours(place, other))
                if ("negated" in self.said.scopes.get(place, ())) != (
                    "negated" in self.held.scopes.get(other, ())
                ):
                    continue
                return False
        return True

    def _negations_agree(self) -> bool:
        if self.said.negations > self.held.negations and not self._opposed():
            return False
        for place, cues in self.said.heads.items():
            if "negated" not in cues:
                continue
            other = self.places.get(place)
            if other is None:
                denied = "negated" in self.held.cues or any(
                    _are_opposite(self.said.items[place], held) for held in self.held.items
                )
            else:
                denied = "negated" in self.held.scopes.get(other, ())
            if not denied:
                return False
        return all(
            "negated" in self.said.scopes.get(place, ())
            for place, other in self.places.items()
            if "negated" in self.held.heads.get(other, ())
        )

    def _opposed(self) -> bool:
        """Whether a word of the sentence has its opposite in the span: "not enabled" for "disabled"."""
        aligned = set(self.places.values())
        others = [held for place, held in enumerate(self.held.items) if place not in aligned]
        return any(
            _are_opposite(item, held)
            for place, item in enumerate(self.said.items)
            if place not in self.places
            for held in others
        )

    def _modalities_agree(self) -> bool:
        for place, cues in self.said.heads.items():
            other = self.places.get(place)
            for cue in cues - {"negated"}:
                if other is None:
                    if cue not in self.held.cues:
                        return False
                elif cue not in self.held.scopes.get(other, ()) and not self.held.items[other].begins:
                    return False
        return all(
            self.said.items[place].begins
            or self.held.heads[other] - {"negated"} <= self.said.scopes.get(place, frozenset())
            for place, other in self.places.items()
            if other in self.held.heads
        )


def _same(item: Item, other: Item) -> bool:
    if item.values or other.values:
        return _are_equal(item, other)
    if item.word == other.word:
        return True
    if any(map(str.isdigit, item.word + other.word)):
        return False
    return _are_forms(item.word, other.word, is_name=item.is_name)


def _are_equal(item: Item, other: Item) -> bool:
    """Whether the span's quantity is the sentence's: in what is measured where the sentence has a unit."""
    one, two = 1.0, 1.0
    if item.unit:
        if other.unit is None or item.unit[0] != other.unit[0]:
            return False
        one, two = item.unit[1], other.unit[1]
    return any(
        math.isclose(first * one, second * two, rel_tol=1e-9)
        for first in item.values
        for second in other.values
    )


def _are_forms(word: str, other: str, *, is_name: bool) -> bool:
    """Whether two words differ in their endings alone."""
    longest = max(len(word), len(other))
    common = 0
    for one, two in zip(word, other, strict=False):
        if one != two:
            break
        common += 1
    if common < max(_COMMON_LETTERS, _COMMON_SHARE * longest) or longest - common > _LONGEST_ENDING:
        return False
    return not is_name or common == min(len(word), len(other))


def _are_opposite(item: Item, other: Item) -> bool:
    if other.stem and other.stem in OPPOSITES.get(item.stem, ()):
        return True
    short, long = sorted((item.word, other.word), key=len)
    return any(long == prefix + short for prefix in NEGATIVE_PREFIXES) and len(short) > _LONGEST_ENDING
