"""The next token of each slot: the likeliest, or one drawn as the options of its request say."""

from collections.abc import Mapping

import torch
from torch import Tensor

from inference.engines.generation import SamplingOptions
from inference.engines.torch.sequence import Sequence


def choose_tokens(logits: Tensor, sequences: Mapping[int, Sequence]) -> Tensor:
    """Returns the next token of each slot, int64 of shape (slots,); -1 where logits are not finite.

    Args:
        logits: Float32 of shape (slots, vocabulary).
        sequences: What is in which slot.
    """
    best, tokens = logits.max(-1)
    for slot, sequence in sequences.items():
        options, row = sequence.request.options, logits[slot]
        if options.presence_penalty or options.frequency_penalty:
            row = _penalized(row, sequence.tokens, options)
            tokens[slot] = row.argmax()
        if not options.greedy:
            tokens[slot] = _draw(row, options, sequence.random.random())
    return tokens.masked_fill_(~best.isfinite(), -1)


def _penalized(logits: Tensor, generated: list[int], options: SamplingOptions) -> Tensor:
    before = torch.tensor(generated, dtype=torch.int64)
    counts = torch.bincount(before, minlength=len(logits)).to(logits.device)
    return logits - options.presence_penalty * (counts > 0) - options.frequency_penalty * counts


def _draw(logits: Tensor, options: SamplingOptions, uniform: float) -> Tensor:
    """Returns the token that a number from 0 to below 1 draws from logits, by inverting the distribution."""
    logits = (logits - logits.max()) / options.temperature
    if options.top_k is None and options.top_p == 1 and options.min_p == 0:
        return _invert(logits.softmax(-1), uniform)
    kept = min(options.top_k or len(logits), len(logits))
    ordered, ids = torch.sort(logits, descending=True, stable=True)
    probabilities = ordered[:kept].softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    out = (before >= options.top_p) | (probabilities < options.min_p * probabilities[0])
    out[0] = False  # whatever rounding says, the likeliest stays
    return ids[_invert(probabilities.masked_fill(out, 0), uniform)]


def _invert(probabilities: Tensor, uniform: float) -> Tensor:
    """Returns the place at which the sum of probabilities passes a share of the whole; never one of 0."""
    reached = probabilities.double().cumsum(-1)
    return torch.searchsorted(reached, uniform * reached[-1], right=True).clamp(max=len(reached) - 1)
