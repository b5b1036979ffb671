"""The values that engines take and return: passages, quotes of passages, and drafts of answers."""

from dataclasses import dataclass
from typing import Literal, Protocol

Outcome = Literal["answered", "truncated", "refused", "filtered", "failed"]
"""What an engine made of a question, from the most to the least that whoever asked has of it.

`answered`; `truncated`: the reply was cut off at its length limit, and the answer is what was complete;
`refused`: the engine says that the passages hold no answer, or they support nothing that it wrote;
`filtered`: a service withheld the reply; `failed`: no reply came, or an empty one.
"""


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
class TokenUsage:
    """What a generated answer took, as the service that generated it counts.

    Attributes:
        prompt_tokens: Tokens that were read.
        completion_tokens: Tokens that were written.
        cost_usd: Their price in US dollars; None where no price is set.
    """

    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None = None

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        """Returns what both took together; what has no price adds nothing to the price of the other."""
        costs = [each for each in (self.cost_usd, other.cost_usd) if each is not None]
        return TokenUsage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            sum(costs) if costs else None,
        )


@dataclass(frozen=True)
class Draft:
    """What an engine makes of a question and passages: a draft of an answer, or the reason why there is none.

    Attributes:
        text: The answer, with `[n]` after what the n-th quote supports; or the reason why there is no answer.
        quotes: The quotes that support the answer, in the order of their numbers. Only what was answered or
            truncated has any.
        outcome: Which of them it is.
        usage: The tokens that it took; None where the engine does not count them.
        passages_left_out: How many of the passages the generator did not read, because its prompt had no room
            for them; those that repeat another one do not count.
    """

    text: str
    quotes: tuple[Quote, ...] = ()
    outcome: Outcome = "answered"
    usage: TokenUsage | None = None
    passages_left_out: int = 0

    @property
    def refused(self) -> bool:
        """Whether the engine says that the passages hold no answer."""
        return self.outcome == "refused"


@dataclass(frozen=True)
class WholePassage:
    """A passage that is a whole document, where none was retrieved: made for a training or a bench."""

    text: str
    doc_id: str
    title: None = None
    heading: None = None
    char_start: int = 0

    @property
    def char_end(self) -> int:
        """The number of characters."""
        return len(self.text)
