"""One step of all slots: eager on a CPU, on a GPU one CUDA graph with FlexAttention's kernel for decoding."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inference.engines.torch.adapters import DecoderAdapter, RowAdapters, present_adapters
from inference.engines.torch.attention import GraphAttention, KvCache, StepAttention
from inference.engines.torch.model import Decoder

Numbers = npt.NDArray[np.int64]
Step = Callable[[Numbers, Numbers, Numbers], Tensor]
"""Takes the last token of each row, its position and the number of its adapter (-1 for none), all of shape
(rows,); returns logits of shape (rows, vocabulary), which the next step overwrites."""

_WARM_UPS = 3


def build_step(decoder: Decoder, cache: KvCache, rows: int, adapters: Sequence[DecoderAdapter]) -> Step:
    """Returns the step for a cache whose slots are the first of `rows` rows, which may have adapters."""
    if decoder.device.type == "cuda":
        return _graph_step(decoder, cache, rows, adapters)

    def step(tokens: Numbers, positions: Numbers, numbers: Numbers) -> Tensor:
        hidden = decoder.hidden(
            torch.from_numpy(tokens),
            torch.from_numpy(positions),
            StepAttention(cache, decoder, positions),
            present_adapters(adapters, numbers, decoder.device),
        )
        return decoder.logits(hidden)

    return step


def _graph_step(decoder: Decoder, cache: KvCache, rows: int, adapters: Sequence[DecoderAdapter]) -> Step:
    """Returns a step as one CUDA graph over fixed tensors."""
    last_tokens, places = torch.zeros(2, rows, dtype=torch.int64, device=decoder.device)
    by_row = RowAdapters(adapters, rows, decoder.device) if adapters else None
    attend = GraphAttention(cache, decoder, places)

    def compute() -> Tensor:
        return decoder.logits(decoder.hidden(last_tokens, places, attend, by_row))

    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):  # compiles, and lets libraries allocate their workspaces
                compute()
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            logits = compute()

    def step(tokens: Numbers, positions: Numbers, numbers: Numbers) -> Tensor:
        if by_row:
            by_row.assign(numbers)
        last_tokens.copy_(torch.from_numpy(tokens))
        places.copy_(torch.from_numpy(positions))
        graph.replay()
        return logits

    return step
