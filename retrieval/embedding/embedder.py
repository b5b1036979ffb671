"""Turns texts into unit vectors with OpenVINO, in the fastest numeric form that keeps their quality."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.atomic_files import atomic_folder
from common.model_memory import MODEL_MEMORY
from retrieval.embedding.compiled_model import (
    FAST_FORMS,
    Batching,
    NumericForm,
    compile_form,
    least_cosine,
    run_compiled,
)
from retrieval.embedding.config import (
    DEFAULT_MODEL_CACHE,
    EmbedderConfig,
    EmbeddingFault,
    Quantization,
)
from retrieval.embedding.form_trial import tried_cosine
from retrieval.embedding.model_folder import (
    ModelFolder,
    UnsupportedEmbeddingModel,
    model_folder_digest,
    read_model_folder,
    write_model_cache,
)
from retrieval.embedding.quantization import calibration_texts, int8_model_digest
from retrieval.embedding.tokenization import has_words_of, load_text_tokenizer, probe_texts

if TYPE_CHECKING:
    import openvino

_WIDE_INTEGERS = "WINOGRAD"
"""How OpenVINO says that a processor has AVX-512. Without it its int8 kernels are slower than float32."""

_WINDOW = 4096
"""Texts tokenised at a time, which bounds the memory for their tokens."""


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
            ModelMemoryError: When the model does not fit into the memory of models.
            EmbedderNotPrepared: When `prepare` has not run for this model in this cache.
            UnsupportedEmbeddingModel: When the folder is not a model that the embedder runs.
            EmbeddingFault: When the converted model makes vectors of another length than the folder says.
        """
        folder = read_model_folder(config.model_path)
        self.digest = embedding_digest(folder, cache, config)
        self.dimension = kept_dimension(folder, config)
        self.max_tokens = folder.max_tokens
        self.tokenizer_path = folder.tokenizer_path
        self._prompts = effective_prompts(folder, config)
        self._folder = folder
        self._batching = Batching.of(folder, config.batch_tokens)
        self._tokenizer = load_text_tokenizer(folder)
        converted = converted_model_path(cache, converted_digest(folder, cache, config.quantization))
        if not converted.is_file():
            raise EmbedderNotPrepared(
                f"{folder.path} is not converted in {cache}: run `make setup`, or Embedder.prepare"
            )
        form = self.numeric_form = self._fastest(converted, config, threads)
        self._model = MODEL_MEMORY.model(
            f"the embedder {folder.path.name}",
            converted_model_bytes(converted),
            lambda: _compile(converted, form, threads),
        )
        with self._model.in_use() as model:
            made = model.output(0).partial_shape[1].get_length()
        if made != folder.dimension:
            raise EmbeddingFault(
                f"{converted} makes vectors of {made} values, and {folder.path} has {folder.dimension}: "
                f"remove {converted.parent}, and the next run converts the model anew"
            )

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
        folder = read_model_folder(config.model_path)
        kept_dimension(folder, config)
        target = converted_model_path(cache, converted_digest(folder, cache, config.quantization))
        if target.is_file():
            return target
        floats = converted_model_path(cache, model_folder_digest(folder, cache))
        if not floats.is_file():
            from retrieval.embedding.conversion import (
                convert_to_openvino,  # torch takes seconds to import and only this needs it
            )

            convert_to_openvino(folder, floats, probe_texts())
        if config.quantization == "int8":
            _quantize(folder, floats, target, config)
        return target

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the unit vectors of documents' texts: float32 of shape (texts, dimension), in their order.

        Raises:
            EmbeddingFault: A vector holds a value that is no finite number.
        """
        return self._encode(texts, self._prompts.document)

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the unit vectors of questions, as `encode` does; some models read these another way."""
        return self._encode(texts, self._prompts.query)

    def has_words_of(self, text: str) -> bool:
        """Returns whether the model's vocabulary has the words of a text; else its vectors say little."""
        return has_words_of(self._tokenizer, text)

    def _encode(self, texts: Sequence[str], prompt: str) -> np.ndarray:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        with self._model.in_use() as model:
            for first in range(0, len(texts), _WINDOW):
                some = [prompt + text for text in texts[first : first + _WINDOW]]
                encodings = self._tokenizer.encode_batch_fast(some)
                run_compiled(model, encodings, self._batching, vectors[first : first + _WINDOW])
        wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(wrong):
            raise EmbeddingFault(
                f"the model makes a vector that is no number of {texts[wrong[0]][:60]!r}, computed in "
                f"{self.numeric_form}: set HEADWATER_RECIPE__EMBEDDER__MODEL to another model, or "
                "HEADWATER_RECIPE__EMBEDDER__MIN_COSINE=1 to compute in float32"
            )
        return vectors

    def _fastest(self, converted: Path, config: EmbedderConfig, threads: int | None) -> NumericForm:
        """Returns the fastest form of the model whose vectors are close enough to float32's.

        The verdict is remembered beside the model under the processor and OpenVINO's version.
        """
        import openvino

        core = openvino.Core()
        has = set(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        forms: list[NumericForm] = [form for form, capability in FAST_FORMS if capability in has]
        least = config.min_cosine
        if config.quantization == "int8":
            # Not bfloat16 alone: it has fewer steps than the integers that it would have to hold.
            forms, least = ["int8"] if _WIDE_INTEGERS in has else [], config.min_int8_cosine
        machine = [core.get_property("CPU", "FULL_DEVICE_NAME"), *sorted(has), openvino.__version__]
        key = hashlib.sha256("\x1f".join(machine).encode()).hexdigest()[:16]
        measured_path = converted.parent / f"cosines-{key}.json"
        measured: dict[str, float] = json.loads(measured_path.read_text()) if measured_path.is_file() else {}
        for form in forms if least < 1 else []:  # no other form is float32, whatever rounding says
            # What is kept of a truncated vector may be further off than the whole.
            measure = form if config.dimension is None else f"{form}/{config.dimension}"
            if measure not in measured:
                measured[measure] = tried_cosine(self._folder.path, converted, form, self.dimension, threads)
                write_model_cache(measured_path, json.dumps(measured))
            if measured[measure] >= least:
                return form
        return "f32"


def _quantize(folder: ModelFolder, floats: Path, target: Path, config: EmbedderConfig) -> None:
    """Writes the int8 form of a converted model to `target`, if its vectors are close enough."""
    import openvino

    from retrieval.embedding.quantization import quantize_model

    tokenizer = load_text_tokenizer(folder)
    tokens = [encoding.ids for encoding in tokenizer.encode_batch_fast(calibration_texts())]
    with atomic_folder(target.parent) as scratch:
        openvino.save_model(quantize_model(floats, tokens), scratch / target.name, compress_to_fp16=False)
        core = openvino.Core()
        compiled = [compile_form(core, model, "f32", None) for model in (scratch / target.name, floats)]
        cosine = least_cosine(folder, folder.dimension, *compiled)
        if not cosine >= config.min_int8_cosine:
            raise QuantizationLoss(
                f"{folder.path} in int8 makes vectors of cosine {cosine:.3f} to its own, and "
                f"{config.min_int8_cosine} is wanted: leave quantization at none"
            )


@dataclass(frozen=True)
class Prompts:
    """The texts before each question and before each other text."""

    query: str
    document: str


def effective_prompts(folder: ModelFolder, config: EmbedderConfig) -> Prompts:
    """Returns the prompts: the configured ones, or else those of the model's folder."""
    return Prompts(
        folder.query_prompt if config.query_prompt is None else config.query_prompt,
        folder.document_prompt if config.document_prompt is None else config.document_prompt,
    )


def kept_dimension(folder: ModelFolder, config: EmbedderConfig) -> int:
    """Returns the length of the vectors: the model's own, or that to which they are truncated.

    Raises:
        UnsupportedEmbeddingModel: The configuration wants longer vectors than the model makes.
    """
    kept = config.dimension or folder.truncated_dimension or folder.dimension
    if kept > folder.dimension:
        raise UnsupportedEmbeddingModel(
            f"{folder.path} makes vectors of {folder.dimension} values, and {kept} are wanted: set "
            f"HEADWATER_RECIPE__EMBEDDER__DIMENSION to at most {folder.dimension}"
        )
    return kept


def converted_digest(folder: ModelFolder, cache: Path, quantization: Quantization) -> str:
    """Returns the hex SHA-256 that identifies a converted model: that of its folder, or of its int8 form."""
    floats = model_folder_digest(folder, cache)
    return int8_model_digest(floats) if quantization == "int8" else floats


def embedding_digest(folder: ModelFolder, cache: Path, config: EmbedderConfig) -> str:
    """Returns the hex SHA-256 that identifies the vectors of a model, as it is configured."""
    converted = converted_digest(folder, cache, config.quantization)
    settings = (config.query_prompt, config.document_prompt, config.dimension)
    if settings == (None, None, None):
        return converted
    return hashlib.sha256(json.dumps([converted, *settings]).encode()).hexdigest()


def converted_model_path(cache: Path, digest: str) -> Path:
    """Returns the path in a cache folder at which the converted model with this digest lies."""
    return cache / digest / "model.xml"


def converted_model_bytes(converted: Path) -> int:
    """Returns the memory that a converted model takes: its file is mapped, and its matrices packed once more.

    Measured with all-MiniLM-L6-v2: 126 MiB resident of a file of 86, in bfloat16 and in float32.
    """
    return converted.with_suffix(".bin").stat().st_size * 3 // 2


def _compile(converted: Path, form: NumericForm, threads: int | None) -> "openvino.CompiledModel":
    import openvino

    return compile_form(openvino.Core(), converted, form, threads)
