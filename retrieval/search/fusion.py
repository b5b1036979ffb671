"""One ranking out of a lexical and a vector ranking."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class SearchCandidate(NamedTuple):
    """A chunk that a ranking proposes.

    Attributes:
        chunk_no: Its row in the generation.
        chunk_id: Its identity, which orders equal scores.
        score: Larger is better; comparable within one ranking only.
    """

    chunk_no: int
    chunk_id: str
    score: float


def ranking_key(candidate: SearchCandidate) -> tuple[float, str]:
    """What a ranking is sorted by: best first, equal scores by chunk_id."""
    return -candidate.score, candidate.chunk_id


def fuse_rankings(
    candidates: Sequence[SearchCandidate],
    lexical: npt.NDArray[np.float64],
    vector: npt.NDArray[np.float64],
    vector_weight: float,
    sample: int,
) -> list[SearchCandidate]:
    """The convex combination of both standardised scores of every chunk that either ranking proposes.

    Each score counts as its distance from a sample's mean, in its standard deviations: of the same chunks for
    every number of hits, so that a longer list scores what a shorter one holds the same. Both scores are
    known of every candidate, also of one that the other ranking alone proposed: to take a score that was not
    looked up for the lowest costs more than which normalisation is chosen (docs/retrieval.md has the
    figures). On convex combinations: Bruch, Gai and Ingber, "An Analysis of Fusion Functions for Hybrid
    Retrieval" (2023).

    Args:
        candidates: Each chunk once, with whatever score; first those of the sample.
        lexical: Their BM25, 0 where a chunk holds no word of the query.
        vector: Their cosine similarity.
        vector_weight: The part, of 1, that the vector ranking has.
        sample: How many of the candidates, from the first, give the mean and the deviation.

    Returns:
        The candidates, best first, equal scores by chunk_id. A score is between 0 and 1: the logistic
        function of the combination, 0.5 for what is as good as the mean.
    """
    combined = (1.0 - vector_weight) * _standardised(lexical, sample)
    combined += vector_weight * _standardised(vector, sample)
    # Rounded, so that equals stay equal however their sums were made.
    scores = np.round(1.0 / (1.0 + np.exp(-combined)), 9).tolist()
    fused = [
        SearchCandidate(c.chunk_no, c.chunk_id, score) for c, score in zip(candidates, scores, strict=True)
    ]
    return sorted(fused, key=ranking_key)


def _standardised(scores: npt.NDArray[np.float64], sample: int) -> npt.NDArray[np.float64]:
    if not len(scores):
        return scores
    away = scores - scores[:sample].mean()
    deviation = scores[:sample].std()
    # Equals say nothing; what is left of them is rounding.
    return away / deviation if deviation > 1e-9 else np.zeros_like(away)
