"""The answer scorer as it is trained; `inference.scoring.answer_scorer` computes the same with numpy."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from inference.scoring.answer_scorer import MAX_CANDIDATE_TOKENS, MAX_QUESTION_TOKENS
from retrieval.embedding.token_states import TokenStates

_FLAGS = 4
"""Those of `TokenStates`, and how rare a token is."""
_FEATURES = 7
_MASKED = -1e4


@dataclass(frozen=True)
class PairBatch:
    """Questions and candidates, one of each in a row: (pairs, tokens, …), padded at the end.

    Attributes:
        states: The token states of questions and of candidates, (pairs, tokens, dimension) float32.
        ids: Their token ids, (pairs, tokens) int64; padding differs between the two.
        flags: Their flags, (pairs, tokens, 4) float32.
        mask: Which are tokens, (pairs, tokens) bool.
        cosines: The cosine of each question and its candidate, (pairs,) float32.
    """

    states: tuple[Tensor, Tensor]
    ids: tuple[Tensor, Tensor]
    flags: tuple[Tensor, Tensor]
    mask: tuple[Tensor, Tensor]
    cosines: Tensor


def pair_batch(
    texts: TokenStates,
    questions: npt.NDArray[np.int64],
    candidates: npt.NDArray[np.int64],
    rarity: npt.NDArray[np.float32],
) -> PairBatch:
    """Returns the pairs of some texts, given by their places among `texts`.

    Args:
        texts: The states of all texts.
        questions: The question of each pair.
        candidates: The candidate of each pair.
        rarity: How rare each token of the vocabulary is, from 0 to 1.
    """
    asked = _padded(texts, questions, MAX_QUESTION_TOKENS, rarity, -1)
    read = _padded(texts, candidates, MAX_CANDIDATE_TOKENS, rarity, -2)
    cosines = (texts.vectors[questions] * texts.vectors[candidates]).sum(1)
    states, ids, flags, mask = zip(asked, read, strict=True)
    return PairBatch(states, ids, flags, mask, torch.from_numpy(cosines))


def _padded(
    texts: TokenStates, rows: npt.NDArray[np.int64], longest: int, rarity: npt.NDArray[np.float32], pad: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    spans = [
        (texts.offsets[row] + 1, min(texts.offsets[row + 1] - 1, texts.offsets[row] + 1 + longest))
        for row in rows
    ]
    width = max(1, max(end - start for start, end in spans))
    states = np.zeros((len(rows), width, texts.states.shape[1]), dtype=np.float32)
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    flags = np.zeros((len(rows), width, _FLAGS), dtype=np.float32)
    mask = np.zeros((len(rows), width), dtype=bool)
    for place, (start, end) in enumerate(spans):
        states[place, : end - start] = texts.states[start:end]
        ids[place, : end - start] = texts.ids[start:end]
        flags[place, : end - start, :-1] = texts.flags[start:end]
        flags[place, : end - start, -1] = rarity[texts.ids[start:end]]
        mask[place, : end - start] = True
    return torch.from_numpy(states), torch.from_numpy(ids), torch.from_numpy(flags), torch.from_numpy(mask)


class _JoinedLayer(nn.Module):
    """A transformer layer over question and candidate whose attention knows which tokens match."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.o = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.b = nn.Parameter(torch.zeros(heads, 2))
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.f1, self.f2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor, matches: Tensor, mask: Tensor) -> Tensor:
        count, length, width = x.shape
        parts = self.qkv(self.n1(x)).view(count, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / (width // self.heads) ** 0.5
        scores = scores + torch.einsum("bijk,hk->bhij", matches, self.b)
        attention = scores.masked_fill(~mask[:, None, None, :], _MASKED).softmax(-1)
        x = x + self.o((attention @ value).transpose(1, 2).reshape(count, length, width))
        joined: Tensor = x + self.f2(functional.gelu(self.f1(self.n2(x))))
        return joined


class AnswerNetwork(nn.Module):
    """Gives relevance and answerability, (pairs, 2), of the pairs of a batch."""

    def __init__(
        self, dimension: int = 384, width: int = 64, heads: int = 4, layers: int = 2, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.proj, self.tf = nn.Linear(dimension, width), nn.Linear(_FLAGS + 4, width)
        self.layers = nn.ModuleList([_JoinedLayer(width, heads) for _ in range(layers)])
        self.drop, self.nf = nn.Dropout(dropout), nn.LayerNorm(width)
        self.aq, self.ac, self.sf = nn.Linear(width, 1), nn.Linear(width, 1), nn.Linear(_FEATURES, 32)
        self.h1, self.out = nn.Linear(2 * width + 32, 64), nn.Linear(64, 2)

    def forward(self, batch: PairBatch) -> Tensor:
        """Returns the scores, (pairs, 2) float32."""
        (asked, read), (asked_mask, read_mask) = batch.states, batch.mask
        asked_flags, read_flags = batch.flags
        pairs = asked_mask[:, :, None] & read_mask[:, None, :]
        unit = [functional.normalize(states, dim=-1) for states in batch.states]
        similar = (unit[0] @ unit[1].transpose(1, 2)).masked_fill(~pairs, 0.0)
        same = ((batch.ids[0][:, :, None] == batch.ids[1][:, None, :]) & pairs).float()
        best, same_asked = similar.amax(2), same.amax(2)
        x = torch.cat(
            [
                self.proj(self.drop(asked)) + self.tf(_token_features(asked_flags, best, same_asked, 0)),
                self.proj(self.drop(read))
                + self.tf(_token_features(read_flags, similar.amax(1), same.amax(1), 1)),
            ],
            dim=1,
        )
        width = asked.shape[1]
        matches = x.new_zeros(*x.shape[:2], x.shape[1], 2)
        for kind, values in enumerate((same, similar)):
            matches[:, :width, width:, kind] = values
            matches[:, width:, :width, kind] = values.transpose(1, 2)
        mask = torch.cat([asked_mask, read_mask], dim=1)
        for layer in self.layers:
            x = layer(x, matches, mask)
        x = self.nf(x)
        pooled = [_pooled(self.aq, x[:, :width], asked_mask), _pooled(self.ac, x[:, width:], read_mask)]
        weight = asked_flags[..., 3] * asked_mask
        whole = weight.sum(1).clamp(min=1e-6)
        features = torch.stack(
            [
                batch.cosines,
                (weight * best).sum(1) / whole,
                (weight * same_asked).sum(1) / whole,
                (weight * (1 - best)).amax(1),
                (weight * (1 - same_asked)).amax(1),
                (asked_flags[..., 0] * (1 - same_asked) * asked_mask).amax(1),
                (asked_flags[..., 1] * (1 - best) * asked_mask).amax(1),
            ],
            dim=1,
        )
        joined = torch.cat([*pooled, functional.gelu(self.sf(features))], dim=1)
        scores: Tensor = self.out(self.drop(functional.gelu(self.h1(joined))))
        return scores


def _token_features(flags: Tensor, similar: Tensor, same: Tensor, side: int) -> Tensor:
    ones = torch.ones_like(similar)
    return torch.cat([flags, torch.stack([similar, same, ones * (1 - side), ones * side], dim=-1)], dim=-1)


def _pooled(weigh: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    pooled: Tensor = (weigh(x).masked_fill(~mask[..., None], _MASKED).softmax(1) * x).sum(1)
    return pooled
