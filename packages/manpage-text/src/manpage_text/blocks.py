"""The result of reading a manual page."""

from collections.abc import Callable
from dataclasses import dataclass

TableFormat = Callable[[list[list[str]]], list[str]]
"""Turns the rows of a table, of which the first is its header, into paragraphs of text."""


@dataclass(frozen=True, slots=True)
class Block:
    """A heading, or the text between two headings.

    Attributes:
        text: Paragraphs with blank lines between them; lists and code are indented.
        level: 1 for a section's heading, 2 for a subsection's; None for text.
    """

    text: str
    level: int | None = None


@dataclass(frozen=True, slots=True)
class ManualPage:
    """The text of a manual page.

    Attributes:
        title: Name and section, such as `ls(1)`; None if the page has no title line.
        blocks: Headings and texts in order.
        source_words: The words of the source without macros and definitions, found by other means than
            `blocks`: compare both to measure how much of the page was read.
        refers_to: The file whose page this one stands for (`.so man1/ls.1`), if it has no text of its own.
    """

    title: str | None
    blocks: list[Block]
    source_words: str
    refers_to: str | None = None

    @property
    def text(self) -> str:
        """The whole page as plain text."""
        return "\n\n".join(block.text for block in self.blocks)
