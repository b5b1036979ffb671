"""The numbers by which an answer cites: [1], [1][2] or [1, 2]."""

import re
from collections.abc import Mapping

_MARKER = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
_NUMBER = re.compile(r"\d+")
_REPEATED = re.compile(r"(\[\d+\])(?:\s*\1)+")


def cited_numbers(answer: str) -> list[int]:
    """Returns the distinct numbers that an answer cites, in the order of the text."""
    found = (int(number) for marker in _MARKER.finditer(answer) for number in _NUMBER.findall(marker[1]))
    return list(dict.fromkeys(found))


def renumber_citations(answer: str, numbers: Mapping[int, int]) -> str:
    """Returns an answer that cites by other numbers; equal ones beside each other become one.

    Args:
        answer: The answer.
        numbers: The new number for each of `cited_numbers`; several may get the same.
    """

    def renumbered(marker: re.Match[str]) -> str:
        new = dict.fromkeys(numbers[int(number)] for number in _NUMBER.findall(marker[1]))
        return "".join(f"[{number}]" for number in new)

    return _REPEATED.sub(r"\1", _MARKER.sub(renumbered, answer))
