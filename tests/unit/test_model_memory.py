"""The models of a process stay within their budget; the least recently used goes, what is in use stays."""

import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cross_encoders import save_cross_encoder
from hypothesis import given
from hypothesis import strategies as st
from test_engines import RIVERS
from tiny_generator import save_tiny_generator
from transformers import BertForSequenceClassification

from common.model_memory import MODEL_MEMORY, ModelMemory, ModelMemoryError, weights_bytes
from inference.engines.local import LocalEngine
from inference.engines.protocol import EngineError, EnginePrompt
from retrieval.rerank.reranker import RerankerConfig, RerankError
from retrieval.rerank.reranking import build_reranker

ROOT = Path(__file__).parents[2]


class Weights:
    """What stands for a model's weights."""


@given(
    sizes=st.lists(st.integers(0, 10), min_size=1, max_size=6),
    uses=st.lists(st.integers(0, 5), max_size=30),
    spare=st.integers(0, 20),
)
def test_the_least_recently_used_goes_and_the_sum_is_never_above_the_budget(
    sizes: list[int], uses: list[int], spare: int
) -> None:
    memory = ModelMemory(max(sizes) + spare)
    loads: list[int] = []

    def load(number: int) -> Callable[[], Weights]:
        return lambda: loads.append(number) or Weights()  # type: ignore[func-returns-value]

    models = [memory.model(f"m{number}", size, load(number)) for number, size in enumerate(sizes)]
    loaded: list[int] = []  # least recently used first
    for use in uses:
        number = use % len(sizes)
        expected = len(loads) + (number not in loaded)
        with models[number].in_use() as weights:
            assert isinstance(weights, Weights)
        if number not in loaded:
            while sum(sizes[each] for each in loaded) + sizes[number] > max(sizes) + spare:
                loaded.pop(0)
        loaded = [each for each in loaded if each != number] + [number]
        assert len(loads) == expected
        assert memory.loaded_bytes == sum(sizes[each] for each in loaded) <= max(sizes) + spare


def test_a_model_that_never_fits_or_not_beside_one_in_use_is_told_the_setting_its_size_and_the_cure() -> None:
    memory = ModelMemory(100_000_000)
    with pytest.raises(
        ModelMemoryError, match=r"big takes 101 MB.*100: set HEADWATER_MODEL_MEMORY_MB higher"
    ):
        memory.model("big", 101_000_000, Weights)
    one, other = memory.model("one", 60_000_000, Weights), memory.model("other", 60_000_000, Weights)
    with (
        one.in_use(),
        pytest.raises(ModelMemoryError, match=r"other takes 60 MB .* beside one, .*_MEMORY_MB"),
    ):
        other.in_use().__enter__()
    with other.in_use(), other.in_use():
        assert memory.loaded_bytes == 60_000_000


def test_a_thread_waits_until_another_has_done_with_what_must_go() -> None:
    memory, order = ModelMemory(10), list[str]()
    one, other = memory.model("one", 6, Weights), memory.model("other", 6, Weights)

    def use_other() -> None:
        with other.in_use():
            order.append("other")

    waiting = threading.Thread(target=use_other)
    with one.in_use():
        waiting.start()
        waiting.join(0.2)
        order.append("one")
    waiting.join(10)
    assert order == ["one", "other"]


def test_threads_that_use_models_at_random_never_hang_or_pass_the_budget() -> None:
    memory = ModelMemory(10)
    models = [memory.model(str(size), size, Weights) for size in (2, 3, 5, 7, 10)]
    most: list[int] = []

    def work(seed: int) -> None:
        for step in range(15):
            with models[(seed * 7 + step * step) % 5].in_use():
                most.append(memory.loaded_bytes)

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(120)
        assert not each.is_alive()
    assert len(most) == 90
    assert max(most) <= 10


def test_a_model_that_fails_to_load_or_whose_owner_is_gone_takes_no_memory() -> None:
    memory = ModelMemory(10)
    with pytest.raises(ZeroDivisionError):
        memory.model("damaged", 6, lambda: 1 // 0).in_use().__enter__()
    model = memory.model("sound", 6, Weights)
    with model.in_use():
        assert memory.loaded_bytes == 6
    del model
    gc.collect()
    assert memory.loaded_bytes == 0


@pytest.fixture
def budget() -> Iterator[ModelMemory]:
    """The process's memory of models, whose budget a test may set."""
    yield MODEL_MEMORY
    MODEL_MEMORY.budget_bytes = None


def test_a_generator_that_was_given_up_writes_the_same_when_it_is_asked_again(
    tmp_path: Path, budget: ModelMemory
) -> None:
    folder = save_tiny_generator(tmp_path / "generator")
    size = weights_bytes(folder, 4)
    budget.budget_bytes = 2 * size
    gc.collect()
    engine = LocalEngine(folder, max_new_tokens=8)
    before = engine.answer("Where does it rise?", RIVERS)
    with budget.model("another", 2 * size, Weights).in_use():
        assert budget.loaded_bytes == 2 * size
        [failed] = engine.answer_many([EnginePrompt("Where does it rise?", RIVERS)])
        assert "beside another" in str(failed.failure)
    assert engine.answer("Where does it rise?", RIVERS) == before
    budget.budget_bytes = size // 4
    with pytest.raises(EngineError, match="HEADWATER_MODEL_MEMORY_MB"):
        LocalEngine(folder)


def test_a_reranker_that_does_not_fit_says_so(tmp_path: Path, budget: ModelMemory) -> None:
    budget.budget_bytes = 1_000_000
    config = RerankerConfig(model=save_cross_encoder(tmp_path / "reranker"))
    with pytest.raises(RerankError, match=r"reranker takes 4 MB.*HEADWATER_MODEL_MEMORY_MB"):
        build_reranker(config)


_RESIDENT = """
import sys, time
from pathlib import Path
import psutil, torch
from common.model_memory import MODEL_MEMORY
from retrieval.rerank.cross_encoder import CrossEncoderReranker

folder = Path(sys.argv[2])
MODEL_MEMORY.budget_bytes = int(sys.argv[1]) or None
resident = lambda: psutil.Process().memory_info().rss
CrossEncoderReranker(folder, 8).scores("q", ["t"], time.monotonic() + 99)
start, most = resident(), 0
rerankers = [CrossEncoderReranker(folder, 8) for _ in range(4)]
for _ in range(2):
    for each in rerankers:
        each.scores("Where?", ["There."], time.monotonic() + 99)
        most = max(most, resident() - start)
print(most, MODEL_MEMORY.loaded_bytes)
"""


@pytest.mark.slow
def test_resident_memory_stays_within_the_budget(tmp_path: Path) -> None:
    folder = save_cross_encoder(tmp_path, hidden_size=512)
    # In half precision: files in float32 would be mapped, and only what is read of them be resident.
    BertForSequenceClassification.from_pretrained(folder).half().save_pretrained(folder)
    size = weights_bytes(folder, 4)
    assert size > 60_000_000

    def resident(budget: int) -> tuple[int, int]:
        command = [sys.executable, "-c", _RESIDENT, str(budget), str(folder)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        most, loaded = map(int, ran.stdout.split())
        return most, loaded

    free, all_loaded = resident(0)
    held, loaded = resident(2 * size + size // 2)
    assert all_loaded == 4 * size
    assert loaded == 2 * size
    assert free > 3.5 * size
    assert held < 3.2 * size
