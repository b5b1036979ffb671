"""The values that engines take and return: passages, quotes of passages, and drafts of answers."""

from dataclasses import dataclass
from typing import Protocol


class Passage(Protocol):
    """A retrieved chunk, such as `retrieval.search.searcher.SearchHit`."""

    @property
    def text(self) -> str:
        """The chunk's text."""
        ...

    @property
    def title(self) -> str | None:
        """The title of its document."""
        ...

    @property
    def heading(self) -> str | None:
        """The path of headings above it."""
        ...

    @property
    def doc_id(self) -> str:
        """The id of its document."""
        ...

    @property
    def char_start(self) -> int:
        """The position in the document's text at which the chunk begins, in code points."""
        ...

    @property
    def char_end(self) -> int:
        """The position after the chunk's last character."""
        ...


@dataclass(frozen=True)
class Quote:
    """A verbatim span of a passage.

    Attributes:
        passage: Index into the passages given to the engine, from 0.
        start: The position in the passage's text at which the quote begins, in code points.
        end: The position after the quote's last character.
    """

    passage: int
    start: int
    end: int


@dataclass(frozen=True)
class Draft:
    """A draft of an answer, as an engine writes it from a question and passages.

    Attributes:
        text: The answer, with `[n]` after what the n-th quote supports; or the reason why there is no answer.
        quotes: The quotes that support the answer, in the order of their numbers.
        refused: True if the evidence is too weak; then there are no quotes.
    """

    text: str
    quotes: tuple[Quote, ...] = ()
    refused: bool = False
