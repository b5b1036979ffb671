"""Tests and intervals for a mean by betting: they hold at any number of values, and when values are added.

A bettor stakes a share of what they have on every value, at odds that are fair if the mean is what the
hypothesis says. Then their wealth reaches 20 with a chance of at most 1 in 20, at any time (Ville's
inequality), so wealth of 20 rejects the hypothesis at the level of 5% (Waudby-Smith and Ramdas, "Estimating
means of bounded random variables by betting", JRSS-B 2024). Nothing is assumed of the values but that none is
below a known least one: neither their number nor their distribution, so one question or ties only are as safe
as thousands.

The share is not known beforehand, so the wealth is split over shares from 0 to 1 whose distribution is the
arcsine law (Cover's universal portfolio; Orabona and Jun, IEEE Trans. Inf. Theory 2024). Each part's wealth
is a product, so the test has no order of the values that somebody could choose, needs no seed, and is
monotone: a larger value never lowers the wealth.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

ALPHA = 0.05
"""How often a test may reject what is true."""
_PARTS = 32
_SHARES = np.sin(np.pi / 2 * (np.arange(_PARTS) + 0.5) / _PARTS) ** 2
"""Quantiles of the arcsine law, (parts,): the share that each part of the wealth stakes on every value."""
_STEPS = 40
"""Halvings of an interval, to a trillionth of it."""


def log_growth(values: Values, mean: float, least: float = -1.0) -> Values:
    """Returns by which factor each value multiplies each part of the wealth, as a logarithm.

    Args:
        values: (values,), none below `least`.
        mean: The hypothesis is that the values' mean is at most this; above `least`.
        least: The least that a value can be.

    Returns:
        (values, parts) float64, all finite.
    """
    return np.log1p(_SHARES * ((values - mean) / (mean - least))[:, None])


def log_wealth(growth: Values) -> Values:
    """Returns the logarithm of the mean over the parts, from sums of `log_growth`: (..., parts) to (...)."""
    most = growth.max(axis=-1, keepdims=True)
    return np.log(np.exp(growth - most).mean(axis=-1)) + most[..., 0]


def p_value(values: Values, mean: float, least: float = -1.0) -> float:
    """Returns the p-value of the hypothesis that the values' mean is at most `mean`; 1 without values.

    Args:
        values: (values,), none below `least`.
        mean: What the mean is at most; above `least`.
        least: The least that a value can be.
    """
    distinct, counts = np.unique(values, return_counts=True)  # most are ties, and sums have one order
    return min(1.0, math.exp(-float(log_wealth(counts @ log_growth(distinct, mean, least)))))


def lower_bound(values: Values, alpha: float = ALPHA, least: float = -1.0) -> float:
    """Returns what the mean of values is above, but for a chance of at most `alpha`; `least` without values.

    That is the largest mean that the test rejects.
    """

    def rejected(mean: float) -> bool:
        return mean <= least or p_value(values, mean, least) <= alpha

    if not len(values):
        return least
    return _last(rejected, least, float(values.mean()))


def interval(values: Values, least: float, most: float, alpha: float = ALPHA) -> tuple[float, float]:
    """Returns the ends of the interval of the mean of values that lie between `least` and `most`.

    It misses the mean with a chance of at most `alpha`, half of it at each end.
    """
    return lower_bound(values, alpha / 2, least), -lower_bound(-values, alpha / 2, -most)


def values_needed(values: Values, mean: float, alpha: float = ALPHA, least: float = -1.0) -> int | None:
    """Returns how many values like these reject that their mean is at most `mean`; None if no number does."""
    growth = log_growth(values, mean, least).mean(axis=0)
    fastest = float(growth.max(initial=0.0))
    if fastest <= 0:
        return None
    enough = math.log(_PARTS / alpha) / fastest  # by the fastest part alone

    def too_few(count: float) -> bool:
        return float(log_wealth(count * growth)) < -math.log(alpha)

    return math.ceil(_last(too_few, 0.0, enough))


def student_interval(values: Values, alpha: float = ALPHA) -> tuple[float, float] | None:
    """Returns Student's interval of the mean of values that have no known ends; None for fewer than two."""
    from scipy.stats import t  # which takes a second

    if len(values) < 2:
        return None
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    reach = float(t.ppf(1 - alpha / 2, len(values) - 1)) * error
    return mean - reach, mean + reach


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Returns up to which place something holds that holds from `low` on and ends to before `high`."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
