"""Scores how well candidates answer a question, reading both together: a small network on token states.

The embedder's transformer reads question and candidate apart, once each, and stays as it is. On its token
states lies a network of about 120 thousand weights whose attention spans both: Khattab and Zaharia, "ColBERT"
(2020), for late interaction; MacAvaney et al., "PreTTR" (2020), for layers that join texts encoded apart.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from retrieval.embedding.token_states import TokenStates

PACKAGED_ANSWER_SCORER = Path(__file__).with_name("answer_scorer.safetensors")
MAX_QUESTION_TOKENS = 24
MAX_CANDIDATE_TOKENS = 64
_PAIRS_AT_A_TIME = 64
_MASKED = np.float32(-1e4)
_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AnswerScores:
    """Scores of candidates.

    Attributes:
        relevance: How well each answers beside the others, (candidates,) float32; only their order counts.
        answerability: The log-odds that each holds an answer at all, (candidates,) float32.
    """

    relevance: _Floats
    answerability: _Floats


class BadAnswerScorer(ValueError):
    """A file does not hold a scorer's weights; the message names the file."""


class AnswerScorer:
    """A scorer, loaded from a safetensors file of its weights.

    Attributes:
        digest: Hex SHA-256 of the file.
    """

    def __init__(self, path: Path = PACKAGED_ANSWER_SCORER) -> None:
        """Loads the weights.

        Raises:
            BadAnswerScorer: The file is missing or holds something else.
        """
        try:
            content = path.read_bytes()
            self.digest = hashlib.sha256(content).hexdigest()
            self._weights: dict[str, _Floats] = {
                name: values.astype(np.float32) for name, values in load(content).items()
            }
            self._layers = 1 + max(
                int(name.split(".")[1]) for name in self._weights if name.startswith("layers.")
            )
            self._heads = self._weights["layers.0.b"].shape[0]
            self._idf = self._weights["idf"]
        except Exception as error:  # safetensors raises an error of its own beside those of files and keys
            raise BadAnswerScorer(f"{path} does not hold an answer scorer: {error}") from error

    def score(self, question: TokenStates, candidates: TokenStates) -> AnswerScores:
        """Returns the scores of candidates for one question.

        Args:
            question: The states of one text.
            candidates: The states of the candidates, by the same model.
        """
        found = np.empty((len(candidates.lengths), 2), dtype=np.float32)
        order = np.argsort(candidates.lengths, kind="stable")
        for first in range(0, len(order), _PAIRS_AT_A_TIME):
            rows = order[first : first + _PAIRS_AT_A_TIME]
            found[rows] = self._forward(question, candidates, rows)
        return AnswerScores(found[:, 0], found[:, 1])

    def _forward(
        self, question: TokenStates, candidates: TokenStates, rows: npt.NDArray[np.int64]
    ) -> _Floats:
        asked = _padded(question, np.zeros(1, dtype=np.int64), MAX_QUESTION_TOKENS, self._idf, pad=-1)
        read = _padded(candidates, rows, MAX_CANDIDATE_TOKENS, self._idf, pad=-2)
        pairs = asked.mask[:, :, None] & read.mask[:, None, :]
        similar = np.where(pairs, _unit(asked.states) @ _unit(read.states).swapaxes(1, 2), 0).astype(
            np.float32
        )
        same = ((asked.ids[:, :, None] == read.ids[:, None, :]) & pairs).astype(np.float32)
        count, width = len(rows), asked.mask.shape[1]
        best_asked, best_read, same_asked, same_read = (
            similar.max(2),
            similar.max(1),
            same.max(2),
            same.max(1),
        )
        flags = np.broadcast_to(asked.flags, (count, *asked.flags.shape[1:]))
        x = np.concatenate(
            [
                self._linear("proj", asked.states)
                + self._linear("tf", _token_features(flags, best_asked, same_asked, 0)),
                self._linear("proj", read.states)
                + self._linear("tf", _token_features(read.flags, best_read, same_read, 1)),
            ],
            axis=1,
        )
        mask = np.concatenate([np.broadcast_to(asked.mask, (count, width)), read.mask], axis=1)
        bias = np.zeros((*mask.shape, mask.shape[1], 2), dtype=np.float32)
        for kind, values in enumerate((same, similar)):
            bias[:, :width, width:, kind] = values
            bias[:, width:, :width, kind] = values.swapaxes(1, 2)
        for layer in range(self._layers):
            x = self._layer(f"layers.{layer}", x, bias, mask)
        x = self._norm("nf", x)
        pooled = [
            self._pooled(name, x[:, part], mask[:, part])
            for name, part in (("aq", slice(None, width)), ("ac", slice(width, None)))
        ]
        weight = flags[..., 3] * asked.mask
        whole = np.maximum(weight.sum(1), 1e-6)
        features = np.stack(
            [
                candidates.vectors[rows] @ question.vectors[0],
                (weight * best_asked).sum(1) / whole,
                (weight * same_asked).sum(1) / whole,
                (weight * (1 - best_asked)).max(1),
                (weight * (1 - same_asked)).max(1),
                (flags[..., 0] * (1 - same_asked) * asked.mask).max(1),
                (flags[..., 1] * (1 - best_asked) * asked.mask).max(1),
            ],
            axis=1,
        )
        joined = np.concatenate([*pooled, _gelu(self._linear("sf", features))], axis=1)
        return self._linear("out", _gelu(self._linear("h1", joined)))

    def _linear(self, name: str, x: _Floats) -> _Floats:
        # As one matrix: of three dimensions numpy would multiply a candidate at a time.
        flat = x.reshape(-1, x.shape[-1]) @ self._weights[f"{name}.weight"].T
        return flat.reshape(*x.shape[:-1], -1) + self._weights[f"{name}.bias"]

    def _norm(self, name: str, x: _Floats) -> _Floats:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
        return scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]

    def _layer(self, name: str, x: _Floats, bias: _Floats, mask: npt.NDArray[np.bool_]) -> _Floats:
        count, length, width = x.shape
        size = width // self._heads
        parts = self._linear(f"{name}.qkv", self._norm(f"{name}.n1", x)).reshape(
            count, length, 3, self._heads, size
        )
        query, key, value = parts.transpose(2, 0, 3, 1, 4)
        scores = query @ key.swapaxes(-1, -2) / np.float32(size**0.5)
        scores += (bias @ self._weights[f"{name}.b"].T).transpose(0, 3, 1, 2)
        attention = _softmax(np.where(mask[:, None, None, :], scores, _MASKED), -1)
        x = x + self._linear(
            f"{name}.o", (attention @ value).transpose(0, 2, 1, 3).reshape(count, length, width)
        )
        inner = _gelu(self._linear(f"{name}.f1", self._norm(f"{name}.n2", x)))
        return x + self._linear(f"{name}.f2", inner)

    def _pooled(self, name: str, x: _Floats, mask: npt.NDArray[np.bool_]) -> _Floats:
        weights = _softmax(np.where(mask[..., None], self._linear(name, x), _MASKED), 1)
        pooled: _Floats = (weights * x).sum(1)
        return pooled


@lru_cache(maxsize=2)
def load_answer_scorer(path: Path = PACKAGED_ANSWER_SCORER) -> AnswerScorer:
    """Returns the scorer of a file, loaded once."""
    return AnswerScorer(path)


@dataclass(frozen=True)
class _Padded:
    states: _Floats
    ids: npt.NDArray[np.int64]
    flags: _Floats
    mask: npt.NDArray[np.bool_]


def _padded(of: TokenStates, rows: npt.NDArray[np.int64], longest: int, idf: _Floats, pad: int) -> _Padded:
    """The tokens of some texts without the marks at both ends, as rows of one width."""
    spans = [
        (of.offsets[row] + 1, min(of.offsets[row + 1] - 1, of.offsets[row] + 1 + longest)) for row in rows
    ]
    width = max(1, max(end - start for start, end in spans))
    states = np.zeros((len(rows), width, of.states.shape[1]), dtype=np.float32)
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    flags = np.zeros((len(rows), width, of.flags.shape[1] + 1), dtype=np.float32)
    mask = np.zeros((len(rows), width), dtype=bool)
    for place, (start, end) in enumerate(spans):
        tokens = slice(0, end - start)
        states[place, tokens] = of.states[start:end]
        ids[place, tokens] = of.ids[start:end]
        flags[place, tokens, :-1] = of.flags[start:end]
        flags[place, tokens, -1] = idf[of.ids[start:end]]
        mask[place, tokens] = True
    return _Padded(states, ids, flags, mask)


def _token_features(flags: _Floats, similar: _Floats, same: _Floats, side: int) -> _Floats:
    ones = np.ones_like(similar)
    return np.concatenate(
        [flags, np.stack([similar, same, ones * (1 - side), ones * side], axis=-1)], axis=-1, dtype=np.float32
    )


def _unit(x: _Floats) -> _Floats:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _softmax(x: _Floats, axis: int) -> _Floats:
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def _gelu(x: _Floats) -> _Floats:
    from scipy.special import erf

    return x * np.float32(0.5) * (1 + erf(x / np.float32(2**0.5)))
