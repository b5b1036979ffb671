"""Which beginnings prompts share: a trie over chunks of tokens, as one number for each chunk's node."""

from collections.abc import Sequence

import numpy as np

from inference.engines.generation import GenerationRequest

Nodes = tuple[int, ...]
"""The nodes of a prompt's chunks from its first; equal numbers are equal tokens after equal tokens."""


def prefix_nodes(requests: Sequence[GenerationRequest], chunk_tokens: int) -> list[Nodes]:
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
