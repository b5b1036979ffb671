"""Passages, and drafts of answers that quote them."""

from dataclasses import dataclass
from typing import Protocol


class Passage(Protocol):
    """A retrieved chunk; `retrieval.search.searcher.SearchHit` is one."""

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
        """Where the chunk begins in the document's text, in code points."""
        ...

    @property
    def char_end(self) -> int:
        """One past where it ends."""
        ...


@dataclass(frozen=True)
class Quote:
    """A verbatim span of a passage.

    Attributes:
        passage: Index into the passages given to the engine, from 0.
        start: Where the span begins in the passage's text, in code points.
        end: One past where it ends.
    """

    passage: int
    start: int
    end: int


@dataclass(frozen=True)
class Draft:
    """What an engine made of a question and passages.

    Attributes:
        text: The answer, with `[n]` after what the n-th quote supports; or why there is none.
        quotes: The spans that support it, in the order of their numbers.
        refused: True when the evidence is too weak; then nothing is quoted.
    """

    text: str
    quotes: tuple[Quote, ...] = ()
    refused: bool = False
