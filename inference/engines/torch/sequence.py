"""A request on its way: its prompt with the chunks that it shares with others, and its text so far."""

import re
from collections.abc import Sequence as Sequences
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from inference.engines.generation import GenerationRequest

if TYPE_CHECKING:
    from llguidance import LLMatcher

Nodes = tuple[int, ...]
"""The nodes of a prompt's chunks from its first; equal numbers are equal tokens after equal tokens."""

_UNSHOWN_TOKENS = 8
"""A token has a byte at least, but for some that are not shown: they only delay a stop that they end."""


class Sequence:
    """A request on its way.

    Args:
        index: Which request, from 0.
        request: The request.
        nodes: Its prompt's nodes in the trie of prefixes.
        limit: Number of tokens that its text may have.

    Attributes:
        computed: For how many tokens of its prompt its slot holds keys and values.
        tokens: The tokens of its text so far.
        logprobs: For each token, where asked for: its log-probability, the likeliest tokens and theirs.
        guide: What holds its text to a JSON schema.
        random: Gives the numbers that decide its draws; they depend on its seed alone.
        stop: Matches what ends its text; None where nothing does.
        stop_window: In how many of the last tokens a string that ends it is found.
    """

    def __init__(self, index: int, request: GenerationRequest, nodes: Nodes, limit: int) -> None:
        self.index, self.request, self.nodes, self.limit = index, request, nodes, limit
        self.computed = 0
        stop = request.options.stop
        self.stop = re.compile("|".join(map(re.escape, stop))) if stop else None
        self.stop_window = max((len(text.encode()) for text in stop), default=0) + _UNSHOWN_TOKENS

    def begin_text(self, guide: "LLMatcher | None" = None) -> None:
        """Begins its text, or begins it again, since a batch that has no memory left starts anew."""
        self.guide = guide
        self.tokens: list[int] = []
        self.logprobs: list[tuple[float, npt.NDArray[np.int32], npt.NDArray[np.float32]]] = []
        self.random = np.random.Generator(np.random.Philox(self.request.options.seed))


def prefix_nodes(requests: Sequences[GenerationRequest], chunk_tokens: int) -> list[Nodes]:
    """Returns the nodes of each prompt's chunks, but for the last, which gives its first logits.

    Nodes end where chunks end, so a prompt is computed in the same chunks with sharing as without, and to the
    same bits. Prompts with different sharing keys or adapters have no node in common, nor has a prompt
    without a key any with another. Sorted by its nodes, a list of prompts is in the trie's depth-first order.

    Args:
        requests: The prompts.
        chunk_tokens: Number of tokens of a chunk.
    """
    known: dict[tuple[object, bytes], int] = {}
    found = []
    for index, request in enumerate(requests):
        tokens = request.prompt.astype(np.int64, copy=False)
        shares = request.sharing_key is not None
        node: object = ("key", request.sharing_key, request.adapter) if shares else ("unshared", index)
        nodes = []
        for start in range(0, len(tokens) - chunk_tokens, chunk_tokens):
            chunk = tokens[start : start + chunk_tokens].tobytes()
            node = known.setdefault((node, chunk), len(known))
            nodes.append(node)
        found.append(tuple(nodes))
    return found
