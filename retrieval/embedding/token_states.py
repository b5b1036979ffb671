"""The states that the packaged embedder has of each token, beside the vector of the whole text."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from common.model_memory import MODEL_MEMORY
from retrieval.embedding.config import DEFAULT_MODEL_CACHE, EmbedderConfig, packaged_embedding_model
from retrieval.embedding.embedder import (
    Embedder,
    converted_digest,
    converted_model_bytes,
    converted_model_path,
)
from retrieval.embedding.model_folder import read_model_folder
from retrieval.embedding.tokenization import has_words_of, load_text_tokenizer

if TYPE_CHECKING:
    import openvino

MAX_TOKENS = 72
"""The most tokens that are read of a text, with the marks at both ends."""
_BATCH_TOKENS = 3072
_WIDTH_STEP = 8
_LAST_LAYER = "output.LayerNorm/aten::layer_norm/Add"
"""How the converted model's last layer is called; the last operation of that name is the one."""


@dataclass(frozen=True)
class TokenStates:
    """The tokens of texts, one text after the other.

    Attributes:
        ids: The ids of all tokens, (tokens,) int64, the marks at both ends of each text among them.
        flags: Of each token whether it begins with a digit, with a capital, and inside a word: (tokens, 3)
            float32 of 0 and 1. The vocabulary has no capitals, and names have.
        states: The last layer's states, (tokens, dimension) float16.
        offsets: The place at which each text's tokens begin, and the end of the last: (texts + 1,) int64.
        vectors: The texts' unit vectors, (texts, dimension) float32.
    """

    ids: npt.NDArray[np.int64]
    flags: npt.NDArray[np.float32]
    states: npt.NDArray[np.float16]
    offsets: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """The number of tokens of each text."""
        return np.diff(self.offsets)


def token_encoder_digest(cache: Path = DEFAULT_MODEL_CACHE) -> str:
    """Returns the digest of the model that `TokenEncoder` reads with, which need not be loaded."""
    folder = read_model_folder(EmbedderConfig(model=packaged_embedding_model()).model_path)
    return converted_digest(folder, cache, "none")


class TokenEncoder:
    """Reads texts with the packaged embedder, whatever embedder a lake has. Several threads may use it."""

    def __init__(self, cache: Path = DEFAULT_MODEL_CACHE, threads: int | None = None) -> None:
        """Makes the model ready; it is converted first unless that was done, and loaded at the first text.

        Raises:
            ModelMemoryError: It does not fit into the memory of models.
            FileNotFoundError: The package that carries the model is not installed.
        """
        config = EmbedderConfig(model=packaged_embedding_model())
        Embedder.prepare(config, cache)
        folder = read_model_folder(config.model_path)
        self._tokenizer = load_text_tokenizer(folder)
        self._short = load_text_tokenizer(folder)
        self._short.enable_truncation(MAX_TOKENS)
        converted = converted_model_path(cache, converted_digest(folder, cache, "none"))
        self._model = MODEL_MEMORY.model(
            "the model of the answer scorer",
            converted_model_bytes(converted),
            lambda: _compile_with_states(converted, threads),
        )

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens in the model's vocabulary."""
        return int(self._tokenizer.get_vocab_size())

    def has_words_of(self, text: str) -> bool:
        """Returns whether the model's vocabulary has the words of a text."""
        return has_words_of(self._tokenizer, text)

    def encode(self, texts: Sequence[str]) -> TokenStates:
        """Returns the token states of texts, of each the first `MAX_TOKENS` tokens."""
        encodings = self._short.encode_batch(list(texts))
        lengths = np.array([len(each.ids) for each in encodings], dtype=np.int64)
        offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])
        ids = np.fromiter((token for each in encodings for token in each.ids), np.int64, int(offsets[-1]))
        with self._model.in_use() as model:
            dimension = model.output(0).partial_shape[1].get_length()
            states = np.empty((len(ids), dimension), dtype=np.float16)
            vectors = np.empty((len(texts), dimension), dtype=np.float32)
            request = model.create_infer_request()
            order = np.argsort(-lengths, kind="stable")
            first = 0
            while first < len(order):
                width = -(-int(lengths[order[first]]) // _WIDTH_STEP) * _WIDTH_STEP
                rows = order[first : first + max(1, _BATCH_TOKENS // width)]
                mask = np.arange(width) < lengths[rows, None]
                padded = np.zeros((len(rows), width), dtype=np.int64)
                places = (offsets[rows, None] + np.arange(width))[mask]
                padded[mask] = ids[places]
                found = request.infer({"input_ids": padded, "attention_mask": mask.astype(np.int64)})
                vectors[rows] = found[0]
                states[places] = found[1][mask]
                first += len(rows)
        return TokenStates(ids, _flags(texts, [each.offsets for each in encodings]), states, offsets, vectors)


def _compile_with_states(converted: Path, threads: int | None) -> "openvino.CompiledModel":
    """Returns the converted model with its last layer's states as a second output."""
    import openvino

    core = openvino.Core()
    model = core.read_model(str(converted))
    layers = [op for op in model.get_ordered_ops() if op.get_friendly_name().endswith(_LAST_LAYER)]
    model.add_outputs([layers[-1].output(0)])
    options: dict[str, str | int | bool] = {"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
    has = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    options["INFERENCE_PRECISION_HINT"] = "bf16" if "BF16" in has else "f32"
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(model, "CPU", options)


def _flags(texts: Sequence[str], offsets: Sequence[Sequence[tuple[int, int]]]) -> npt.NDArray[np.float32]:
    rows = []
    for text, spans in zip(texts, offsets, strict=True):
        for start, end in spans:
            letter = text[start] if end > start else " "
            inside = end > start > 0 and text[start - 1].isalnum()
            rows.append((letter.isdigit(), letter.isupper(), inside))
    return np.array(rows, dtype=np.float32).reshape(-1, 3)
