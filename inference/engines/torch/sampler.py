"""The next token of each slot: the likeliest, or one drawn as the options of its request say."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inference.engines.generation import SamplingOptions


@dataclass(frozen=True)
class Draw:
    """How one slot's next token is chosen.

    Attributes:
        slot: The slot.
        options: Its request's options.
        generated: The tokens that it has generated so far, int32 of shape (tokens,).
        uniform: A number from 0 to below 1 that decides, the same for the same seed and place.
    """

    slot: int
    options: SamplingOptions
    generated: npt.NDArray[np.int32]
    uniform: float


def is_plain(options: SamplingOptions) -> bool:
    """Whether a request's next token is simply the likeliest, so that it needs no `Draw`."""
    return options.greedy and not (options.presence_penalty or options.frequency_penalty)


def uniforms(seed: int, count: int) -> npt.NDArray[np.float64]:
    """Returns the numbers that decide the draws of a request; they depend on its seed alone."""
    return np.random.Generator(np.random.Philox(seed)).random(count)


def choose_tokens(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Returns the next token of each slot, int64 of shape (slots,); -1 where logits are not finite.

    Args:
        logits: Float32 of shape (slots, vocabulary).
        draws: The slots whose next token is not simply the likeliest.
    """
    best, tokens = logits.max(-1)
    for draw in draws:
        tokens[draw.slot] = _draw(logits[draw.slot], draw)
    return tokens.masked_fill_(~best.isfinite(), -1)


def _draw(logits: Tensor, draw: Draw) -> Tensor:
    """Returns the token that a slot draws from its logits, (vocabulary,), by inverting the distribution."""
    options = draw.options
    if options.presence_penalty or options.frequency_penalty:
        seen, counts = np.unique(draw.generated, return_counts=True)
        penalty = options.presence_penalty + options.frequency_penalty * counts.astype(np.float32)
        logits = logits.index_add(
            0,
            torch.from_numpy(seen.astype(np.int64)).to(logits.device),
            torch.from_numpy(-penalty.astype(np.float32)).to(logits.device),
        )
    if options.greedy:
        return logits.argmax()
    logits = (logits - logits.max()) / options.temperature
    if options.top_k is None and options.top_p == 1 and options.min_p == 0:
        return _invert(logits.softmax(-1), draw.uniform)
    kept = min(options.top_k or len(logits), len(logits))
    ordered, ids = torch.sort(logits, descending=True, stable=True)
    probabilities = ordered[:kept].softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    out = (before >= options.top_p) | (probabilities < options.min_p * probabilities[0])
    out[0] = False  # whatever rounding says, the likeliest stays
    return ids[_invert(probabilities.masked_fill(out, 0), draw.uniform)]


def _invert(probabilities: Tensor, uniform: float) -> Tensor:
    """Returns the place at which the sum of probabilities passes a share of the whole; never one of 0."""
    reached = probabilities.double().cumsum(-1)
    return torch.searchsorted(reached, uniform * reached[-1], right=True).clamp(max=len(reached) - 1)
