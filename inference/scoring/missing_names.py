"""What a question names: which texts name it too, and what the passages name instead."""

import difflib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.chunking.sentences import sentence_spans

_TOKEN = re.compile(r"[^\W_][\w.+/-]*[^\W_]|[^\W_]")
_WORD = re.compile(r"[^\W_]+")
_SIMILAR = 0.75
"""The least share of common letters of two names for one to be taken for the other."""
_SHORTEST = 3
_NUMBERED = re.compile(
    r"\b((?i:appendix|article|build|chapter|class|code|edition|error|exit|figure|generation|grade|issue|level|line|"
    r"model|page|part|phase|port|protocol|release|revision|rule|section|series|signal|stage|status|step|table|type|"
    r"version|volume)|[A-Z]\w+)([\s#-]{1,2})(\d[\w.]*\w|\d)(?!\w)"
)
"""A number after a name, or after what is commonly numbered: "Kestrel 12", "exit code 17"."""
_ONE_NAME = re.compile(r"(?:['’]s)?[ \t]+(?:(?:of|the)[ \t]+){0,2}")
_MONTH = re.compile(
    r"(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)(?:uary|ruary|ch|il|ust|ember|ober)?$", re.I
)
_AND_OTHERS = re.compile(
    r"\s*(?:\+|[-–]\s*\d|(?:or|and) (?:later|newer|above|higher|up|more|older|earlier|below))"
)
"""After a number: others are meant too, such as later versions."""


@dataclass(frozen=True)
class MissingName:
    """A name of the question that no passage holds.

    Attributes:
        name: The name, as the question has it.
        instead: The nearest name that the passages hold; None if none is near.
    """

    name: str
    instead: str | None

    @property
    def is_sibling(self) -> bool:
        """Whether the passages name what differs from it in the number alone, such as another version."""
        return (
            self.instead is not None
            and len(_stem(self.name)) >= _SHORTEST
            and _stem(self.name) == _stem(self.instead)
        )


def missing_names(question: str, texts: Sequence[str]) -> list[MissingName]:
    """Returns the names, identifiers and numbers of a question that no text holds, in the question's order.

    A name is a word with a digit, or with a capital that does not merely begin a sentence. A number is named
    with the word before it, as in "Kestrel 12" or "exit code 17". Hyphens, dots and spaces do not count, nor
    the s of a plural or a genitive.

    Args:
        question: The question.
        texts: The passages that were found for it.
    """
    held = _folded(" ".join(texts))
    named = Counter(
        token
        for text in texts
        for token in _TOKEN.findall(text)
        if _is_name(token) and len(token) >= _SHORTEST
    )
    numbers = {token for text in texts for token in _TOKEN.findall(text) if _has_digit(token)}
    names = _names(question)
    numbered = {
        match.start(3): match
        for match in _NUMBERED.finditer(question)
        if (match[1].islower() or match.start(1) in names) and not _MONTH.match(match[1])
    }
    missing = []
    for start, name in names.items():
        folded = _folded(name)
        if start in numbered:
            whole = numbered[start]
            if name not in numbers and _folded(whole[0]) not in held:
                missing.append(MissingName(whole[0], _sibling(whole, texts)))
        elif folded not in held and not (len(folded) > _SHORTEST and folded.removesuffix("s") in held):
            missing.append(MissingName(name, _nearest(name, named)))
    return missing


def absent_name(question: str, texts: Sequence[str]) -> str | None:
    """Returns the first name of a question of which no text holds a word; None if there is none.

    Names that follow one another are one name, such as "Battle of Hastings". Those with a digit are left out,
    and so is the first word of a sentence. A text holds a word that begins one of its own, "Postgres" in
    "PostgreSQL".

    Args:
        question: The question.
        texts: The passages that were found for it, with their titles.
    """
    names: list[tuple[int, int]] = []
    for start, name in _names(question).items():
        if _has_digit(name):
            continue
        if names and _ONE_NAME.fullmatch(question, names[-1][1], start):
            names[-1] = (names[-1][0], start + len(name))
        else:
            names.append((start, start + len(name)))
    if not names:
        return None
    held = {word for text in texts for word in _words(text)}
    beginnings = {word[:length] for word in held for length in range(_SHORTEST, len(word) + 1)}
    for start, end in names:
        words = [word for word in _words(question[start:end]) if len(word) >= _SHORTEST]
        if words and beginnings.isdisjoint(words):
            return question[start:end]
    return None


def title_names(question: str, titles: Sequence[str | None], texts: Sequence[str]) -> set[str]:
    """Returns the words of a question that titles of passages name, in lower case too: "numfmt".

    A word that most passages under other titles hold as well, such as "with", is no name.

    Args:
        question: The question.
        titles: The title of each passage's document.
        texts: The text of each passage.
    """
    titled = [set(_words(title or "")) for title in titles]
    asked = {word for word in _words(question) if len(word) >= _SHORTEST} & set[str]().union(*titled)
    held = [asked.intersection(_words(text)) for text in texts] if asked else []
    named = set()
    for word in asked:
        others = [words for words, own in zip(held, titled, strict=True) if word not in own]
        if sum(word in words for words in others) <= len(others) / 2:
            named.add(word)
    return named


def share_of_names(
    question: str, texts: Sequence[str], titles: Collection[str] = ()
) -> npt.NDArray[np.float32]:
    """Returns the share of the question's names that each text holds, of those that any does: (texts,).

    Names are those of `missing_names`, and those that titles name. All shares are 0 where the question has no
    names, or no text any.

    Args:
        question: The question.
        texts: The texts.
        titles: What `title_names` returns.
    """
    named = {word for name in _names(question).values() for word in _words(name)} | set(titles)
    held = [named & set(_words(text)) for text in texts]
    known = set[str]().union(*held)
    return np.array([len(each) / max(len(known), 1) for each in held], dtype=np.float32)


def names_held(names: Collection[str], texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Returns of each text whether it holds all of some names, as `title_names` returns them: (texts,)."""
    return np.array([set(names).issubset(_words(text)) for text in texts], dtype=np.bool_)


def describe_missing(missing: Sequence[MissingName]) -> str | None:
    """Returns a sentence about what was found instead, or None if nothing is missing."""
    if not missing:
        return None
    told = [f"{each.instead}, not {each.name}" for each in missing if each.instead]
    if told:
        return f"the documents found speak of {' and of '.join(told)}"
    return f"no document found mentions {' or '.join(each.name for each in missing)}"


def _names(question: str) -> dict[int, str]:
    """The names, identifiers and numbers of a question of two characters or more, by where they begin."""
    begins = {start for start, _ in sentence_spans(question)}
    names = {}
    for match in _TOKEN.finditer(question):
        name = re.sub(r"['’]s$", "", match[0])
        tells = name[1:] if match.start() in begins and not _has_digit(name) else name
        if len(name) > 1 and _is_name(tells):
            names[match.start()] = name
    return names


def _sibling(numbered: re.Match[str], texts: Sequence[str]) -> str | None:
    """What texts number alike with another number, the most frequent; None where they mean a range."""
    found = [
        (text, match)
        for text in texts
        for match in _NUMBERED.finditer(text)
        if match[1].casefold() == numbered[1].casefold()
    ]
    if any(_AND_OTHERS.match(text, match.end()) for text, match in found):
        return None
    return max((match[0] for _, match in found), key=[match[0] for _, match in found].count, default=None)


def _nearest(name: str, named: Counter[str]) -> str | None:
    """The name that differs in its number alone, else the most alike; the more frequent of two."""
    stem = _stem(name)
    siblings = [other for other in named if _has_digit(name) and _stem(other) == stem and stem]
    if not siblings and not name.isdigit():
        siblings = [
            other
            for other in named
            if other[0].casefold() == name[0].casefold()
            and difflib.SequenceMatcher(None, other.casefold(), name.casefold()).ratio() >= _SIMILAR
        ]
    return max(siblings, key=lambda other: named[other], default=None)


def _words(text: str) -> list[str]:
    return [
        word.removesuffix("s") if len(word) > _SHORTEST else word for word in _WORD.findall(text.casefold())
    ]


def _stem(name: str) -> str:
    return re.sub(r"[\d\W_]+", "", name).casefold()


def _has_digit(token: str) -> bool:
    return any(character.isdigit() for character in token)


def _is_name(token: str) -> bool:
    return _has_digit(token) or any(character.isupper() for character in token)


def _folded(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())
