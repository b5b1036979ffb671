"""Attention of new tokens to the slots of a cache: of chunks of prompts, and of one token for each slot."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from inference.engines.torch.kv_cache import KvCache
from inference.engines.torch.model import DecoderShape

_MASK_STEP = 64
"""Attention reads this many keys more or none: what is masked adds exact zeros, so neighbours that are longer
change no bit, and fewer lengths are fewer kernels."""


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

    def __init__(self, cache: KvCache, shape: DecoderShape, chunks: Sequence[Chunk], padded: int) -> None:
        device = cache.keys.device
        self._cache, self._shape, self._chunks, self._padded = cache, shape, chunks, padded
        starts = np.repeat([chunk.start for chunk in chunks], padded)
        self._positions = torch.from_numpy(starts + np.tile(np.arange(padded), len(chunks))).to(device)
        slots = np.repeat([chunk.slot for chunk in chunks], padded)
        self._slots = torch.from_numpy(slots).to(device)
        self._masks = {
            window: [self._mask(chunk.start, window) for chunk in chunks] for window in set(shape.windows)
        }

    def _mask(self, start: int, window: int | None) -> Tensor:
        kept = self._cache.keys
        queries = torch.arange(start, start + self._padded, device=kept.device)[:, None]
        return _additive_mask(queries, start + self._padded, window, kept.dtype)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        shape, padded = self._shape, self._padded
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        used = len(self._positions)
        keys[self._slots, :, self._positions] = key[:used]
        values[self._slots, :, self._positions] = value[:used]
        attended = torch.zeros_like(query)
        for number, chunk in enumerate(self._chunks):
            rows, end = slice(number * padded, (number + 1) * padded), chunk.start + padded
            found = F.scaled_dot_product_attention(
                query[rows].transpose(0, 1)[None],
                keys[chunk.slot, None, :, :end],
                values[chunk.slot, None, :, :end],
                attn_mask=self._masks[shape.windows[layer]][number],
                scale=shape.attention_scale,
                enable_gqa=True,
            )
            attended[rows] = found[0].transpose(0, 1)
        return attended.flatten(1)


class StepAttention:
    """Attention of one token of each slot to the text of its slot, by SDPA with a mask.

    The mask is as long as the longest text in any slot asks for; the others' masked keys add exact zeros.
    Rows after the slots' attend to nothing.
    """

    def __init__(self, cache: KvCache, shape: DecoderShape, positions: npt.NDArray[np.int64]) -> None:
        self._cache, self._shape = cache, shape
        device, (slots, room) = cache.keys.device, (cache.keys.shape[1], cache.keys.shape[3])
        self._end = min(room, (int(positions[:slots].max()) // _MASK_STEP + 1) * _MASK_STEP)
        self._positions = torch.from_numpy(positions[:slots]).to(device)
        self._slots = torch.arange(slots, device=device)
        last = self._positions[:, None, None, None]
        self._masks = {
            window: _additive_mask(last, self._end, window, cache.keys.dtype) for window in set(shape.windows)
        }

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        keys, values, slots = self._cache.keys[layer], self._cache.values[layer], len(self._slots)
        keys[self._slots, :, self._positions] = key[:slots]
        values[self._slots, :, self._positions] = value[:slots]
        attended = F.scaled_dot_product_attention(
            query[:slots, :, None],
            keys[:, :, : self._end],
            values[:, :, : self._end],
            attn_mask=self._masks[self._shape.windows[layer]],
            scale=self._shape.attention_scale,
            enable_gqa=True,
        ).flatten(1)
        return F.pad(attended, (0, 0, 0, len(query) - slots))


def _additive_mask(queries: Tensor, keys: int, window: int | None, dtype: torch.dtype) -> Tensor:
    """Returns 0 where a query sees a key and minus infinity elsewhere; the last axis is that of the keys.

    SDPA would make this of a boolean mask again in each layer.
    """
    places = torch.arange(keys, device=queries.device)
    hidden = places > queries if window is None else (places > queries) | (places <= queries - window)
    return torch.zeros(hidden.shape, dtype=dtype, device=queries.device).masked_fill_(hidden, float("-inf"))
