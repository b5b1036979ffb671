"""The query language of a search: words, phrases in quotes, and words to exclude."""

import re
import unicodedata
from dataclasses import dataclass

_PART = re.compile(
    r"""
    (?P<minus>(?<!\S)-)?
    (?: ["“”„](?P<phrase>[^"“”„]*)["“”] | (?P<word>[^\s"“”„]+) | ["“”„] )
    """,
    re.VERBOSE,
)
# Scripts without spaces: a word may be one letter, and a phrase may begin and end within a word.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\ud7ff\uf900-\ufaff]")
# `-v` and `--verbose` are options of programs, and `-5` is a number: none of them excludes anything.
_LEFT_OUT = re.compile(rf"[^\W\d_]\S*\w\S*|{_UNSPACED.pattern}")
_MAX_FILTERS = 16  # each is tested on the text of every candidate
_APOSTROPHES = "'’ʼ"


class InvalidSearchQuery(ValueError):
    """A search query is not valid; the message says why."""


@dataclass(frozen=True)
class SearchQuery:
    """A parsed search query.

    Attributes:
        words: The words to find and rank by, with those of phrases; the query's vector is made from them.
        phrases: Passages that a chunk must hold.
        without_words: Words that a chunk must not hold, in any inflection that its language's stemmer knows.
        without_phrases: Passages and identifiers that a chunk must not hold.
        fit_only: Whether documents that are not fit for training are left out.
    """

    words: str
    phrases: tuple[str, ...] = ()
    without_words: tuple[str, ...] = ()
    without_phrases: tuple[str, ...] = ()
    fit_only: bool = False

    @property
    def restricted(self) -> bool:
        """True if the query has phrases or exclusions, which can filter out a chunk that ranks well."""
        return bool(self.phrases or self.without_words or self.without_phrases)

    @classmethod
    def plain(cls, text: str) -> "SearchQuery":
        """Returns the query for a plain text such as a question; quotes and minus are ordinary characters.

        Raises:
            InvalidSearchQuery: The text can not be written as UTF-8.
        """
        return cls(_checked(text).strip())

    @classmethod
    def parse(cls, text: str) -> "SearchQuery":
        """Returns the query for a text in the query language: `"a phrase"`, `-word`, `-"a phrase"`, or words.

        A minus excludes only a word that begins with a letter and has more than one: `-v`, `--verbose` and
        `-5` are words. A quote that is never closed is ignored.

        Raises:
            InvalidSearchQuery: The query has only exclusions, more than 16 phrases and exclusions, or can not
                be written as UTF-8.
        """
        words: list[str] = []
        phrases: list[str] = []
        without_words: list[str] = []
        without_phrases: list[str] = []
        for part in _PART.finditer(_checked(text)):
            phrase, word = part["phrase"], part["word"]
            if phrase is not None:
                phrase = " ".join(phrase.split())
                if re.search(r"\w", phrase):
                    (without_phrases if part["minus"] else phrases).append(phrase)
                    words += [] if part["minus"] else [phrase]
            elif word and part["minus"] and _LEFT_OUT.fullmatch(word):
                plain = word.isalnum() and not _UNSPACED.search(word)
                (without_words if plain else without_phrases).append(word)
            elif word:
                words.append((part["minus"] or "") + word)
        if not words and (without_words or without_phrases):
            raise InvalidSearchQuery("the query only says what to leave out: add a word to look for")
        filters = len(phrases) + len(without_words) + len(without_phrases)
        if filters > _MAX_FILTERS:
            raise InvalidSearchQuery(
                f"the query has {filters} phrases and exclusions; at most {_MAX_FILTERS}"
            )
        return cls(" ".join(words), tuple(phrases), tuple(without_words), tuple(without_phrases))


def is_encodable(text: str) -> bool:
    """Returns whether a text can be stored: half a character (a lone surrogate) can not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked(text: str) -> str:
    if not is_encodable(text):
        raise InvalidSearchQuery(
            "the query holds bytes or half characters that are no text: write it in UTF-8"
        )
    return unicodedata.normalize("NFC", text)


def phrase_regex(phrase: str) -> str:
    """Returns a PostgreSQL regular expression, for `~*`, that finds a phrase.

    Between two words of the phrase there may be any characters that belong to no word: a line break, a
    hyphen, the asterisks of emphasis. A match begins and ends at word boundaries, unless the script has no
    spaces.
    """
    pattern = r"\W+".join("".join(map(_escaped, word)) for word in phrase.split())
    for place, boundary in ((0, r"(?<!\w)"), (-1, r"(?!\w)")):
        edge = phrase[place]
        if (edge.isalnum() or edge == "_") and not _UNSPACED.match(edge):
            pattern = boundary + pattern if place == 0 else pattern + boundary
    return pattern


def _escaped(character: str) -> str:
    if character in _APOSTROPHES:
        return f"[{_APOSTROPHES}]"
    return character if character.isalnum() else f"\\{character}"
