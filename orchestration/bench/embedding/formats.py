"""`bench embed --formats`: one embedder by each runtime and in each numeric format, by texts at once."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch._inductor.exc import InductorError

from common.progress import Progress
from inference.engines.generation import Quantization
from inference.engines.torch.linear import UnavailableQuantization, build_linear, check_quantization
from orchestration.bench.embedding.collection import Encode, TextEncoder, Vectors, ndcg, prose
from orchestration.bench.memory import peak_memory
from orchestration.bench.report import BenchTable
from orchestration.settings import Settings
from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.conversion import load_torch_embedder
from retrieval.embedding.embedder import Embedder, effective_prompts
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.embedding.model_folder import read_model_folder
from retrieval.embedding.tokenization import load_text_tokenizer

_LEAST_TEXTS = 64
"""Fewer texts at once are embedded several times: one text takes a few milliseconds."""
_WIDTH_STEP = 32
"""Widths are multiples of this, so that few shapes are compiled."""

Runtime = Literal["OpenVINO", "torch", "torch compiled"]


@dataclass(frozen=True)
class EmbedderForm:
    """How an embedder is computed: by what, and in which numbers."""

    runtime: Runtime
    format: str


@dataclass(frozen=True)
class EmbedderFormRow:
    """One form at one number of texts.

    Attributes:
        runtime: What computes: `OpenVINO`, as Headwater does, `torch` as it is, or compiled.
        format: The numbers that products are computed in.
        batch: Number of texts that are given at once.
        texts_per_s: Texts per second.
        texts_per_processor_s: The same per second of processor time, which a busy machine distorts less.
        first_result_s: Seconds until the first so many texts have vectors, with what is compiled for them.
        peak_mib: Peak memory, of the process beside what it had before the model, or of the GPU.
        cosine_mean: Of the vectors to those of the first row's form.
        cosine_min: The least of these.
        ndcg10: nDCG@10 of an exact search in the collection; None without one.
    """

    runtime: str
    format: str
    batch: int
    texts_per_s: float
    texts_per_processor_s: float
    first_result_s: float
    peak_mib: float
    cosine_mean: float
    cosine_min: float
    ndcg10: float | None


def bench_embedder_formats(
    settings: Settings, batches: Sequence[int], data: Path | None = None
) -> BenchTable[EmbedderFormRow]:
    """Measures each form of the embedder in a process of its own, one after the other.

    Args:
        settings: Whose embedder is measured; not an endpoint.
        batches: Numbers of texts at once, of about 240 tokens each.
        data: A folder in BEIR's layout, for nDCG@10. It is embedded whole in each form but the compiled ones,
            whose vectors are those of `torch` but for rounding.

    Returns:
        A row for each form and number of texts; the first form is OpenVINO in float32.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    formats = ["float32", "bfloat16"] if device == "cpu" else ["float32", "float16", "bfloat16"]
    unmeasured: dict[str, str] = {}
    for quantization in get_args(Quantization):
        try:
            check_quantization(quantization, device)
            formats.append(quantization)
        except UnavailableQuantization as error:
            unmeasured[f"torch {quantization}"] = str(error).partition(": do not set")[0]
    forms = [EmbedderForm("OpenVINO", each) for each in ("float32", "bfloat16", "int8")]
    forms += [EmbedderForm(runtime, each) for each in formats for runtime in ("torch", "torch compiled")]
    config = settings.recipe.embedder
    rows: list[EmbedderFormRow] = []
    reference: Vectors | None = None
    progress = Progress("forms of the embedder measured", len(forms))
    for form in forms:
        # A process each: what one has allocated, compiled or kept would count for the next.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            asked = pool.submit(measure_form, form, config, settings.home, device, tuple(batches), data)
            try:
                measured = asked.result()
            except FormNotComputed as error:
                unmeasured[f"{form.runtime} {form.format}"] = str(error)
                continue
            finally:
                progress.advance()
        reference = measured.vectors if reference is None else reference
        cosines = (measured.vectors * reference).sum(1)
        rows += [
            EmbedderFormRow(
                *(form.runtime, form.format, speed.batch, speed.texts / speed.seconds),
                *(speed.texts / speed.processor_s, speed.first_result_s, speed.peak_mib),
                *(float(cosines.mean()), float(cosines.min()), measured.ndcg10),
            )
            for speed in measured.speeds
        ]
    return BenchTable("embed --formats", rows, unmeasured)


class FormNotComputed(RuntimeError):
    """This machine does not compute an embedder in this form; the message says why."""


@dataclass(frozen=True)
class _Speed:
    batch: int
    texts: int
    seconds: float
    processor_s: float
    first_result_s: float
    peak_mib: float


@dataclass(frozen=True)
class MeasuredForm:
    """What one form took, and the vectors that it made of the first texts."""

    speeds: list[_Speed]
    vectors: Vectors
    ndcg10: float | None


def measure_form(
    form: EmbedderForm,
    config: EmbedderConfig,
    home: Path,
    device: str,
    batches: Sequence[int],
    data: Path | None,
) -> MeasuredForm:
    """Measures one form, which may have a process of its own."""
    texts = prose(max(_LEAST_TEXTS, *batches))
    with peak_memory() as before:
        pass
    encoder = _openvino(form, config, home) if form.runtime == "OpenVINO" else _torch(form, config, device)
    try:
        speeds = [_speed(encoder.documents, texts, batch, before.before_mib) for batch in batches]
    except InductorError as error:
        raise FormNotComputed(f"torch does not compile it: {str(error).splitlines()[0]}") from error
    searched = ndcg(data, encoder) if data and form.runtime != "torch compiled" else None
    return MeasuredForm(speeds, encoder.documents(texts[:_LEAST_TEXTS]), searched)


def _speed(encode: Encode, texts: Sequence[str], batch: int, before_mib: float) -> _Speed:
    asked = [texts[first : first + batch] for first in range(0, max(batch, _LEAST_TEXTS), batch)]
    wall = time.perf_counter()
    encode(asked[0])
    first_result_s = time.perf_counter() - wall
    for each in asked[1:]:  # texts of other lengths may be compiled anew
        encode(each)
    with peak_memory() as memory:
        wall, processor = time.perf_counter(), time.process_time()
        for each in asked:
            encode(each)
        seconds, processor_s = time.perf_counter() - wall, time.process_time() - processor
    count = sum(map(len, asked))
    return _Speed(batch, count, seconds, processor_s, first_result_s, memory.peak_mib - before_mib)


def _openvino(form: EmbedderForm, config: EmbedderConfig, home: Path) -> TextEncoder:
    changes: dict[str, object] = {"quantization": "int8" if form.format == "int8" else "none"}
    if form.format == "float32":
        changes["min_cosine"] = 1.0
    embedder = EmbeddingModel.of(config.model_copy(update=changes), home).embedder
    computed = embedder.numeric_form if isinstance(embedder, Embedder) else "none, but an endpoint"
    if computed != {"float32": "f32", "bfloat16": "bf16"}.get(form.format, form.format):
        raise FormNotComputed(f"the embedder computes in {computed} here")
    return TextEncoder(embedder.encode, embedder.encode_queries)


def _torch(form: EmbedderForm, config: EmbedderConfig, device: str) -> TextEncoder:
    folder = read_model_folder(config.model_path)
    quantized = form.format in ("int8", "fp8")
    dtype = torch.bfloat16 if quantized else getattr(torch, form.format)
    model = load_torch_embedder(folder, attention="sdpa").to(device, dtype)
    if quantized:
        _quantize(model, cast(Quantization, form.format))
    compute: Callable[..., torch.Tensor] = model
    if form.runtime == "torch compiled":
        compute = torch.compile(model, dynamic=True)
    tokenizer, prompts = load_text_tokenizer(folder), effective_prompts(folder, config)

    @torch.inference_mode()
    def encode(prompt: str, texts: Sequence[str]) -> Vectors:
        rows = [each.ids for each in tokenizer.encode_batch_fast([prompt + text for text in texts])]
        widest = min(-(-max(map(len, rows)) // _WIDTH_STEP) * _WIDTH_STEP, folder.max_tokens)
        ids = np.full((len(rows), widest), folder.pad_id, np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
        inputs = (torch.from_numpy(each).to(device) for each in (ids, mask))
        return compute(*inputs).float().cpu().numpy()

    def in_batches(prompt: str, texts: Sequence[str]) -> Vectors:
        """Long lists, such as a collection, in batches of like length."""
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        found = np.empty((len(texts), folder.dimension), np.float32)
        for first in range(0, len(order), 256):
            places = order[first : first + 256]
            found[places] = encode(prompt, [texts[place] for place in places])
        return found

    return TextEncoder(
        lambda texts: in_batches(prompts.document, texts), lambda texts: in_batches(prompts.query, texts)
    )


class _Product(torch.nn.Module):
    """A linear layer that is computed in fewer bits."""

    def __init__(self, linear: torch.nn.Linear, quantization: Quantization) -> None:
        super().__init__()
        bias = None if linear.bias is None else linear.bias.detach()
        self._product = build_linear(linear.weight.detach(), bias, _LEAST_TEXTS, quantization)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of shape (..., out) from (..., in)."""
        return self._product(x.flatten(0, -2)).view(*x.shape[:-1], -1)


def _quantize(model: torch.nn.Module, quantization: Quantization) -> None:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(module, name, _Product(child, quantization))
