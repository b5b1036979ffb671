"""One step of all slots: eager on a CPU, on a GPU one CUDA graph with FlexAttention's kernel for decoding."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from inference.engines.torch.adapters import DecoderAdapter, RowAdapters, present_adapters
from inference.engines.torch.attention import StepAttention
from inference.engines.torch.kv_cache import KvCache
from inference.engines.torch.model import Decoder, DecoderShape

Numbers = npt.NDArray[np.int64]
Step = Callable[[Numbers, Numbers, Numbers], Tensor]
"""Takes the last token of each row, its position and the number of its adapter (-1 for none), all of shape
(rows,); returns logits of shape (rows, vocabulary), which the next step overwrites."""

_WARM_UPS = 3


def decode_step(decoder: Decoder, cache: KvCache, rows: int, adapters: Sequence[DecoderAdapter]) -> Step:
    """Returns the step for a cache whose slots are the first of `rows` rows, which may have adapters."""
    if decoder.device.type == "cuda":
        return _GraphStep(decoder, cache, rows, adapters)

    def step(tokens: Numbers, positions: Numbers, numbers: Numbers) -> Tensor:
        attend = StepAttention(cache, decoder.shape, positions)
        hidden = decoder.hidden(
            torch.from_numpy(tokens),
            torch.from_numpy(positions),
            attend,
            present_adapters(adapters, numbers, decoder.device),
        )
        return decoder.logits(hidden)

    return step


class FlexAttention:
    """Attention of one token of each slot to its text, without lengths on the host: a graph can hold it.

    A `score_mod` masks what is beyond a slot's position; for a single query it is compiled to the kernel that
    divides the keys (flash decoding). Every call reads all positions of a slot.

    Args:
        cache: The slots.
        shape: The decoder's shape.
        positions: Where each row stands, int64 of shape (rows,), on the device; read at each call.
    """

    def __init__(self, cache: KvCache, shape: DecoderShape, positions: Tensor) -> None:
        self._cache, self._shape, self._positions = cache, shape, positions[: cache.keys.shape[1]]
        self._slots = torch.arange(len(self._positions), device=positions.device)
        self._attention = torch.compile(flex_attention, dynamic=False)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        keys, values, slots = self._cache.keys[layer], self._cache.values[layer], len(self._slots)
        positions, window = self._positions, self._shape.windows[layer]
        keys[self._slots, :, positions] = key[:slots]
        values[self._slots, :, positions] = value[:slots]

        def seen(score: Tensor, slot: Tensor, _head: Tensor, _query: Tensor, place: Tensor) -> Tensor:
            last = positions[slot]
            visible = place <= last if window is None else (place <= last) & (place > last - window)
            return torch.where(visible, score, float("-inf"))

        attended = self._attention(
            query[:slots, :, None],
            keys,
            values,
            score_mod=seen,
            scale=self._shape.attention_scale,
            enable_gqa=True,
        ).flatten(1)
        return F.pad(attended, (0, 0, 0, len(query) - slots))


class _GraphStep:
    """A step as one CUDA graph over fixed tensors."""

    def __init__(
        self, decoder: Decoder, cache: KvCache, rows: int, adapters: Sequence[DecoderAdapter]
    ) -> None:
        self._tokens = torch.zeros(rows, dtype=torch.int64, device=decoder.device)
        self._positions = torch.zeros(rows, dtype=torch.int64, device=decoder.device)
        self._adapters = RowAdapters(adapters, rows, decoder.device) if adapters else None
        attend = FlexAttention(cache, decoder.shape, self._positions)

        def step() -> Tensor:
            return decoder.logits(decoder.hidden(self._tokens, self._positions, attend, self._adapters))

        with torch.inference_mode():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UPS):  # compiles, and lets libraries allocate their workspaces
                    step()
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._logits = step()

    def __call__(self, tokens: Numbers, positions: Numbers, numbers: Numbers) -> Tensor:
        if self._adapters:
            self._adapters.assign(numbers)
        self._tokens.copy_(torch.from_numpy(tokens))
        self._positions.copy_(torch.from_numpy(positions))
        self._graph.replay()
        return self._logits
