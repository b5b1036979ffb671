"""What a reasoning model thinks before it answers, which is no part of its answer."""

import re

THOUGHT = "<think>"
"""What such a model writes before it thinks, and `</think>` after."""
_MARK = re.compile(r"(</?think>)", re.IGNORECASE)


def without_thoughts(reply: str) -> str:
    """Returns a reply without what stands between `<think>` and `</think>`.

    A prompt may have begun the thought already, and a length limit may have cut it off: then one of the marks
    is missing, and what is before or after the other is thought.
    """
    said: list[str] = []
    thinking = False
    for part in _MARK.split(reply):
        match part.lower():
            case "<think>":
                thinking = True
            case "</think>":
                if not thinking:
                    said.clear()
                thinking = False
            case _ if not thinking:
                said.append(part)
    return "".join(said)
