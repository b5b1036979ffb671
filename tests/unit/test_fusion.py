"""Fusion of a lexical and a vector ranking."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.fusion import Candidate, fuse

Ranking = list[Candidate]


def ranking(**scores: float) -> Ranking:
    return [Candidate(ord(name), name, score) for name, score in scores.items()]


def test_each_ranking_counts_from_its_last_to_its_best() -> None:
    fused = fuse(ranking(a=10.0, b=6.0, c=2.0), ranking(b=0.9, d=0.8, c=0.7), vector_weight=0.25)
    assert [(c.chunk_id, pytest.approx(c.score)) for c in fused] == [
        ("a", 0.75),
        ("b", 0.75 * 0.5 + 0.25),
        ("d", 0.25 * 0.5),
        ("c", 0.0),
    ]


def test_a_candidate_missing_from_a_ranking_is_no_better_than_its_last() -> None:
    with_it = fuse(ranking(a=3.0, b=1.0), ranking(a=0.5, b=0.4, z=0.1))
    without = fuse(ranking(a=3.0, b=1.0), ranking(a=0.5, b=0.4, z=0.1)[:2] + ranking(y=0.1))
    assert {c.chunk_id: c.score for c in with_it}["z"] == {c.chunk_id: c.score for c in without}["y"] == 0.0


def test_one_empty_ranking_leaves_the_other_in_its_order() -> None:
    assert [c.chunk_id for c in fuse([], ranking(b=0.9, a=0.1))] == ["b", "a"]
    assert [c.chunk_id for c in fuse(ranking(b=0.9, a=0.1), [])] == ["b", "a"]
    assert fuse([], []) == []


def test_a_ranking_of_equals_counts_fully_and_orders_by_chunk_id() -> None:
    assert [(c.chunk_id, c.score) for c in fuse(ranking(b=2.0, a=2.0), [])] == [("a", 0.5), ("b", 0.5)]


scores = st.dictionaries(st.integers(0, 20), st.floats(-1e6, 1e6), max_size=12)


@given(scores, scores, st.floats(0, 1))
def test_fusion_keeps_every_candidate_once_between_zero_and_one(
    lexical: dict[int, float], vector: dict[int, float], weight: float
) -> None:
    def ranked(found: dict[int, float]) -> Ranking:
        return sorted((Candidate(n, f"{n:02}", s) for n, s in found.items()), key=lambda c: -c.score)

    fused = fuse(ranked(lexical), ranked(vector), weight)
    assert sorted(c.chunk_no for c in fused) == sorted({*lexical, *vector})
    assert all(-1e-9 <= c.score <= 1 + 1e-9 for c in fused)
    assert [(-c.score, c.chunk_id) for c in fused] == sorted((-c.score, c.chunk_id) for c in fused)
