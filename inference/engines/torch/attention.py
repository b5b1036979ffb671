"""Keys and values of the prompts in work, and attention to them: of chunks, and of a token for each slot."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from inference.engines.torch.model import Decoder

_KEY_BLOCK = 512
"""Torch's attention on a CPU sums over blocks of so many keys, one after the other: a block that is masked as
a whole adds exact zeros. A shorter one is summed in another order: no step cuts one short by the others."""

_ROW_STEP = 8
"""On a CPU each thread's scratch memory lies right behind another's, and products round by where their
numbers lie: with a multiple of so many rows, each thread's begins at a multiple of 64 bytes."""


class KvCache:
    """Keys and values in slots of one length: tensors (layers, slots, kv_heads, slot_tokens, head_dim).

    Args:
        decoder: Whose keys and values these are.
        slots: Number of slots.
        slot_tokens: Number of tokens for which a slot has room.
    """

    def __init__(self, decoder: Decoder, slots: int, slot_tokens: int) -> None:
        self.slots, self.slot_tokens = slots, slot_tokens
        size = (decoder.layers, slots, decoder.kv_heads, slot_tokens, decoder.head_dim)
        # Zeros: attention multiplies what is masked by 0, and 0 times a NaN of earlier memory is a NaN.
        self.keys = torch.zeros(size, dtype=decoder.dtype, device=decoder.device)
        self.values = torch.zeros(size, dtype=decoder.dtype, device=decoder.device)

    def write(
        self, layer: int, slots: Tensor, positions: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Keeps the key and value of each row at its slot and position; returns all those of the layer."""
        keys, values = self.keys[layer], self.values[layer]
        keys[slots, :, positions] = key[: len(slots)]
        values[slots, :, positions] = value[: len(slots)]
        return keys, values

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Copies the keys and values of the tokens from `start` to `end` from one slot to another."""
        for kept in (self.keys, self.values):
            kept[:, target, :, start:end] = kept[:, source, :, start:end]

    def clear(self, slot: int) -> None:
        """Forgets what a slot holds; only after a failure, so that no NaN of it remains."""
        self.keys[:, slot] = 0
        self.values[:, slot] = 0


@dataclass(frozen=True)
class Chunk:
    """A part of a prompt that is computed at once: its slot, where it starts, and how many tokens it has."""

    slot: int
    start: int
    tokens: int


class ChunkAttention:
    """Attention of several chunks of equal padded length, each to its own text up to its own end.

    Chunks of one prompt may stand beside each other: all keys of a layer are written before any are read.
    A chunk reads exactly `start + padded length` keys, whatever stands beside it. Rows after the chunks' are
    of no prompt and attend to nothing.
    """

    def __init__(self, cache: KvCache, decoder: Decoder, chunks: Sequence[Chunk], padded: int) -> None:
        device = decoder.device
        self._cache, self._decoder, self._chunks, self._padded = cache, decoder, chunks, padded
        places = [torch.arange(each.start, each.start + padded, device=device) for each in chunks]
        self._positions = torch.cat(places)
        self._slots = torch.tensor([each.slot for each in chunks], device=device).repeat_interleave(padded)
        self._masks = {
            window: [
                _additive_mask(place[:, None], chunk.start + padded, window, decoder.dtype)
                for chunk, place in zip(chunks, places, strict=True)
            ]
            for window in set(decoder.windows)
        }

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        keys, values = self._cache.write(layer, self._slots, self._positions, key, value)
        masks, padded = self._masks[self._decoder.windows[layer]], self._padded
        attended = torch.zeros_like(query)
        for number, (chunk, mask) in enumerate(zip(self._chunks, masks, strict=True)):
            rows, end = slice(number * padded, (number + 1) * padded), chunk.start + padded
            found = F.scaled_dot_product_attention(
                query[rows].transpose(0, 1)[None],
                keys[chunk.slot, None, :, :end],
                values[chunk.slot, None, :, :end],
                attn_mask=mask,
                scale=self._decoder.attention_scale,
                enable_gqa=True,
            )
            attended[rows] = found[0].transpose(0, 1)
        return attended.flatten(1)


class StepAttention:
    """Attention of one token of each slot to the text of its slot, by SDPA with a mask.

    Where slots have room for more than a block of keys, whole blocks are read, as many as the longest text in
    any slot asks for; the others' are masked and add exact zeros. Rows after the slots' attend to nothing.
    """

    def __init__(self, cache: KvCache, decoder: Decoder, positions: npt.NDArray[np.int64]) -> None:
        self._cache, self._decoder = cache, decoder
        slots = positions[: cache.slots]
        self._end = min(cache.slot_tokens, (int(slots.max()) // _KEY_BLOCK + 1) * _KEY_BLOCK)
        self._positions = torch.from_numpy(slots).to(decoder.device)
        self._slots = torch.arange(cache.slots, device=decoder.device)
        self._more_rows = -decoder.group % _ROW_STEP
        rows, last = decoder.group + self._more_rows, self._positions[:, None, None, None]
        self._masks = {
            window: _additive_mask(last, self._end, window, decoder.dtype).expand(-1, -1, rows, -1)
            for window in set(decoder.windows)
        }

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        keys, values = self._cache.write(layer, self._slots, self._positions, key, value)
        # The heads that share a key stand as rows: each key is read once for all of them.
        rows = query[: self._cache.slots].unflatten(1, (-1, self._decoder.group))
        attended = F.scaled_dot_product_attention(
            F.pad(rows, (0, 0, 0, self._more_rows)),
            keys[:, :, : self._end],
            values[:, :, : self._end],
            attn_mask=self._masks[self._decoder.windows[layer]],
            scale=self._decoder.attention_scale,
        )[:, :, : self._decoder.group].flatten(1)
        return F.pad(attended, (0, 0, 0, len(query) - len(attended)))


class GraphAttention:
    """The same by FlexAttention, without lengths on the host: a CUDA graph can hold it.

    A `score_mod` masks what is beyond a slot's position; for a single query it is compiled to the kernel that
    divides the keys (flash decoding). Every call reads all positions of a slot.

    Args:
        cache: The slots.
        decoder: Whose they are.
        positions: Where each row stands, int64 of shape (rows,), on the device; read at each call.
    """

    def __init__(self, cache: KvCache, decoder: Decoder, positions: Tensor) -> None:
        self._cache, self._decoder, self._positions = cache, decoder, positions[: cache.slots]
        self._slots = torch.arange(cache.slots, device=decoder.device)
        self._attention = torch.compile(flex_attention, dynamic=False)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        positions, window = self._positions, self._decoder.windows[layer]
        keys, values = self._cache.write(layer, self._slots, positions, key, value)

        def seen(score: Tensor, slot: Tensor, _head: Tensor, _query: Tensor, place: Tensor) -> Tensor:
            last = positions[slot]
            visible = place <= last if window is None else (place <= last) & (place > last - window)
            return torch.where(visible, score, float("-inf"))

        attended = self._attention(
            query[: self._cache.slots, :, None],
            keys,
            values,
            score_mod=seen,
            scale=self._decoder.attention_scale,
            enable_gqa=True,
        ).flatten(1)
        return F.pad(attended, (0, 0, 0, len(query) - len(attended)))


def _additive_mask(queries: Tensor, keys: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """Returns 0 where a query sees a key and minus infinity elsewhere; the last axis is that of the keys.

    SDPA would make this of a boolean mask again in each layer.
    """
    places = torch.arange(keys, device=queries.device)
    hidden = places > queries if window is None else (places > queries) | (places <= queries - window)
    return torch.zeros(hidden.shape, dtype=dtype, device=queries.device).masked_fill_(hidden, float("-inf"))
