import base64
import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.dagster import charts

PICTURE = re.compile(r"!\[(?P<title>[^\]]*)\]\(data:image/png;base64,(?P<png>[A-Za-z0-9+/=]+)\)")


def png(value: str) -> bytes:
    found = PICTURE.fullmatch(value)
    assert found
    return base64.b64decode(found["png"])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=20), st.booleans())
def test_a_histogram_takes_any_numbers(values: list[float], log: bool) -> None:
    assert png(charts.histogram("lengths", np.array(values, np.float64), log)).startswith(b"\x89PNG")


def test_other_values_give_another_picture() -> None:
    same = [png(charts.bars("kinds", {"a": 1.0, "b": 2.0})) for _ in range(2)]
    assert same[0] == same[1]
    assert png(charts.bars("kinds", {"a": 1.0, "b": 3.0})) != same[0]
    assert png(charts.bars("kinds", {"a": 1.0, "b": 2.0}, limit=1.5)) != same[0]


def test_nothing_is_a_picture_too() -> None:
    for value in (
        charts.bars("kinds", {}),
        charts.histogram("lengths", np.array([])),
        charts.lines("nDCG", [], {"fused": []}),
        charts.lines("nDCG", ["r1.1"], {"fused": [float("nan")]}),
    ):
        assert png(value).startswith(b"\x89PNG")


def test_a_line_needs_no_value_everywhere() -> None:
    full = charts.lines("nDCG", ["r1", "r2"], {"fused": [0.8, 0.9]}, limit=0.5)
    assert png(charts.lines("nDCG", ["r1", "r2"], {"fused": [0.8, float("nan")]}, limit=0.5)) != png(full)
