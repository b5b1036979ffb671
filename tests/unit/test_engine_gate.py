"""Which engine may answer, by what it has more than the one that does."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.generator import EngineConfig
from quality.evaluation.engine_gate import JUDGED, EngineGate, decide_engine_release

GATE = EngineGate(tolerance=0.02)


def answers(lost: int, same: int, won: int) -> np.ndarray:
    return np.repeat([-1.0, 0.0, 1.0], [lost, same, won])


def test_what_is_shown_to_be_worse_is_refused_and_named() -> None:
    refused = decide_engine_release({"right": answers(40, 60, 0), "answered": answers(0, 100, 0)}, GATE)
    assert refused.outcome == "refused"
    assert "right -0.400" in refused.reason
    assert "answered" not in refused.reason
    fewer = decide_engine_release({"answered": answers(40, 60, 0), "right": answers(0, 100, 0)}, GATE)
    assert fewer.outcome == "refused"


def test_what_is_shown_to_be_no_worse_is_released_and_what_chance_explains_is_not_decided() -> None:
    assert decide_engine_release({"right": answers(5, 90, 5)}, GATE).outcome == "undecided"
    assert decide_engine_release({"right": answers(0, 300, 0)}, GATE).released
    assert decide_engine_release({"right": np.full(3000, -0.015)}, GATE).released
    assert decide_engine_release({"right": answers(5, 0, 0)}, EngineGate(tolerance=1.0)).released
    assert decide_engine_release({"words": np.full(300, -50.0), "right": answers(0, 300, 0)}, GATE).released


def test_nothing_measured_is_no_release() -> None:
    assert not decide_engine_release({}, GATE).released
    assert not decide_engine_release({"words": np.ones(300)}, GATE).released


def test_what_says_nothing_of_right_answers_releases_nobody() -> None:
    quotes_anything = {"answered": answers(0, 300, 0), "supported": answers(0, 300, 0)}
    refuses_all = {"refused_on_negative": answers(0, 0, 300)}
    for differences in (quotes_anything, refuses_all):
        assert decide_engine_release(differences, GATE).outcome == "undecided"
    assert decide_engine_release(quotes_anything | {"citation_recall": answers(0, 300, 0)}, GATE).released


def test_a_figure_that_is_not_a_number_decides_nothing() -> None:
    differences = {"right": np.append(np.ones(300), np.nan), "answered": answers(0, 300, 0)}
    verdict = decide_engine_release(differences, GATE)
    assert (verdict.outcome, verdict.questions_needed) == ("undecided", None)


@given(
    st.sampled_from(JUDGED),
    st.lists(st.floats(-1, 1), min_size=1, max_size=50).map(np.array),
)
def test_of_two_engines_one_at_most_is_refused(figure: str, differences: np.ndarray) -> None:
    same = {"right": np.zeros(len(differences))}
    forth = decide_engine_release(same | {figure: differences}, GATE)
    back = decide_engine_release(same | {figure: -differences}, GATE)
    assert forth.outcome != "refused" or back.outcome != "refused"


def test_one_engine_is_what_decides_the_same_answers() -> None:
    endpoint = EngineConfig(endpoint="http://127.0.0.1:1", endpoint_model="m")
    assert endpoint.answers_as(endpoint.model_copy(update={"timeout_s": 5.0, "api_key_env": "KEY"}))
    assert not endpoint.answers_as(endpoint.model_copy(update={"endpoint_model": "n"}))
    assert not endpoint.answers_as(endpoint.model_copy(update={"max_new_tokens": 5}))
    assert EngineConfig().answers_as(EngineConfig(max_new_tokens=5, tiers=["extractive"]))
    assert not EngineConfig().answers_as(endpoint)
