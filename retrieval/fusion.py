"""One ranking out of a lexical and a vector ranking."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """A chunk that a ranking proposes.

    Attributes:
        chunk_no: Its row in the generation.
        chunk_id: Its identity, which orders equal scores.
        score: Larger is better; comparable within one ranking only.
    """

    chunk_no: int
    chunk_id: str
    score: float


def fuse(
    lexical: Sequence[Candidate], vector: Sequence[Candidate], vector_weight: float = 0.5
) -> list[Candidate]:
    """The convex combination of both rankings' min-max normalised scores.

    Each ranking's best candidate counts 1 and its last 0. A candidate that a ranking does not hold is no
    better than its last, so it counts 0 there. After Bruch, Gai and Ingber, "An Analysis of Fusion Functions
    for Hybrid Retrieval" (2023), who find it above reciprocal-rank fusion, as we do.

    Args:
        lexical: One ranking.
        vector: The other.
        vector_weight: The part, of 1, that the vector ranking has.

    Returns:
        Every candidate once, best first; equal scores by chunk_id.
    """
    fused: dict[int, Candidate] = {}
    for ranking, weight in ((lexical, 1.0 - vector_weight), (vector, vector_weight)):
        for candidate, score in zip(ranking, _normalised([c.score for c in ranking]), strict=True):
            before = fused.get(candidate.chunk_no)
            total = weight * score + (before.score if before else 0.0)
            fused[candidate.chunk_no] = Candidate(candidate.chunk_no, candidate.chunk_id, total)
    return sorted(fused.values(), key=lambda candidate: (-candidate.score, candidate.chunk_id))


def _normalised(scores: Sequence[float]) -> list[float]:
    if not scores:
        return []
    low, high = min(scores), max(scores)
    if high == low:
        return [1.0] * len(scores)
    return [(score - low) / (high - low) for score in scores]
