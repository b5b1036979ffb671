"""Adapters beside each other in one batch: each prompt's text is that of its own adapter by PEFT."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_adapters import save_random_adapter
from safetensors.torch import load_file, save_file
from test_batch_decoder import assert_equals_generate, assert_same, completed, decoder_of
from test_engines import RIVERS
from tiny_decoders import random_prompts, tiny_decoder
from tiny_generator import save_tiny_generator

from inference.engines.adapter_files import BASE_DIGEST, InvalidAdapter, require_base
from inference.engines.digest import adapter_digest
from inference.engines.generation import Generation, GenerationRequest, SamplingOptions
from inference.engines.local import LocalEngine
from inference.engines.protocol import Adapter, AdapterChoice, EnginePrompt
from inference.engines.worker.engine import WorkerEngine, Workplace
from inference.prompting.prompt_assembly import PromptConfig

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TENANTS: dict[str, dict[str, Any]] = {
    "a": {"r": 4, "lora_alpha": 16, "target_modules": ALL},
    "b": {"r": 8, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "c": {"r": 2, "lora_alpha": 8, "target_modules": ["up_proj", "o_proj"], "use_rslora": True},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def adapted(name: str, tenant: str) -> Any:
    """Returns a tiny model under a tenant's random adapter, by PEFT."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny_decoder(name), LoraConfig(task_type="CAUSAL_LM", **TENANTS[tenant]))
    torch.manual_seed(ord(tenant))
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def folders_of(name: str, folder: Path) -> dict[str, Path]:
    for tenant in TENANTS:
        adapted(name, tenant).save_pretrained(str(folder / tenant))
    return {tenant: folder / tenant for tenant in TENANTS}


def requests_of(folders: dict[str, Path]) -> list[GenerationRequest]:
    choices = [*folders.values(), None]
    return [
        GenerationRequest(prompt, SamplingOptions(16, logprobs=1), "shared", choices[index % 4])
        for index, prompt in enumerate(random_prompts(12, longest=100))
    ]


@pytest.mark.parametrize("name", ["llama", "llama tied, with biases and llama3 positions", "gemma3", "qwen2"])
def test_in_one_batch_each_prompt_has_the_tokens_of_its_own_adapter_by_peft(
    name: str, tmp_path: Path
) -> None:
    requests = requests_of(folders_of(name, tmp_path))
    generations = completed(decoder_of(name), requests)
    references = {tmp_path / tenant: adapted(name, tenant) for tenant in TENANTS}
    for request, generation in zip(requests, generations, strict=True):
        reference = references[request.adapter] if request.adapter else tiny_decoder(name)
        assert_equals_generate(reference, request.prompt, generation, 16)
    base = completed(decoder_of(name), [replace(request, adapter=None) for request in requests])
    said = [
        [each.logprobs.chosen.tobytes() for each in of if each.logprobs is not None]
        for of in (generations, base)
    ]
    assert [one == other for one, other in zip(*said, strict=True)] == [False, False, False, True] * 3


def test_a_prompt_has_the_same_bytes_whichever_adapters_its_neighbours_have(tmp_path: Path) -> None:
    requests = requests_of(folders_of("llama", tmp_path))
    decoder = decoder_of(dtype=torch.bfloat16)
    whole = completed(decoder, requests)
    orders: list[Any] = [
        np.random.default_rng(1).permutation(12),
        np.arange(0, 12, 4),
        np.arange(1, 12, 2),
        [5],
    ]
    for order in orders:
        for place, generation in zip(order, completed(decoder, [requests[at] for at in order]), strict=True):
            assert_same(generation, whole[place])
    one_at_a_time: list[Generation] = []
    for request in requests[:4]:
        one_at_a_time += completed(decoder_of(dtype=torch.bfloat16), [request])
    for one, other in zip(one_at_a_time, whole, strict=False):
        assert_same(replace(one, index=other.index), other)


def test_a_beginning_is_shared_within_one_adapter_only(tmp_path: Path) -> None:
    folders = folders_of("llama", tmp_path)
    beginning = random_prompts(1, seed=3, longest=2)[0].repeat(64)[:64]
    ends = random_prompts(8, seed=4, longest=20)
    requests = [
        GenerationRequest(
            np.concatenate([beginning, end]),
            SamplingOptions(max_tokens=20, logprobs=1),
            "one tenant's",
            (folders["a"], folders["b"])[index % 2],
        )
        for index, end in enumerate(ends)
    ]
    shared = completed(decoder_of(), requests)
    apart = completed(decoder_of(), [replace(request, sharing_key=None) for request in requests])
    for one, other in zip(shared, apart, strict=True):
        assert_same(one, other)


def broken(folder: Path, target: Path, **changes: Any) -> Path:
    """Returns a copy of an adapter with another configuration, or other tensors."""
    target.mkdir()
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    for key, value in changes.items():
        if isinstance(value, torch.Tensor):
            tensors[key.replace("__", ".")] = value
        else:
            config[key] = value
    (target / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, target / "adapter_model.safetensors", {"format": "pt"})
    return target


def test_an_adapter_that_can_not_be_used_fails_its_prompts_alone_and_says_why(tmp_path: Path) -> None:
    good = folders_of("llama", tmp_path / "good")["a"]
    layer = "base_model__model__model__layers__0__self_attn__q_proj__lora_A__weight"
    wide = torch.zeros(4, 5)
    faults = {
        "another shape": (broken(good, tmp_path / "1", **{layer: wide}), "for another base"),
        "dora": (broken(good, tmp_path / "2", use_dora=True), "use_dora"),
        "another kind": (broken(good, tmp_path / "3", peft_type="IA3"), "IA3"),
        "nan": (
            broken(good, tmp_path / "4", **{layer: torch.full((4, wide.shape[1]), torch.nan)}),
            "NaN",
        ),
        "head": (broken(good, tmp_path / "5", base_model__model__lm_head__lora_A__weight=wide), "lm_head"),
        "missing": (tmp_path / "none", "can not be read"),
    }
    prompt = random_prompts(1)[0]
    options = SamplingOptions(max_tokens=8)
    asked = [GenerationRequest(prompt, options, None, folder) for folder, _ in faults.values()]
    *failed, kept = completed(decoder_of(), [*asked, GenerationRequest(prompt, options, None, good)])
    assert kept.failure is None
    for generation, (name, (folder, why)) in zip(failed, faults.items(), strict=True):
        assert generation.failure is not None, name
        assert why in generation.failure
        assert str(folder) in generation.failure


def test_an_adapter_for_another_base_is_refused(tmp_path: Path) -> None:
    folder = folders_of("llama", tmp_path)["a"]
    require_base(folder, Path("any"), "f" * 64)  # an adapter of PEFT does not say which
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt", BASE_DIGEST: "a" * 64})
    require_base(folder, Path("base"), "a" * 64)
    with pytest.raises(
        InvalidAdapter, match=r"over the base aaaaaaaaaaaaaaaa, and other is ffffffffffffffff"
    ):
        require_base(folder, Path("other"), "f" * 64)


def test_a_local_model_and_a_worker_answer_each_prompt_with_its_adapter(tmp_path: Path) -> None:
    base = save_tiny_generator(tmp_path / "generator", context_tokens=512)
    adapters = [
        Adapter(f"generator-{seed}@1", adapter_digest(folder), folder)
        for seed in (1, 2)
        for folder in [save_random_adapter(base, tmp_path / str(seed), seed)]
    ]
    choices = [AdapterChoice("acme", adapters[0]), AdapterChoice("beta", adapters[1])]
    choices += [AdapterChoice("gamma", None)]
    prompts = [EnginePrompt("How long is the Danube?", RIVERS, "key", each) for each in (*choices, None)]
    context = PromptConfig(max_tokens=200)
    engine = LocalEngine(base, 6, context)
    local = sorted(engine.answer_many(prompts), key=lambda reply: reply.index)
    worker = WorkerEngine(Path(sys.executable), base, Workplace(tmp_path / "work"), 6, context)
    worked = sorted(worker.answer_many(prompts), key=lambda reply: reply.index)
    for replies, name in ((local, "local:generator"), (worked, "worker:generator")):
        assert [reply.failure for reply in replies] == [None] * 4
        assert [reply.said.removeprefix(f"{name} truncated").strip() for reply in replies] == [
            "with generator-1@1",
            "with generator-2@1",
            "by the base: the tenant gamma has no adapter",
            "",
        ]
    taken = [
        [reply.draft.usage.completion_tokens for reply in replies if reply.draft and reply.draft.usage]
        for replies in (local, worked)
    ]
    assert taken[0] == taken[1]


def test_a_prompt_whose_adapter_is_for_another_base_fails_alone(tmp_path: Path) -> None:
    base = save_tiny_generator(tmp_path / "generator", context_tokens=512)
    other = save_tiny_generator(tmp_path / "other", context_tokens=256)
    folder = save_random_adapter(other, tmp_path / "adapter", 1)
    wrong = AdapterChoice("acme", Adapter("generator-acme@1", adapter_digest(folder), folder))
    prompts = [EnginePrompt("How long is the Danube?", RIVERS, None, each) for each in (wrong, None)]
    context = PromptConfig(max_tokens=200)
    worker = WorkerEngine(Path(sys.executable), base, Workplace(tmp_path / "work"), 4, context)
    for engine in (LocalEngine(base, 4, context), worker):
        bad, good = sorted(engine.answer_many(prompts), key=lambda reply: reply.index)
        assert "was trained over the base" in (bad.failure or "")
        assert good.failure is None
