"""`bench generate --formats`: one model in each numeric format that this machine computes in, by batch."""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F

from inference.engines.causal_model import open_causal_model
from inference.engines.generation import GenerationRequest, Quantization, SamplingOptions
from inference.engines.protocol import EngineError
from inference.engines.torch.attention import Chunk, ChunkAttention, KvCache
from inference.engines.torch.decoder import BatchDecoder
from inference.engines.torch.linear import UnavailableQuantization, check_quantization
from inference.engines.torch.model import Decoder
from orchestration.bench.decoding.prompts import Tokens, text_pieces
from orchestration.bench.memory import peak_memory
from orchestration.bench.report import BenchTable

_PROMPT_TOKENS = 128
_JUDGED_TEXTS, _JUDGED_TOKENS = 6, 256
_TILE = 16
_WARM_UP_TOKENS = 2


@dataclass(frozen=True)
class NumericFormat:
    """A type of weights, and what products with them are computed in where not in it."""

    dtype: str
    quantization: Quantization | None = None

    @property
    def name(self) -> str:
        """The quantization's name, or else the type's."""
        return self.quantization or self.dtype


@dataclass(frozen=True)
class FormatRow:
    """One format at one number of prompts.

    Attributes:
        format: Its name.
        step: How a step is computed: `eager`, or `graph` (compiled attention in a CUDA graph).
        batch: Number of prompts at once.
        tokens_per_s: Generated tokens per second, prompts included.
        tokens_per_processor_s: The same per second of processor time, which a busy machine distorts less.
        first_token_s: Seconds until all prompts have their first token.
        peak_mib: Peak memory of the process, or of the GPU, while it generates, with the weights.
        perplexity: On texts of the installed software, each token after those before it.
        agreement: The share of their places at which the likeliest next token is the one in float32.
    """

    format: str
    step: str
    batch: int
    tokens_per_s: float
    tokens_per_processor_s: float
    first_token_s: float
    peak_mib: float
    perplexity: float
    agreement: float


def bench_formats(model: Path, batches: Sequence[int], max_tokens: int) -> BenchTable[FormatRow]:
    """Measures each format in a process of its own, one after the other.

    Args:
        model: A folder in transformers' form, or a GGUF file.
        batches: Numbers of prompts at once.
        max_tokens: Number of tokens of each text: no token ends one.

    Raises:
        EngineError: The model can not be used.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    formats = [NumericFormat("float32"), NumericFormat("bfloat16")]
    unmeasured = {}
    for quantization in get_args(Quantization):
        try:
            check_quantization(quantization, device)
            formats.append(NumericFormat("bfloat16", quantization))
        except UnavailableQuantization as error:
            unmeasured[quantization] = str(error)
    rows: list[FormatRow] = []
    reference: Tokens | None = None
    for each in formats:
        # A process each: what one has allocated, compiled or kept would count for the next.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            measured = pool.submit(_measure, model, each, tuple(batches), max_tokens).result()
        reference = measured.likeliest if reference is None else reference
        agreement = float((measured.likeliest == reference).mean())
        rows += [_row(each, device, speed, measured, agreement) for speed in measured.speeds]
    return BenchTable("generate --formats", rows, unmeasured)


@dataclass(frozen=True)
class _Speed:
    batch: int
    tokens: int
    seconds: float
    processor_s: float
    first_token_s: float
    peak_mib: float


@dataclass(frozen=True)
class _Measured:
    speeds: list[_Speed]
    perplexity: float
    likeliest: Tokens


def _row(each: NumericFormat, device: str, speed: _Speed, measured: _Measured, agreement: float) -> FormatRow:
    return FormatRow(
        format=each.name,
        step="eager" if device == "cpu" else "graph",
        batch=speed.batch,
        tokens_per_s=speed.tokens / speed.seconds,
        tokens_per_processor_s=speed.tokens / speed.processor_s,
        first_token_s=speed.first_token_s,
        peak_mib=speed.peak_mib,
        perplexity=measured.perplexity,
        agreement=agreement,
    )


def _measure(path: Path, numbers: NumericFormat, batches: Sequence[int], max_tokens: int) -> _Measured:
    """Measures one format; runs in a process of its own."""
    model = open_causal_model(path, numbers.quantization, getattr(torch, numbers.dtype))
    texts = text_pieces(model, max(_JUDGED_TEXTS, *batches), _JUDGED_TOKENS)
    decoder = BatchDecoder(model.model, model.tokenizer, frozenset(), quantization=numbers.quantization)
    speeds = []
    for batch in batches:
        decoder.geometry = replace(decoder.geometry, slots=-(-batch // _TILE) * _TILE)
        speeds.append(_speed(decoder, texts[:batch], max_tokens))
    return _Measured(speeds, *_judge(decoder.computation, texts[:_JUDGED_TEXTS]))


def _speed(decoder: BatchDecoder, texts: Sequence[Tokens], max_tokens: int) -> _Speed:
    def complete(texts: Sequence[Tokens], tokens: int) -> tuple[float, float]:
        options = SamplingOptions(tokens)
        wall, processor = time.perf_counter(), time.process_time()
        done = list(decoder.generate([GenerationRequest(each[:_PROMPT_TOKENS], options) for each in texts]))
        if failures := [each.failure for each in done if each.failure is not None]:
            raise EngineError(failures[0])
        return time.perf_counter() - wall, time.process_time() - processor

    complete(texts[:1], _WARM_UP_TOKENS)
    with peak_memory() as memory:
        seconds, processor = complete(texts, max_tokens)
    first, _ = complete(texts, 1)
    return _Speed(len(texts), len(texts) * max_tokens, seconds, processor, first, memory.peak_mib)


@torch.inference_mode()
def _judge(decoder: Decoder, texts: Sequence[Tokens]) -> tuple[float, Tokens]:
    """Returns the perplexity of texts, and the likeliest token after each place, (texts, tokens - 1)."""
    cache = KvCache(decoder, 1, _JUDGED_TOKENS)
    positions = torch.arange(_JUDGED_TOKENS, device=decoder.device)
    surprise, likeliest = [], []
    for text in texts:
        tokens = torch.from_numpy(text).to(decoder.device)
        chunk = [Chunk(0, 0, _JUDGED_TOKENS)]
        attend = ChunkAttention(cache, decoder, chunk, _JUDGED_TOKENS)
        logits = decoder.logits(decoder.hidden(tokens, positions, attend))[:-1]
        surprise.append(float(F.cross_entropy(logits, tokens[1:])))
        likeliest.append(logits.argmax(-1).cpu().numpy())
    return float(np.exp(np.mean(surprise))), np.stack(likeliest)
