"""`bench router`: what it costs to answer as well as the best model, with each question routed to one."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, TypeAdapter, ValidationError

from inference.routing.question_router import (
    QuestionRouter,
    cheapest_weight,
    choose_engines,
    read_scored_questions,
)
from orchestration.bench.report import BenchResult
from orchestration.settings import Settings
from retrieval.embedding.embedding_model import EmbeddingModel

_FOLDS = 5
_SEED = 0
_RESAMPLES = 2000


class NoRouterSet(RuntimeError):
    """The folder holds no scored questions with prices."""


class ModelPrice(BaseModel):
    """A model of the set, with its prices in US dollars for a million tokens."""

    input_price: float
    output_price: float


@dataclass(frozen=True)
class _Routed:
    """The model that each question was sent to by a strategy: scores and costs, of shape (questions,)."""

    scores: npt.NDArray[np.float32]
    costs: npt.NDArray[np.float32]


def bench_router(settings: Settings, data: Path) -> BenchResult:
    """Compares routing with the best single model, a random mix of two models, and oracles.

    The router is fitted on four fifths of the questions and routes the others, five times, so that each
    question is routed by a router that has not seen it; also its cost weight is from the four fifths. What a
    question costs with a model is its input price: the set has one price per model, and no token counts.

    Args:
        settings: The embedder.
        data: A folder with `questions.jsonl` (`text`, and `scores` by model) and `models.json` (prices).

    Returns:
        The mean score of the best single model and of the router with a paired 95% bootstrap interval of the
        difference; and what share of the best single model's cost the router, with an interval, a random mix
        of the best model and the best cheap one, and perfect choices of these two and of all take to reach
        its score (the random mix: its score less 0.01).

    Raises:
        NoRouterSet: The folder holds no such files.
    """
    prices = _read_prices(data)
    names = tuple(prices)
    questions = read_scored_questions(data / "questions.jsonl", names)
    scores = np.array([question.scores for question in questions], np.float32)
    costs = np.array([prices[name].input_price for name in names], np.float32)
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    vectors = model.embedder.encode_queries([question.text for question in questions])
    best = int(scores.mean(axis=0).argmax())
    routed = _route_by_folds(vectors, scores, costs)
    share, gain = _intervals(routed, scores[:, best], float(costs[best]))
    cheap = max(np.flatnonzero(costs < costs[best]).tolist(), key=lambda each: float(scores[:, each].mean()))
    two = [cheap, best]
    single, other = float(scores[:, best].mean()), float(scores[:, cheap].mean())
    mixed = (single - 0.01 - other) / (single - other)
    return BenchResult(
        "router",
        {
            "questions": len(questions),
            "models": len(names),
            "score_best_model": single,
            "score_router": float(routed.scores.mean()),
            "score_gain_low": gain[0],
            "score_gain_high": gain[1],
            "score_oracle": float(scores.max(axis=1).mean()),
        },
        {
            "cost_router": float(routed.costs.mean() / costs[best]),
            "cost_router_low": share[0],
            "cost_router_high": share[1],
            "cost_random_mix_less_0.01": float(mixed + (1 - mixed) * costs[cheap] / costs[best]),
            "cost_oracle_of_two": _oracle_cost(scores[:, two], costs[two]) / float(costs[best]),
            "cost_oracle_of_all": _oracle_cost(scores, costs) / float(costs[best]),
        },
    )


def _read_prices(data: Path) -> dict[str, ModelPrice]:
    try:
        found = json.loads((data / "models.json").read_text(encoding="utf-8"))
        return TypeAdapter(dict[str, ModelPrice]).validate_python(found)
    except (OSError, ValueError, ValidationError) as error:
        raise NoRouterSet(
            f"{data} has no models.json with prices: name a folder with questions.jsonl and models.json "
            f"({error})"
        ) from error


def _route_by_folds(
    vectors: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], costs: npt.NDArray[np.float32]
) -> _Routed:
    fold = np.random.default_rng(_SEED).permutation(len(vectors)) % _FOLDS
    chosen = np.empty(len(vectors), np.int64)
    for number in range(_FOLDS):
        seen = fold != number
        chosen[~seen] = QuestionRouter(vectors[seen], scores[seen], costs).choose(vectors[~seen])
    return _Routed(scores[np.arange(len(scores)), chosen], costs[chosen])


def _intervals(
    routed: _Routed, single: npt.NDArray[np.float32], single_cost: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Returns the 95% bootstrap intervals of the router's share of the cost, and of its gain in score."""
    generator = np.random.default_rng(_SEED)
    shares, gains = [], []
    for _ in range(_RESAMPLES):
        drawn = generator.integers(0, len(single), len(single))
        shares.append(routed.costs[drawn].mean() / single_cost)
        gains.append((routed.scores[drawn] - single[drawn]).mean())
    share_low, share_high = np.percentile(shares, [2.5, 97.5])
    gain_low, gain_high = np.percentile(gains, [2.5, 97.5])
    return (float(share_low), float(share_high)), (float(gain_low), float(gain_high))


def _oracle_cost(scores: npt.NDArray[np.float32], costs: npt.NDArray[np.float32]) -> float:
    """Returns the mean cost of perfect choices that score no less than the best model alone."""
    return float(costs[choose_engines(scores, costs, cheapest_weight(scores, scores, costs))].mean())
