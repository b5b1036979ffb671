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
    in_sample = np.arange(len(candidates)) < sample
    scores = fused_scores(lexical[None], vector[None], vector_weight, in_sample[None])[0].tolist()
    fused = [
        SearchCandidate(c.chunk_no, c.chunk_id, score) for c, score in zip(candidates, scores, strict=True)
    ]
    return sorted(fused, key=ranking_key)


def fused_scores(
    lexical: npt.NDArray[np.floating],
    vector: npt.NDArray[np.floating],
    vector_weight: float,
    sample: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Returns the fused scores of the candidates of several queries, as `fuse_rankings` describes them.

    Args:
        lexical: The candidates' BM25 scores, (queries, candidates).
        vector: The candidates' cosine similarities, (queries, candidates).
        vector_weight: The weight of the vector ranking, from 0 to 1.
        sample: Which candidates the scores are standardised by, (queries, candidates).

    Returns:
        float64 of shape (queries, candidates), between 0 and 1.
    """
    combined = (1.0 - vector_weight) * _standardised(lexical, sample)
    combined += vector_weight * _standardised(vector, sample)
    # Rounded, so that equal candidates stay equal in whatever order their scores were summed.
    scores: npt.NDArray[np.float64] = np.round(1.0 / (1.0 + np.exp(-combined)), 9)
    return scores


def _standardised(scores: npt.NDArray[np.floating], sample: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    if not scores.size:
        return np.zeros(scores.shape)
    away = scores - scores.mean(axis=1, dtype=np.float64, where=sample, keepdims=True)
    deviation = scores.std(axis=1, dtype=np.float64, where=sample, keepdims=True)
    # Where all scores are equal, the deviation is only a rounding error.
    out: npt.NDArray[np.float64] = np.zeros_like(away)
    np.divide(away, deviation, out=out, where=deviation > 1e-9)
    return out
