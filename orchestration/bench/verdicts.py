"""`bench verdicts`: how often simulated candidates are released, whose true difference is known."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orchestration.bench.report import BenchTable
from quality.betting import ALPHA, log_growth, log_wealth

_POINTS = (-20, -10, -4, -2, 0, 2, 10, 20)
_QUESTIONS = (5, 10, 20, 50, 100, 200, 500, 1000)
_MORE_DISCORDANT = (0.0, 0.1, 0.3)
"""Shares of the questions that differ beside those that make up the true difference, half of them lost."""
_SIMULATIONS = 2000
_RESAMPLES = 1000
_ANSWERS = np.array([-1.0, 0.0, 1.0])
"""What a question gives: the candidate loses it, is as good, or wins it."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SimulatedGate:
    """How often candidates of one kind had which verdict, in percent.

    Attributes:
        true_difference_points: The true mean difference of a figure, in percentage points.
        questions: How many questions were asked.
        discordant_percent: How many of a hundred questions the candidate truly wins or loses.
        released: How often it was released.
        refused: How often it was refused.
        undecided: How often the questions were too few.
        promised: The bound that holds at any number of questions.
        released_before: How often the rule before released: not significantly worse, by a bootstrap.
    """

    true_difference_points: int
    questions: int
    discordant_percent: float
    released: float
    refused: float
    undecided: float
    promised: str
    released_before: float


def bench_verdicts(
    tolerance: float, progress: Callable[[str], None], simulations: int = _SIMULATIONS
) -> BenchTable[SimulatedGate]:
    """Simulates a figure of candidates, and has it judged as the gates do, and as they did before.

    Args:
        tolerance: How much worse a figure may be.
        progress: Called with one line per true difference.
        simulations: How many candidates of each kind.
    """
    random = np.random.default_rng(0)
    rows = []
    for points in _POINTS:
        progress(f"simulating {simulations:,} candidates of each kind, truly {points:+d} points")
        for more in _MORE_DISCORDANT:
            won, lost = max(points, 0) / 100 + more / 2, max(-points, 0) / 100 + more / 2
            for questions in _QUESTIONS:
                counts = random.multinomial(questions, [lost, 1 - lost - won, won], simulations)
                released = _rejected(counts, -tolerance)
                refused = _rejected(counts[:, ::-1], tolerance)
                before = ~_significantly_worse(counts, tolerance, random)
                worse = points / 100 <= -tolerance  # by more than is allowed, or by just as much
                rows.append(
                    SimulatedGate(
                        points,
                        questions,
                        round(100 * (won + lost), 6),
                        _percent(released),
                        _percent(refused),
                        _percent(~released & ~refused),
                        f"{'released' if worse else 'refused'} ≤ {100 * ALPHA:.0f}%",
                        _percent(before),
                    )
                )
    return BenchTable("verdicts", rows, {})


def _rejected(counts: Counts, mean: float) -> npt.NDArray[np.bool_]:
    """Returns in which simulations the hypothesis is rejected that the true mean is at most `mean`."""
    wealth: npt.NDArray[np.float64] = log_wealth(counts @ log_growth(_ANSWERS, mean))
    return wealth >= -math.log(ALPHA)


def _significantly_worse(
    counts: Counts, tolerance: float, random: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Returns where the mean is below the tolerance, and the 95% bootstrap interval below zero."""
    questions = int(counts[0].sum())
    distinct, place = np.unique(counts, axis=0, return_inverse=True)
    high = np.empty(len(distinct))
    for number, each in enumerate(distinct):  # one at a time: all draws at once are gigabytes
        drawn = random.multinomial(questions, each / questions, _RESAMPLES)
        high[number] = np.quantile(drawn @ _ANSWERS / questions, 0.975)
    worse = (distinct @ _ANSWERS / questions < -tolerance) & (high < 0)
    found: npt.NDArray[np.bool_] = worse[place.ravel()]
    return found


def _percent(found: npt.NDArray[np.bool_]) -> float:
    return float(100 * found.mean())
