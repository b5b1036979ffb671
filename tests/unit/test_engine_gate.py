"""Which engine may answer, by what it has more than the one that does."""

from hypothesis import given
from hypothesis import strategies as st

from inference.engines.generator import EngineConfig
from quality.evaluation.engine_gate import BETTER_HIGHER, BETTER_LOWER, EngineGate, decide_engine_release

GATE = EngineGate(tolerance=0.02)


def gain(difference: float, low: float, high: float) -> dict[str, float]:
    return {"difference": difference, "low": low, "high": high}


def test_what_is_worse_beyond_tolerance_and_chance_is_held_and_named() -> None:
    held = decide_engine_release({"right": gain(-0.1, -0.2, -0.03), "refused": gain(0, 0, 0)}, GATE)
    assert not held.released
    assert "right -0.100 [-0.200, -0.030]" in held.reason
    assert "refused" not in held.reason
    more_refusals = decide_engine_release({"refused": gain(0.1, 0.03, 0.2)}, GATE)
    assert not more_refusals.released


def test_what_chance_or_the_tolerance_explains_is_released() -> None:
    assert decide_engine_release({"right": gain(-0.1, -0.25, 0.05)}, GATE).released
    assert decide_engine_release({"right": gain(-0.015, -0.018, -0.01)}, GATE).released
    assert decide_engine_release({"refused": gain(-0.5, -0.6, -0.4)}, GATE).released
    assert decide_engine_release({"words": gain(-50, -60, -40), "right": gain(0, 0, 0)}, GATE).released


def test_nothing_measured_is_no_release() -> None:
    assert not decide_engine_release({}, GATE).released
    assert not decide_engine_release({"words": gain(1, 1, 1)}, GATE).released


@given(
    st.sampled_from([*BETTER_HIGHER, *BETTER_LOWER]),
    st.tuples(*[st.floats(-1, 1)] * 3).map(sorted),
)
def test_of_two_engines_that_differ_one_at_least_is_released(figure: str, ends: list[float]) -> None:
    low, mean, high = ends
    forth = decide_engine_release({figure: gain(mean, low, high)}, GATE)
    back = decide_engine_release({figure: gain(-mean, -high, -low)}, GATE)
    assert forth.released or back.released


def test_one_engine_is_what_decides_the_same_answers() -> None:
    endpoint = EngineConfig(endpoint="http://127.0.0.1:1", endpoint_model="m")
    assert endpoint.answers_as(endpoint.model_copy(update={"timeout_s": 5.0, "api_key_env": "KEY"}))
    assert not endpoint.answers_as(endpoint.model_copy(update={"endpoint_model": "n"}))
    assert not endpoint.answers_as(endpoint.model_copy(update={"max_new_tokens": 5}))
    assert EngineConfig().answers_as(EngineConfig(max_new_tokens=5, tiers=["extractive"]))
    assert not EngineConfig().answers_as(endpoint)
