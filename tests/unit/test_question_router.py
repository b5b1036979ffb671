"""The router: it takes the cheap engine where that is as good, and loses nothing that it could know of."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.routing.question_router import (
    NEIGHBOURS,
    InvalidRouterExamples,
    QuestionRouter,
    cheapest_weight,
    choose_engines,
    read_scored_questions,
)

COSTS = np.array([0.2, 0.9], np.float32)


def two_kinds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of two kinds of questions: the cheap engine answers only the first kind, the dear one both."""
    random = np.random.default_rng(seed)
    kind = random.integers(0, 2, count)
    vectors = random.normal(0, 0.05, (count, 16)).astype(np.float32)
    vectors[np.arange(count), kind] += 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors, np.stack([kind == 0, np.ones(count)], axis=1).astype(np.float32)


def test_a_kind_that_the_cheap_engine_answers_is_sent_to_it() -> None:
    router = QuestionRouter(*two_kinds(400, seed=1), COSTS)
    vectors, scores = two_kinds(200, seed=2)
    chosen = router.choose(vectors)
    assert (chosen == np.where(scores[:, 0] == 1, 0, 1)).all()


def test_where_the_dear_engine_is_always_better_it_answers_everything() -> None:
    vectors, _ = two_kinds(200, seed=3)
    scores = np.tile(np.array([0.2, 0.9], np.float32), (200, 1))
    assert (QuestionRouter(vectors, scores, COSTS).choose(vectors) == 1).all()


@given(st.integers(0, 1000), st.integers(2, 5))
def test_perfect_choices_are_never_worse_than_the_best_engine_and_never_dearer(
    seed: int, engines: int
) -> None:
    random = np.random.default_rng(seed)
    scores = random.random((80, engines)).astype(np.float32)
    costs = random.random(engines).astype(np.float32) + 0.1
    best = scores.mean(axis=0).argmax()
    chosen = choose_engines(scores, costs, cheapest_weight(scores, scores, costs))
    assert scores[np.arange(80), chosen].mean() >= scores[:, best].mean() - 1e-6


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "line 2"),
        (json.dumps({"text": "Why?", "scores": {"a": 0.5}}), "line 2"),
        (json.dumps({"text": "Why?", "scores": {"a": 0.5, "b": 2}}), "line 2"),
        (json.dumps({"scores": {"a": 0.5, "b": 1}}), "line 2"),
        ("", f"needs more than {NEIGHBOURS}"),
    ],
)
def test_examples_that_can_not_be_used_are_named(tmp_path: Path, line: str, fault: str) -> None:
    file = tmp_path / "examples.jsonl"
    file.write_text(json.dumps({"text": "Where?", "scores": {"a": 0, "b": 1}}) + "\n" + line + "\n")
    with pytest.raises(InvalidRouterExamples, match=fault):
        read_scored_questions(file, ("a", "b"))
