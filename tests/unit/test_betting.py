"""Tests and intervals by betting: their level at any number of values, and that no order can be chosen."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality.betting import (
    ALPHA,
    interval,
    log_growth,
    log_wealth,
    lower_bound,
    p_value,
    student_interval,
    values_needed,
)

gains = st.lists(st.floats(-1, 1), min_size=1, max_size=40).map(np.array)
margins = st.floats(-0.5, 0.5)


@given(gains, margins, st.data())
def test_a_larger_value_is_never_weaker_evidence(
    values: np.ndarray, mean: float, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(values) - 1))
    better = values.copy()
    better[place] = data.draw(st.floats(values[place], 1))
    assert p_value(better, mean) <= p_value(values, mean) * (1 + 1e-9)
    assert lower_bound(better) >= lower_bound(values) - 1e-9


@given(gains, margins, st.randoms())
def test_the_order_of_the_values_does_not_count(values: np.ndarray, mean: float, random: object) -> None:
    shuffled = values.tolist()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert p_value(np.array(shuffled), mean) == p_value(values, mean)


@given(gains)
def test_an_interval_holds_the_mean_of_what_was_seen_and_says_more_of_more(values: np.ndarray) -> None:
    low, high = interval(values, -1, 1)
    assert -1 <= low <= values.mean() + 1e-9
    assert values.mean() - 1e-9 <= high <= 1
    low_of_more, high_of_more = interval(np.tile(values, 8), -1, 1)
    assert high_of_more - low_of_more <= high - low + 1e-9


@given(gains, margins)
def test_the_bound_is_where_the_test_begins_to_reject(values: np.ndarray, mean: float) -> None:
    bound = lower_bound(values)
    if abs(bound - mean) > 1e-6:
        assert (p_value(values, mean) <= ALPHA) == (bound > mean)
    assert not (p_value(values, mean) <= ALPHA and p_value(-values, -mean) <= ALPHA), "never both"


def test_one_value_and_ties_only_leave_an_interval() -> None:
    low, high = interval(np.array([1.0]), -1, 1)
    assert low < -0.9
    assert high == 1
    low, high = interval(np.zeros(10), -1, 1)
    assert low == -high
    assert high > 0.3
    assert student_interval(np.array([1.0])) is None
    low, high = student_interval(np.array([1.0, 3.0])) or (0, 0)
    assert (low, high) == pytest.approx((2 - 12.706, 2 + 12.706), abs=1e-3)
    assert lower_bound(np.array([])) == lower_bound(np.full(9, -1.0)) == -1


def test_how_many_are_needed_is_how_many_reject() -> None:
    needed = values_needed(np.zeros(3), -0.02)
    assert needed is not None
    assert math.log(1 / ALPHA) / 0.0202 < needed < 220, "by ties alone"
    assert p_value(np.zeros(needed), -0.02) <= ALPHA < p_value(np.zeros(needed - 1), -0.02)
    assert values_needed(np.array([-1.0]), -0.02) is None
    spread = np.array([-1.0, 1.0] + [0.0] * 8)
    needed = values_needed(spread, -0.02)
    assert needed is not None
    assert p_value(np.tile(spread, math.ceil(needed / 10)), -0.02) <= ALPHA
    assert p_value(np.tile(spread, needed // 10 - 1), -0.02) > ALPHA


@pytest.mark.parametrize("discordant", [0.03, 0.3, 1.0])
def test_what_is_true_is_rejected_in_at_most_5_percent_at_every_number_taken_together(
    discordant: float,
) -> None:
    """The wealth is looked at after each of 400 values: Ville's inequality is about all of them."""
    margin = -0.02
    lost = (discordant - margin) / 2
    chances = [lost, 1 - discordant, discordant - lost]
    drawn = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], (2000, 400), p=chances)
    growth = log_growth(drawn.ravel(), margin).reshape(*drawn.shape, -1).cumsum(axis=1)
    rejected = (log_wealth(growth) >= math.log(1 / ALPHA)).any(axis=1).mean()
    assert rejected <= ALPHA


def test_10_000_values_take_little_memory() -> None:
    program = (
        "import json, resource, numpy as np\n"
        "from quality.betting import interval\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "values = np.random.default_rng(0).normal(0, 0.2, 10_000).clip(-1, 1)\n"
        "ends = interval(values, -1, 1)\n"
        "print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, *ends]))\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    more_kib, low, high = json.loads(ran.stdout)
    assert more_kib < 100_000
    assert -0.02 < low < 0 < high < 0.02
