"""Keys and values of the prompts in work: slots of one length, in two tensors."""

import torch

from inference.engines.torch.model import Decoder


class KvCache:
    """Two tensors of shape (layers, slots, kv_heads, slot_tokens, head_dim), and where each slot's text ends.

    Args:
        decoder: Whose keys and values these are.
        slots: Number of slots.
        slot_tokens: Number of tokens for which a slot has room.
    """

    def __init__(self, decoder: Decoder, slots: int, slot_tokens: int) -> None:
        shape = decoder.shape
        size = (shape.layers, slots, shape.kv_heads, slot_tokens, shape.head_dim)
        # Zeros: attention multiplies what is masked by 0, and 0 times a NaN of earlier memory is a NaN.
        self.keys = torch.zeros(size, dtype=decoder.dtype, device=decoder.device)
        self.values = torch.zeros(size, dtype=decoder.dtype, device=decoder.device)

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Copies the keys and values of the tokens from `start` to `end` from one slot to another."""
        for kept in (self.keys, self.values):
            kept[:, target, :, start:end] = kept[:, source, :, start:end]

    def clear(self, slot: int) -> None:
        """Forgets what a slot holds; only after a failure, so that no NaN of it remains."""
        self.keys[:, slot] = 0
        self.values[:, slot] = 0
