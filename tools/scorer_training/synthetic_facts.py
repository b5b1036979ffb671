"""Invented facts with questions about them: what real text with a free licence has too few of for training.

Nothing here is true. A subject, such as an event or a version of a program, has a record of facts; each fact
is stated in one of several ways and asked for in several (`invented_facts.json`). So every question comes
with sentences on the right subject that lack the fact, and with the same fact of a neighbour: another year,
another version, another name.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TEMPLATES = json.loads(Path(__file__).with_name("invented_facts.json").read_text(encoding="utf-8"))
_FIRST, _LAST, _CITIES, _COUNTRIES = _TEMPLATES["names"].values()
_TITLES = ("River", "House", "Letters", "Garden", "Storm", "Road")
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_ONSETS = [
    "b",
    "br",
    "c",
    "cl",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "qu",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "w",
    "z",
]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "io"]
_CODAS = ["n", "r", "s", "l", "x", "m", "th", "nd", "rk"]
_KINDS = ("Cup", "Open", "Championship", "Games", "Awards", "Festival", "Grand Prix", "Bowl", "Marathon")


def _name(rng: random.Random, syllables: int = 2) -> str:
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables)
    ).capitalize() + rng.choice(_CODAS)


def _values(rng: random.Random) -> dict[str, str]:
    """Fresh values of every kind of slot."""
    year = rng.randint(1890, 2025)
    person = [f"{rng.choice(_FIRST)} {rng.choice(_LAST)}" for _ in range(4)]
    city, other_city = rng.sample(_CITIES, 2)
    country, other_country = rng.sample(_COUNTRIES, 2)
    day = f"{rng.choice(_MONTHS)} {rng.randint(1, 28)}"
    amount = rng.choice(
        [
            f"${rng.randint(2, 90)} million",
            f"${rng.randint(1, 60)} billion",
            f"{rng.randint(2, 900)} million euros",
        ]
    )
    return {
        "person": person[0],
        "rival": person[1],
        "founder": person[2],
        "author": person[3],
        "city": city,
        "city2": other_city,
        "country": country,
        "country2": other_country,
        "year": str(year),
        "date": f"{day}, {year}",
        "day": day,
        "amount": amount,
        "count": f"{rng.randint(3, 99)},{rng.randint(100, 999)}",
        "small": str(rng.randint(2, 60)),
        "percent": f"{rng.randint(1, 97)} percent",
        "company": _name(rng),
        "company2": _name(rng),
        "gene": _name(rng, 1).upper()[:4] + str(rng.randint(1, 19)),
        "drug": _name(rng, 3).lower() + "ib",
        "protein": _name(rng, 2).lower() + "in",
        "title": f"The {_name(rng, 1)} {rng.choice(_TITLES)}",
        "score": f"{rng.randint(1, 6)}-{rng.randint(0, 6)}",
        "port": str(rng.randint(1024, 65000)),
        "option": "--" + _name(rng, 1).lower(),
        "file": f"/etc/{_name(rng, 1).lower()}.conf",
        "length": f"{rng.randint(2, 4000)} {rng.choice(['metres', 'feet', 'kilometres', 'miles'])}",
        "stadium": f"{_name(rng)} {rng.choice(['Stadium', 'Arena', 'Park', 'Hall'])}",
        "university": f"University of {rng.choice(_CITIES)}",
        "language": rng.choice(["Rust", "Go", "Python", "C++", "Java", "Haskell", "Lua", "Perl"]),
        "symptom": rng.choice(
            ["muscle weakness", "hearing loss", "skin rash", "seizures", "joint pain", "fever"]
        ),
        "tissue": rng.choice(
            ["the liver", "the retina", "skeletal muscle", "the kidney", "bone marrow", "the brain"]
        ),
    }


_DOMAINS: Mapping[str, Sequence[Mapping[str, Sequence[str]]]] = _TEMPLATES["domains"]
"""For each fact, its statements and the questions that it answers. `{s}` is the subject."""


def _subjects(domain: str, rng: random.Random) -> tuple[str, str, str]:
    """A subject of a domain, and two that are easily taken for it: a sibling and a namesake."""
    one, other = _name(rng), _name(rng)
    if domain == "event":
        kind, year = rng.choice(_KINDS), rng.randint(1960, 2024)
        form = rng.choice(["{year} {name} {kind}", "{name} {kind} {year}", "{name} {kind} in {year}"])

        def event(name: str, year: int) -> str:
            return form.format(name=name, kind=kind, year=year)

        return event(one, year), event(one, year + rng.choice([-2, -1, 1, 2])), event(other, year)
    if domain == "person":
        last = rng.choice(_LAST)
        firsts = rng.sample(_FIRST, 2)
        return f"{firsts[0]} {last}", f"{firsts[1]} {last}", f"{firsts[0]} {rng.choice(_LAST)}"
    if domain == "film":
        name = rng.choice(["The {} Files", "{} Nights", "Return to {}", "{}: The Movie", "Lost in {}"])
        return name.format(one), f"{name.format(one)} {rng.randint(2, 5)}", name.format(other)
    if domain == "software":
        major = rng.randint(1, 19)
        sep = rng.choice(["-", " ", " ", " version "])
        return f"{one}{sep}{major}", f"{one}{sep}{major + 1}", f"{other}{sep}{major}"
    if domain == "disease":
        kind = rng.choice(["syndrome", "disease", "dystrophy", "anemia"])
        return f"{one} {kind}", f"{one} {kind} type {rng.randint(2, 9)}", f"{other} {kind}"
    if domain == "drug":
        return one.lower() + "umab", other.lower() + "umab", one.lower() + "inib"
    if domain == "place":
        kind = rng.choice(["Bridge", "Castle", "Hill", "Bay", "Valley", "Tower"])
        return f"{one} {kind}", f"New {one} {kind}", f"{other} {kind}"
    return one, f"{one} {rng.choice(['Foods', 'Energy', 'Capital'])}", other


@dataclass(frozen=True)
class AskedFact:
    """A question with candidate sentences.

    Attributes:
        question: The question.
        answering: Sentences that answer it; none if nothing does.
        other: Sentences that do not, though most look like it.
    """

    question: str
    answering: tuple[str, ...]
    other: tuple[str, ...]


def invent_asked_fact(rng: random.Random) -> AskedFact:
    """Returns a question about an invented subject, with sentences that answer it and that do not."""
    domain = rng.choice(list(_DOMAINS))
    facts = _DOMAINS[domain]
    subject, sibling, namesake = _subjects(domain, rng)
    own, theirs, others = _values(rng), _values(rng), _values(rng)
    asked = rng.randrange(len(facts))
    statements, questions = facts[asked]["statements"], facts[asked]["questions"]
    question = rng.choice(questions).format(s=subject, **own)

    def said(of: str, values: Mapping[str, str], fact: int) -> str:
        return _dressed(rng.choice(facts[fact]["statements"]).format(s=of, **values), rng)

    # A statement of one fact may tell another, such as a date: those of a subject that tell what is asked.
    told = {value for name, value in own.items() if any(f"{{{name}}}" in each for each in statements)}
    elsewhere = [said(subject, own, fact) for fact in rng.sample(range(len(facts)), 4) if fact != asked]
    lacking = [each for each in elsewhere if not any(value in each for value in told)]
    neighbours = [said(sibling, theirs, asked), said(namesake, others, asked)]
    answering = tuple(said(subject, own, asked) for _ in range(rng.choice([0, 1, 1, 2])))
    other = [each for each in (*lacking, *neighbours) if each not in answering]
    return AskedFact(question, answering, tuple(other))


_TAILS = (
    "",
    "",
    "",
    "",
    " It was a surprise to many.",
    " Reporters were told so on Monday.",
    " ...",
    " More is expected later this year.",
    " The news was first published online.",
)
_HEADS = ("", "", "", "", "", "According to reports, ", "As noted before, ", "Officials said that ", "... ")


def _dressed(statement: str, rng: random.Random) -> str:
    return f"{rng.choice(_HEADS)}{statement}{rng.choice(_TAILS)}"
