"""Products in fewer bits: near those in the model's own, and the same to the bit in any company."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from test_batch_decoder import assert_same, completed
from test_engines import RIVERS, WordEncoder
from tiny_decoders import CONFIGS, END, SMALL, byte_tokenizer, random_prompts, tiny_decoder
from tiny_generator import save_tiny_generator

from inference.engines.generation import GenerationRequest, Quantization, SamplingOptions
from inference.engines.generator import EngineConfig, build_engine
from inference.engines.protocol import EngineError, EnginePrompt
from inference.engines.torch.decoder import BatchDecoder
from inference.engines.torch.linear import UnavailableQuantization, build_linear, check_quantization
from inference.engines.worker.engine import Workplace

_HAS = torch.cpu.get_capabilities()
needs_vnni = pytest.mark.skipif(
    not (_HAS.get("avx512_vnni") or _HAS.get("avx_vnni")), reason="the processor has no VNNI"
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("quantization", "error"),
    [(None, 0.003), pytest.param("int8", 0.015, marks=needs_vnni), ("fp8", 0.05)],
)
def test_a_product_is_near_that_in_double_precision(
    quantization: Quantization | None, error: float, dtype: torch.dtype
) -> None:
    """Float8 products of PyTorch's run on a CPU too, slowly."""
    torch.manual_seed(0)
    weight, bias, x = (torch.randn(size).to(dtype) for size in ((96, 64), (96,), (16, 64)))
    x[1] *= 1000  # each row has a scale of its own
    for added in (None, bias):
        found = build_linear(weight, added, 16, quantization)(x)
        wanted = x.double() @ weight.double().T + (0 if added is None else added.double())
        assert found.dtype == dtype
        assert (((found - wanted).norm(dim=1) / wanted.norm(dim=1)) < error).all()


@needs_vnni
def test_zeros_stay_zeros_and_a_row_with_nan_leaves_the_others_alone() -> None:
    linear = build_linear(torch.eye(16, dtype=torch.bfloat16), None, 16, "int8")
    x = torch.ones(16, 16, dtype=torch.bfloat16)
    x[3], x[5, 2], x[6, 2] = 0, float("nan"), float("inf")
    found = linear(x)
    assert (found[3] == 0).all()
    assert not found[5].isfinite().any()
    assert not found[6].isfinite().any()
    assert (found[[0, 1, 2, 4, *range(7, 16)]] == 1).all()


@needs_vnni
@pytest.mark.parametrize("name", CONFIGS)
def test_in_int8_a_prompt_has_the_same_tokens_in_any_batch_order_and_neighbourhood(name: str) -> None:
    model = tiny_decoder(name, torch.bfloat16)
    decoder = BatchDecoder(
        model, byte_tokenizer(), frozenset({END}), 1 << 30, geometry=SMALL, quantization="int8"
    )
    options = SamplingOptions(max_tokens=12, logprobs=2)
    requests = [GenerationRequest(prompt, options) for prompt in random_prompts(40, longest=100)]
    whole = completed(decoder, requests)
    assert len({each.token_ids.tobytes() for each in whole}) > 20
    for order in (np.random.default_rng(1).permutation(40), np.arange(20, 29), [3]):
        for place, generation in zip(order, completed(decoder, [requests[at] for at in order]), strict=True):
            assert_same(generation, whole[place])


def test_a_machine_that_does_not_compute_so_is_told_before_a_model_is_loaded() -> None:
    with pytest.raises(UnavailableQuantization, match=r"int8 is for a machine with VNNI.*do not set"):
        check_quantization("int8", "cuda")
    with pytest.raises(UnavailableQuantization, match=r"8\.9 or more.*do not set"):
        check_quantization("fp8", "cpu")
    check_quantization(None, "cpu")


@needs_vnni
def test_the_setting_reaches_the_model_here_and_in_a_worker_and_is_another_engine(tmp_path: Path) -> None:
    folder = save_tiny_generator(tmp_path / "model")
    plain, int8 = (EngineConfig(model=folder, max_new_tokens=4, quantization=each) for each in (None, "int8"))
    assert not plain.answers_as(int8)
    here = [build_engine(config, WordEncoder()) for config in (plain, int8)]
    assert len({engine.digest for engine in here}) == 2
    assert [reply.failure for reply in here[1].answer_many([EnginePrompt("Where?", RIVERS)])] == [None]

    commands: list[Sequence[str]] = []

    def launch(command: Sequence[str], environment: Mapping[str, str]) -> None:
        commands.append(command)
        raise EngineError("only the command is looked at")

    python = Path(sys.executable)
    at = Workplace(tmp_path / "work", launch)
    there = [
        build_engine(config.model_copy(update={"worker_python": python}), WordEncoder(), at)
        for config in (plain, int8)
    ]
    assert len({engine.digest for engine in there}) == 2
    for engine in there:
        list(engine.answer_many([EnginePrompt("Where?", RIVERS)]))
    assert ["--quantization" in command for command in commands] == [False, True]
    assert commands[1][-2:] == ["--quantization", "int8"]
