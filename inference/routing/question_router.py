"""Routes a question to the cheapest engine that is good enough, by how well each did on similar questions."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

NEIGHBOURS = 60
"""How many similar questions an estimate is the mean of. On the questions of `python -m benchmarks router`,
30 cost more for the same quality, and 120 changed nothing."""

_COST_WEIGHTS = np.concatenate([[0.0], np.geomspace(1e-4, 10.0, 121)])
_ROWS_AT_ONCE = 1024


class InvalidRouterExamples(ValueError):
    """A file of scored questions can not be used; the message names the line."""


@dataclass(frozen=True)
class ScoredQuestion:
    """A question and how well each engine answered it.

    Attributes:
        text: The question.
        scores: The score of each engine, from 0 to 1, in the order of the engines.
    """

    text: str
    scores: tuple[float, ...]


def read_scored_questions(path: Path, engines: tuple[str, ...]) -> list[ScoredQuestion]:
    """Returns the questions in JSON lines such as `{"text": "…", "scores": {"extractive": 0.4, …}}`.

    Args:
        path: The file.
        engines: The engines whose scores are read, in this order.

    Raises:
        InvalidRouterExamples: The file is missing, a line is not such an object, or there are too few.
    """
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRouterExamples(f"{path} can not be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            scores = tuple(float(row["scores"][name]) for name in engines)
            if not (isinstance(row["text"], str) and all(0 <= score <= 1 for score in scores)):
                raise ValueError("a text, or a score from 0 to 1, is missing")
        except (ValueError, LookupError, TypeError) as error:
            raise InvalidRouterExamples(
                f"{path}, line {number}: expected "
                f'{{"text": "…", "scores": {{{", ".join(f"{json.dumps(name)}: 0.5" for name in engines)}}}}} '
                f"({error})"
            ) from error
        found.append(ScoredQuestion(row["text"], scores))
    if len(found) <= NEIGHBOURS:
        raise InvalidRouterExamples(
            f"{path} holds {len(found)} questions; a router needs more than {NEIGHBOURS}"
        )
    return found


class QuestionRouter:
    """A k-nearest-neighbour router (Hu et al., "RouterBench", 2024, section 4).

    An engine's score on a question is estimated by its mean score on the most similar examples; the router
    takes the engine with the best estimate less `weight` times its cost. The weight is the one that, on the
    examples themselves, each estimated from the others, costs least while the mean score is not below that of
    the best engine alone.

    Args:
        vectors: Unit vectors of the examples: float32 of shape (examples, dimension); more than `NEIGHBOURS`.
        scores: The engines' scores: float32 of shape (examples, engines).
        costs: What a question costs with each engine, in any unit: shape (engines,).
    """

    def __init__(self, vectors: Floats, scores: Floats, costs: Floats) -> None:
        self._vectors = vectors
        self._scores = scores
        self._costs = costs
        self.weight = cheapest_weight(self._estimate(vectors, exclude_itself=True), scores, costs)

    def choose(self, vectors: Floats) -> npt.NDArray[np.int64]:
        """Returns the engine for each question: int64 of shape (questions,), by its place in the scores.

        Args:
            vectors: Unit vectors of the questions: float32 of shape (questions, dimension).
        """
        return choose_engines(self._estimate(vectors), self._costs, self.weight)

    def _estimate(self, vectors: Floats, exclude_itself: bool = False) -> Floats:
        """Returns each engine's estimated score on each question: shape (questions, engines)."""
        estimates = np.empty((len(vectors), self._scores.shape[1]), np.float32)
        for start in range(0, len(vectors), _ROWS_AT_ONCE):
            similarity = vectors[start : start + _ROWS_AT_ONCE] @ self._vectors.T
            if exclude_itself:
                rows = np.arange(len(similarity))
                similarity[rows, start + rows] = -np.inf
            nearest = np.argpartition(-similarity, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
            estimates[start : start + len(similarity)] = self._scores[nearest].mean(axis=1)
        return estimates


def cheapest_weight(estimates: Floats, scores: Floats, costs: Floats) -> float:
    """Returns the weight of costs with which choices cost least and score no less than the best engine alone.

    Args:
        estimates: What the choices are made by: float32 of shape (questions, engines).
        scores: What they are judged by, of the same shape.
        costs: What a question costs with each engine: shape (engines,).
    """
    rows = np.arange(len(estimates))
    wanted = scores.mean(axis=0).max()
    cheapest, least = 0.0, np.inf
    for weight in _COST_WEIGHTS:
        chosen = choose_engines(estimates, costs, float(weight))
        cost = costs[chosen].mean()
        if scores[rows, chosen].mean() >= wanted and cost < least:
            cheapest, least = float(weight), cost
    return cheapest


def choose_engines(estimates: Floats, costs: Floats, weight: float) -> npt.NDArray[np.int64]:
    """Returns the engine with the best estimate less the weighted cost, relative to the dearest one's."""
    relative = costs / costs.max() if costs.max() > 0 else costs
    return (estimates - weight * relative).argmax(axis=1)
