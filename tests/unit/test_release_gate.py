import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality.evaluation.release_gate import ReleaseGate, decide_release

GATE = ReleaseGate(tolerance=0.02, floor_ndcg=0.5, floor_recall=0.9)


def metrics(ndcg: float, recall: float = 1.0) -> dict[str, float]:
    return {"ndcg@10": ndcg, "ann_recall@10": recall}


@pytest.mark.parametrize(
    ("candidate", "live", "released", "reason"),
    [
        (metrics(0.7), None, True, "as the first release"),
        (metrics(0.7) | {"questions": 1234.0}, None, True, "1.000 on 1,234 questions, against the floors"),
        (metrics(0.4), None, False, "ndcg@10 is 0.400, below the floor of 0.500"),
        (metrics(0.7, 0.8), None, False, "ann_recall@10 is 0.800, below the floor of 0.900"),
        (metrics(0.69), metrics(0.7), True, "live release"),
        (metrics(0.67), metrics(0.7), False, "ndcg@10 fell from 0.700 to 0.670, more than 0.020"),
        (metrics(0.8, 0.95), metrics(0.7, 1.0), False, "ann_recall@10 fell from 1.000 to 0.950"),
        (metrics(0.49), metrics(0.5), False, "below the floor"),
        (metrics(math.nan), None, False, "ndcg@10 was not measured"),
        ({"ndcg@10": 0.9}, None, False, "ann_recall@10 was not measured"),
        (metrics(0.9), {"ndcg@10": 0.9}, False, "ann_recall@10 of the live release was not measured"),
    ],
)
def test_a_candidate_goes_live_only_when_every_figure_holds(
    candidate: dict[str, float], live: dict[str, float] | None, released: bool, reason: str
) -> None:
    decision = decide_release(candidate, live, GATE)
    assert decision.released is released
    assert reason in decision.reason


def test_another_method_has_to_show_that_it_is_no_worse() -> None:
    few, many = {"acme": np.zeros(50)}, {"acme": np.zeros(200), "beta": np.zeros(100)}
    assert decide_release(metrics(0.7), metrics(0.7), GATE, few).released, (
        "by the same method any number of questions"
    )
    undecided = decide_release(metrics(0.7), metrics(0.7), GATE, few, another_method=True)
    assert undecided.outcome == "undecided"
    assert "50 questions, about 208 needed" in undecided.reason
    assert "another embedder or chunker" in undecided.reason
    assert decide_release(metrics(0.7), metrics(0.7), GATE, many, another_method=True).released
    below = decide_release(metrics(0.4), metrics(0.4), GATE, many, another_method=True)
    assert below.outcome == "refused", "the floors stay"
    worse = {tenant: each - 0.3 for tenant, each in many.items()}
    assert decide_release(metrics(0.6), metrics(0.9), GATE, worse, another_method=True).outcome == "refused"
    # Its vectors are others, and so is the exact search that those of the live release are compared with.
    recall = decide_release(metrics(0.7, 0.95), metrics(0.7, 1.0), GATE, many, another_method=True)
    assert recall.released
    gone = decide_release(metrics(0.7), {}, GATE, {}, another_method=True)
    assert gone.outcome == "undecided"
    assert "could not be asked" in gone.reason


@pytest.mark.parametrize("another_method", [False, True])
def test_a_tenant_that_loses_its_answers_is_not_hidden_by_the_others(another_method: bool) -> None:
    gains = {"big": np.zeros(3000), "small": -np.ones(10)}
    verdict = decide_release(metrics(0.7), metrics(0.7), GATE, gains, another_method)
    assert verdict.outcome == "refused"
    assert "ndcg@10 of tenant small fell by 1.000" in verdict.reason
    assert "big" not in verdict.reason
    of_one = gains | {"small": np.array([0.0, 0, 0, -1])}
    assert decide_release(metrics(0.7), metrics(0.7), GATE, of_one, another_method).released, "by chance"


def test_every_fault_is_named() -> None:
    reason = decide_release(metrics(0.1, 0.1), None, GATE).reason
    assert "ndcg@10" in reason
    assert "ann_recall@10" in reason


unit = st.floats(0, 1)


@given(unit, unit, unit, unit)
def test_what_is_released_never_falls_by_more_than_the_tolerance(
    ndcg: float, recall: float, live_ndcg: float, live_recall: float
) -> None:
    if decide_release(metrics(ndcg, recall), metrics(live_ndcg, live_recall), GATE).released:
        assert ndcg >= max(live_ndcg - GATE.tolerance, GATE.floor_ndcg)
        assert recall >= max(live_recall - GATE.tolerance, GATE.floor_recall)
