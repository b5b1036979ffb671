"""Fuses a lexical and a vector ranking into one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class SearchCandidate(NamedTuple):
    """A chunk that a ranking proposes, with its score.

    Attributes:
        chunk_no: The number of its row in the generation.
        chunk_id: Its id, which orders candidates of equal scores.
        score: Larger is better; comparable within one ranking only.
    """

    chunk_no: int
    chunk_id: str
    score: float


def ranking_key(candidate: SearchCandidate) -> tuple[float, str]:
    """Returns the sort key of a candidate: best scores first, equal scores by chunk_id."""
    return -candidate.score, candidate.chunk_id


def fuse_rankings(
    candidates: Sequence[SearchCandidate],
    lexical: npt.NDArray[np.float64],
    vector: npt.NDArray[np.float64],
    vector_weight: float,
    sample: int,
) -> list[SearchCandidate]:
    """Returns candidates ranked by a convex combination of their two standardised scores.

    A score is standardised by the mean and standard deviation of a sample. The sample is the same for every
    number of hits, so that a chunk has the same score in a longer list. Both scores are given for every
    candidate, also for one that only one ranking proposed: replacing an unknown score by the lowest one costs
    more than the choice of normalisation (figures in docs/retrieval.md). On convex combinations: Bruch, Gai
    and Ingber, "An Analysis of Fusion Functions for Hybrid Retrieval" (2023).

    Args:
        candidates: The chunks, each once, the sample first; their `score` is not read.
        lexical: The candidates' BM25 scores, (candidates,); 0 for a chunk without a word of the query.
        vector: The candidates' cosine similarities, (candidates,).
        vector_weight: The weight of the vector ranking, from 0 to 1.
        sample: The number of candidates in the sample: the first ones.

    Returns:
        The candidates, best first, equal scores by chunk_id. A score is the logistic function of the
        combination: between 0 and 1, and 0.5 for a candidate as good as the mean.
    """
    combined = (1.0 - vector_weight) * _standardised(lexical, sample)
    combined += vector_weight * _standardised(vector, sample)
    # Rounded, so that equal candidates stay equal in whatever order their scores were summed.
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
    # Where all scores are equal, the deviation is only a rounding error.
    return away / deviation if deviation > 1e-9 else np.zeros_like(away)
