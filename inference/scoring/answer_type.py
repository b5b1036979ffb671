"""Which type of answer a question asks for, and which texts hold one: a date, a quantity, an option, a name.

Li and Roth, "Learning Question Classifiers" (2002), have such types; here are those that a pattern can find
in a text. The patterns know English questions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_MONTH = (
    "january|february|march|april|may|june|july|august|september|october|november|december|"
    "jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec"
)
_NUMBER = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|"
    "seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|"
    "millions?|billions?|dozens?|half|percent"
)
_IS = "is|was|are|were"
_WHICH = r"\b(?:what|which)"
_WORD = re.compile(r"\w+")
_NO_NAMES = frozenset(
    "The This That These Those And But For From With When Where What Which Who How Its His Her".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class _AnswerType:
    """A type: the questions that ask for it, and what in a text is of it."""

    asks: re.Pattern[str]
    is_one: re.Pattern[str]


_TYPES = (
    _AnswerType(  # a date
        re.compile(
            rf"^when\b|\bwhen (?:{_IS}|did|do|does|will)\b|^date\b|{_WHICH} (?:year|date|day|month|time)\b",
            re.I,
        ),
        re.compile(
            rf"\b(?:1[5-9]|20)\d\d\b|\b(?:{_MONTH})\b|\b\w+day\b|\bcentury\b|<num>",  # numbers taken out
            re.I,
        ),
    ),
    _AnswerType(  # a quantity
        re.compile(
            r"\bhow (?:many|much|long|old|tall|far|high|big|large|often|deep|heavy|fast|hot|cold|wide)\b|"
            rf"{_WHICH} (?:(?:{_IS}) the )?(?:number|percent|percentage|population|rate|price|cost|age|speed|"
            r"height|length|size|amount|distance|temperature|prevalence|incidence|score|revenue|salary|port)\b",
            re.I,
        ),
        re.compile(rf"\d[\d.,]*|\b(?:{_NUMBER})\b|<num>", re.I),
    ),
    _AnswerType(  # an option or a setting of a program
        re.compile(rf"{_WHICH} (?:\w+ )?(?:option|flag|switch|parameter|setting)s?\b", re.I),
        re.compile(r"(?<!\w)--?[A-Za-z][\w-]*|\b[a-z]+_\w+\b|\b[A-Z]\w*[a-z][A-Z]\w*\b"),
    ),
    _AnswerType(  # a person, a place, an organisation, a title
        re.compile(
            rf"^who\b|\bwho (?:{_IS}|did|won|has)\b|\bwhom\b|\bwhose\b|\bwhere\b|^in (?:what|which)\b|"
            rf"{_WHICH} (?:\w+ )?(?:person|actor|actress|player|president|singer|author|director|team|"
            r"country|city|state|company|university|school|college|band|movie|film|book|organi[sz]ation|nation|"
            r"continent|river|language)\b|"
            r"\b(?:name|location|nickname|nationality|hometown|capital|founder|author|director|ceo|chairman|"
            r"leader|winner) of\b",
            re.I,
        ),
        re.compile(r"(?<!^)\b[A-Z][\w'’-]{2,}"),
    ),
)


def holds_asked_type(question: str, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Returns of each text whether it holds something of the type that is asked for: (texts,) bool.

    What the question itself says does not count. All are False where it asks for no type that is known here.
    """
    asked = next((each for each in _TYPES if each.asks.search(question)), None)
    told = set(_WORD.findall(question.casefold()))

    def holds(text: str) -> bool:
        return asked is not None and any(
            found[0] not in _NO_NAMES and not told.issuperset(_WORD.findall(found[0].casefold()))
            for found in asked.is_one.finditer(text)
        )

    return np.array([holds(text) for text in texts], dtype=np.bool_)
