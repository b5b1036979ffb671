"""What an engine is: anything that turns a question and passages into a draft with quotes."""

from collections.abc import Sequence
from typing import Protocol

from inference.prompting.types import Draft, Passage


class EngineError(RuntimeError):
    """An engine could not answer; the message names the engine, the cause and the remedy."""


class Engine(Protocol):
    """Anything that answers a question from passages."""

    @property
    def name(self) -> str:
        """The engine's name, as it is stored with each answer."""
        ...

    def answer(self, question: str, passages: Sequence[Passage]) -> Draft:
        """Answers from the passages, which are best first and not empty.

        Raises:
            EngineError: When it fails. A question that the passages do not answer is a refused draft instead.
        """
        ...
