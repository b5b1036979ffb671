"""The numbers by which an answer cites: [1], [1][2] or [1, 2]."""

import re
from collections.abc import Mapping

CITATION_MARKER = re.compile(r"\s*\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
"""A marker with the space before it; its group holds the numbers."""
_NUMBER = re.compile(r"\d+")
_REPEATED = re.compile(r"(\[\d+\])(?:\s*\1)+")


def strip_citation_markers(answer: str) -> str:
    """Returns an answer without its markers and the space before each."""
    return CITATION_MARKER.sub("", answer)


def split_at_citation_markers(answer: str) -> list[str]:
    """Returns the texts between the markers."""
    return CITATION_MARKER.split(answer)[::2]


def cited_numbers(answer: str) -> list[int]:
    """Returns the distinct numbers that an answer cites, in the order of the text."""
    found = (
        int(number) for marker in CITATION_MARKER.finditer(answer) for number in _NUMBER.findall(marker[1])
    )
    return list(dict.fromkeys(found))


def renumber_citations(answer: str, numbers: Mapping[int, int]) -> str:
    """Returns an answer that cites by other numbers; equal ones beside each other become one.

    Args:
        answer: The answer.
        numbers: The new number for each of `cited_numbers`; several may get the same.
    """

    def renumbered(marker: re.Match[str]) -> str:
        new = dict.fromkeys(numbers[int(number)] for number in _NUMBER.findall(marker[1]))
        before = marker[0][: marker[0].index("[")]
        return before + "".join(f"[{number}]" for number in new)

    return _REPEATED.sub(r"\1", CITATION_MARKER.sub(renumbered, answer))
