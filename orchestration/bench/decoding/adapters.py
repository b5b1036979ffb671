"""`bench generate --adapters`: tenants with adapters in one batch, beside an engine for each tenant."""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file

from inference.engines.causal_model import CausalModel, open_causal_model
from inference.engines.digest import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from inference.engines.generation import GenerationRequest, SamplingOptions
from inference.engines.torch.adapters import PRODUCTS
from inference.engines.torch.decoder import BatchDecoder
from orchestration.bench.decoding.prompts import quoting_prompts
from orchestration.bench.report import BenchResult

_RANK = 16
_WEIGHT = 0.02
_WARM_UP_TOKENS = 2


def bench_adapters(model: Path, adapters: int, prompts: int = 32, max_tokens: int = 64) -> BenchResult:
    """Compares one engine that has several adapters in its batch with an engine for each, and with the base.

    Adapters have random weights, of rank 16 in all products. Prompts are those of `bench_generate`, and take
    turns with the adapters. The engines for each work one after the other, on the same cores or GPU.

    Args:
        model: A folder in transformers' form, or a GGUF file.
        adapters: Number of adapters.
        prompts: Number of prompts.
        max_tokens: Number of tokens of each text.

    Returns:
        For each (`one_batch`, `engines`, `base`): tokens per second, processor seconds, and the memory that
        it took when it was loaded; and the ratios of the others to `one_batch`.

    Raises:
        EngineError: The model can not be used.
    """
    with tempfile.TemporaryDirectory() as scratch:
        before = _resident_mib()
        opened = open_causal_model(model)
        folders = [_random_adapter(opened, Path(scratch) / str(seed), seed) for seed in range(adapters)]
        requests = [
            replace(each, sharing_key=None, adapter=folders[place % adapters])
            for place, each in enumerate(quoting_prompts(opened, prompts, 0.0, max_tokens))
        ]
        one = _decoder(opened)
        one_mib = _resident_mib() - before
        engines = [one, *(_decoder(open_causal_model(model)) for _ in folders[1:])]
        engines_mib = _resident_mib() - before

        def each_engine(asked: Sequence[GenerationRequest]) -> None:
            for engine, folder in zip(engines, folders, strict=True):
                _complete(engine, [request for request in asked if request.adapter == folder])

        contenders: dict[str, Callable[[Sequence[GenerationRequest]], None]] = {
            "one_batch": lambda asked: _complete(one, asked),
            "engines": each_engine,
            "base": lambda asked: _complete(one, [replace(request, adapter=None) for request in asked]),
        }
        figures: dict[str, float] = {"adapters": adapters, "prompts": prompts, "text_tokens": max_tokens}
        for name, complete in contenders.items():
            complete(
                [replace(each, options=SamplingOptions(_WARM_UP_TOKENS)) for each in requests[:adapters]]
            )
            wall, processor = time.perf_counter(), time.process_time()
            complete(requests)
            figures[f"{name}_tokens_per_s"] = prompts * max_tokens / (time.perf_counter() - wall)
            figures[f"{name}_processor_s"] = time.process_time() - processor
    figures |= {"one_batch_mib": one_mib, "engines_mib": engines_mib}
    ratios = {
        "engines_processor_s_to_one_batch": figures["engines_processor_s"] / figures["one_batch_processor_s"],
        "one_batch_processor_s_to_base": figures["one_batch_processor_s"] / figures["base_processor_s"],
        "engines_mib_to_one_batch": engines_mib / max(one_mib, 1.0),
    }
    return BenchResult("generate_adapters", figures, ratios)


def _decoder(opened: CausalModel) -> BatchDecoder:
    return BatchDecoder(opened.model, opened.tokenizer, frozenset())


def _complete(decoder: BatchDecoder, requests: Sequence[GenerationRequest]) -> None:
    for generation in decoder.generate(requests):
        if generation.failure:
            raise RuntimeError(generation.failure)


def _resident_mib() -> float:
    return float(psutil.Process().memory_info().rss) / (1 << 20)


def _random_adapter(opened: CausalModel, folder: Path, seed: int) -> Path:
    """Writes an adapter with random weights in PEFT's form, and returns its folder."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for number, layer in enumerate(opened.model.model.layers):
        for module in (name for names in PRODUCTS.values() for name in names):
            out, into = layer.get_submodule(module).weight.shape
            at = f"base_model.model.model.layers.{number}.{module}"
            tensors[f"{at}.lora_A.weight"] = torch.randn(_RANK, into, generator=random) * _WEIGHT
            tensors[f"{at}.lora_B.weight"] = torch.randn(out, _RANK, generator=random) * _WEIGHT
    folder.mkdir()
    save_file(tensors, folder / ADAPTER_WEIGHTS, {"format": "pt"})
    config = {"peft_type": "LORA", "r": _RANK, "lora_alpha": 2 * _RANK, "target_modules": "all-linear"}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config), encoding="utf-8")
    return folder
