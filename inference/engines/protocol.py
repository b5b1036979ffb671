"""The interface of engines, which turn a question and passages into a draft with quotes, and their error."""

from collections.abc import Sequence
from typing import Protocol

from inference.prompting.types import Draft, Passage


class EngineError(RuntimeError):
    """An engine could not answer; the message names the engine, the cause and the remedy."""


class Engine(Protocol):
    """An object that answers a question from passages."""

    @property
    def name(self) -> str:
        """The engine's name, as it is stored with each answer."""
        ...

    def answer(self, question: str, passages: Sequence[Passage]) -> Draft:
        """Returns a draft of an answer from the passages, which are best first and not empty.

        The draft is a refusal if the passages do not answer the question.

        Raises:
            EngineError: The engine fails.
        """
        ...
