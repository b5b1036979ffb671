"""Fusion of a lexical and a vector ranking."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.search.fusion import SearchCandidate, fuse_rankings


def candidates(names: str) -> list[SearchCandidate]:
    return [SearchCandidate(ord(name), name, math.nan) for name in names]


def fused(names: str, lexical: list[float], vector: list[float], weight: float = 0.5) -> dict[str, float]:
    ranking = fuse_rankings(candidates(names), np.array(lexical), np.array(vector), weight, len(names))
    return {candidate.chunk_id: candidate.score for candidate in ranking}


def logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_each_score_counts_in_deviations_from_the_mean() -> None:
    # Means 2 and 0.5, deviations 2 and 0.25.
    scores = fused("ab", [4.0, 0.0], [0.25, 0.75], weight=0.25)
    assert scores == {"a": pytest.approx(logistic(0.75 - 0.25)), "b": pytest.approx(logistic(0.25 - 0.75))}
    assert list(scores) == ["a", "b"]


def test_neither_scale_nor_offset_of_a_ranking_matters() -> None:
    lexical, vector = [3.0, 1.0, 0.0, 2.0], [0.1, 0.5, 0.3, 0.2]
    moved = fused("abcd", [10 * score + 7 for score in lexical], vector)
    assert moved == pytest.approx(fused("abcd", lexical, vector))


def test_a_ranking_that_tells_nothing_leaves_the_other_in_its_order() -> None:
    assert list(fused("abc", [0.0, 0.0, 0.0], [0.2, 0.9, 0.5])) == ["b", "c", "a"]
    assert list(fused("abc", [2.0, 9.0, 5.0], [0.1, 0.1, 0.1])) == ["b", "c", "a"]
    assert fuse_rankings([], np.array([]), np.array([]), 0.5, 0) == []


def test_equals_are_ordered_by_chunk_id() -> None:
    assert fused("cab", [1.0, 1.0, 1.0], [0.5, 0.5, 0.5]) == {"a": 0.5, "b": 0.5, "c": 0.5}
    assert list(fused("cab", [1.0, 1.0, 1.0], [0.5, 0.5, 0.5])) == ["a", "b", "c"]


rankings = st.lists(st.tuples(st.floats(0, 1e3), st.floats(-1, 1)), max_size=12)


@given(rankings, st.floats(0, 1))
def test_fusion_keeps_every_candidate_once_and_prefers_what_both_prefer(
    scores: list[tuple[float, float]], weight: float
) -> None:
    pool = [SearchCandidate(number, f"{number:02}", 0.0) for number in range(len(scores))]
    lexical, vector = np.array(scores).reshape(-1, 2).T
    ranking = fuse_rankings(pool, lexical, vector, weight, len(pool))
    assert sorted(c.chunk_no for c in ranking) == list(range(len(scores)))
    assert all(0 <= c.score <= 1 for c in ranking)
    assert [(-c.score, c.chunk_id) for c in ranking] == sorted((-c.score, c.chunk_id) for c in ranking)
    found = {c.chunk_no: c.score for c in ranking}
    for i, one in enumerate(scores):
        for j, other in enumerate(scores):
            if one[0] >= other[0] and one[1] >= other[1]:
                assert found[i] >= found[j] - 1e-9


@given(rankings.filter(len), rankings, st.floats(0, 1))
def test_what_is_beyond_the_sample_changes_no_score(
    sampled: list[tuple[float, float]], beyond: list[tuple[float, float]], weight: float
) -> None:
    def scores(pairs: list[tuple[float, float]]) -> dict[int, float]:
        pool = [SearchCandidate(number, f"{number:02}", 0.0) for number in range(len(pairs))]
        lexical, vector = np.array(pairs).T
        return {c.chunk_no: c.score for c in fuse_rankings(pool, lexical, vector, weight, len(sampled))}

    alone, together = scores(sampled), scores(sampled + beyond)
    assert {number: together[number] for number in alone} == alone
