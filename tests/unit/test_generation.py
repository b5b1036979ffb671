"""What may be asked of a batch decoder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.generation import GenerationRequest, InvalidSamplingOption, SamplingOptions


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", 1e9),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_k", 0),
        ("min_p", 2.0),
        ("seed", -1),
        ("logprobs", 21),
        ("presence_penalty", 3.0),
        ("stop", ("",)),
        ("stop", ("x" * 1001,)),
        ("stop", ("x",) * 1001),
        ("response_format", "{"),
        ("response_format", "[" * 100_000),
        ("response_format", "[]"),
        ("response_format", "{}"),
        ("response_format", '{"type": "yaml"}'),
        ("response_format", '{"type": "json_schema"}'),
        ("response_format", '{"type": "json_schema", "json_schema": {"schema": []}}'),
    ],
)
def test_a_value_that_can_not_be_is_refused_by_the_name_of_its_option(option: str, value: object) -> None:
    with pytest.raises(InvalidSamplingOption, match=option):
        SamplingOptions(**{option: value})  # type: ignore[arg-type]


@given(
    max_tokens=st.integers(1, 10**9),
    temperature=st.floats(0, 100),
    stop=st.lists(st.text(min_size=1, max_size=20), max_size=1000).map(tuple),
)
def test_what_is_within_the_bounds_is_kept_as_it_is(
    max_tokens: int, temperature: float, stop: tuple[str, ...]
) -> None:
    options = SamplingOptions(max_tokens=max_tokens, temperature=temperature, stop=stop)
    assert (options.max_tokens, options.temperature, options.stop) == (max_tokens, temperature, stop)
    assert options.greedy == (temperature < 1e-5)


def test_the_schema_is_that_of_openais_response_format() -> None:
    asked = '{"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "null"}}}'
    schemas = [None, '{"type": "text"}', '{"type": "json_object"}', asked]
    found = [SamplingOptions(response_format=each).json_schema for each in schemas]
    assert found == [None, None, '{"type": "object"}', '{"type": "null"}']


@pytest.mark.parametrize("prompt", [np.zeros((1, 2), np.int64), np.zeros(3, np.float32)])
def test_a_prompt_is_a_row_of_token_ids(prompt: np.ndarray) -> None:
    with pytest.raises(ValueError, match="token ids"):
        GenerationRequest(prompt)
