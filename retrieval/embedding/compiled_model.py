"""Runs a converted model with OpenVINO: compiled in a numeric form, over tokenised texts in batches."""

import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from tokenizers import Encoding

from retrieval.embedding.model_folder import ModelFolder
from retrieval.embedding.tokenization import load_text_tokenizer, probe_texts

if TYPE_CHECKING:
    import openvino

# OpenVINO reports its use to its makers unless this package is absent; it looks when it is imported.
# Recorded as absent before that, nothing is sent and no consent file is written.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

NumericForm = Literal["f32", "bf16", "f16", "int8"]

# By speed; a form is tried where OpenVINO says that the processor has instructions for it.
FAST_FORMS: tuple[tuple[NumericForm, str], ...] = (("bf16", "BF16"), ("f16", "FP16"))

_PROBE_TOKENS = 4096
"""Tokens per batch of the texts on which numeric forms are compared."""

_LENGTH_STEP = 8
"""Batch widths are multiples of this, because OpenVINO prepares its kernels anew for each new shape."""


@dataclass(frozen=True)
class Batching:
    """How texts are put into batches: the token that fills them up, their most tokens, their widest row."""

    pad_id: int
    batch_tokens: int
    max_width: int

    @classmethod
    def of(cls, folder: ModelFolder, batch_tokens: int = _PROBE_TOKENS) -> "Batching":
        """Returns how texts for a model's folder are put into batches."""
        return cls(folder.pad_id, batch_tokens, folder.max_tokens)


def compile_form(
    core: "openvino.Core", converted: Path, form: NumericForm, threads: int | None
) -> "openvino.CompiledModel":
    """Returns a converted model compiled in a numeric form; `threads` is None for all of the machine's."""
    # The form is always named: left alone, OpenVINO takes bfloat16 wherever the processor has it. Its own
    # transformation to int8 is for int8 alone: without it the quantised steps are rounded to in float32.
    has = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    around = next((fast for fast, capability in FAST_FORMS if capability in has), "f32")
    options: dict[str, str | int | bool] = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "INFERENCE_PRECISION_HINT": around if form == "int8" else form,
        "LP_TRANSFORMS_MODE": "YES" if form == "int8" else "NO",
        # Each process would pin its threads to the machine's first cores: Spark's workers to the same one.
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(str(converted), "CPU", options)


def run_compiled(
    model: "openvino.CompiledModel", encodings: list[Encoding], batching: Batching, out: np.ndarray
) -> None:
    """Runs the model over tokenised texts, in batches of like length, into the rows of `out`.

    Where the rows are shorter than the model's vectors, these are truncated and brought to length 1 again.
    """
    # As many requests as run side by side, each on threads of its own. They are of this call: a request holds
    # its inputs and is not shared.
    count: int = model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    running: deque[tuple[openvino.InferRequest, np.ndarray]] = deque()

    def finish_first() -> "openvino.InferRequest":
        request, rows = running.popleft()
        request.wait()
        found = request.get_output_tensor(0).data
        if out.shape[1] < found.shape[1]:
            found = found[:, : out.shape[1]]
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        out[rows] = found
        return request

    lengths = np.fromiter((len(encoding) for encoding in encodings), dtype=np.int64, count=len(encodings))
    order = np.argsort(lengths, kind="stable")[::-1]  # longest first, so that memory is at its peak at once
    first = 0
    while first < len(order):
        longest = max(1, int(lengths[order[first]]))
        # Not beyond the longest that the model reads: it may have no position for it.
        width = min(-(-longest // _LENGTH_STEP) * _LENGTH_STEP, batching.max_width)
        rows = order[first : first + max(1, batching.batch_tokens // width)]
        ids = np.full((len(rows), width), batching.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for row, index in enumerate(rows):
            ids[row, : lengths[index]] = encodings[index].ids
            mask[row, : lengths[index]] = 1
        request = finish_first() if len(running) == count else model.create_infer_request()
        request.start_async({"input_ids": ids, "attention_mask": mask})
        running.append((request, rows))
        first += len(rows)
    while running:
        finish_first()


def least_cosine(
    folder: ModelFolder, dimension: int, model: "openvino.CompiledModel", exact: "openvino.CompiledModel"
) -> float:
    """Returns the least cosine between two models' vectors of `probe_texts`."""
    encodings = load_text_tokenizer(folder).encode_batch_fast(probe_texts())
    vectors = []
    for compiled in (model, exact):
        out = np.empty((len(encodings), dimension), dtype=np.float32)
        run_compiled(compiled, encodings, Batching.of(folder), out)
        vectors.append(out)
    return float((vectors[0] * vectors[1]).sum(axis=1).min())
