"""Charts hold the values that they are given, and are pictures that Markdown shows."""

import base64
import io
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle

from assets.dagster.charts import (
    BAD_COLOUR,
    GOOD_COLOUR,
    bar_chart,
    chart_markdown,
    histogram_chart,
    line_chart,
)

PICTURE = re.compile(r"!\[(?P<title>[^\]]*)\]\(data:image/png;base64,(?P<png>[A-Za-z0-9+/=]+)\)")


def picture(figure: Figure) -> np.ndarray:
    """The pixels of a chart as Markdown shows it, (height, width, channels)."""
    found = PICTURE.fullmatch(chart_markdown(figure))
    assert found
    assert found["title"] == figure.axes[0].get_title(loc="left")
    return imread(io.BytesIO(base64.b64decode(found["png"])), format="png")


def bars_of(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def test_a_bar_chart_has_a_bar_per_name_as_long_as_its_value() -> None:
    figure = bar_chart("documents per kind", {"a": 1.0, "b": 3.0, "c": 1234.5}, limit=2)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in bars_of(axes)] == [1.0, 3.0, 1234.5]
    assert [to_hex(bar.get_facecolor()) for bar in bars_of(axes)] == [GOOD_COLOUR, BAD_COLOUR, BAD_COLOUR]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert axes.yaxis_inverted()  # the first at the top
    assert [text.get_text().strip() for text in axes.texts] == ["1", "3", "1,234"]
    (limit,) = axes.lines
    assert set(np.ravel(limit.get_xdata())) == {2}
    assert not bar_chart("no limit", {"a": 1.0}).axes[0].lines


def test_a_histogram_counts_every_value() -> None:
    values = np.array([1.0, 1.0, 2.0, 10.0, math.nan, math.inf])
    (axes,) = histogram_chart("lengths", values).axes
    counts = [bar.get_height() for bar in bars_of(axes)]
    assert (counts[0], counts[-1], sum(counts)) == (2, 1, 4)
    assert axes.get_xscale() == "linear"
    (axes,) = histogram_chart("lengths", np.array([-1.0, 0.0, 1.0, 10.0, 1000.0]), log=True).axes
    bars = bars_of(axes)
    assert sum(bar.get_height() for bar in bars) == 3
    assert axes.get_xscale() == "log"
    first, second = bars[0], bars[1]
    ratio = (first.get_x() + first.get_width()) / first.get_x()
    assert (second.get_x() + second.get_width()) / second.get_x() == pytest.approx(ratio)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=20), st.booleans())
def test_a_histogram_takes_any_numbers(values: list[float], log: bool) -> None:
    numbers = np.array(values, np.float64)
    figure = histogram_chart("lengths", numbers, log)
    shown = numbers[np.isfinite(numbers) & (~np.array(log) | (numbers > 0))]
    assert sum(bar.get_height() for bar in bars_of(figure.axes[0])) == len(shown)
    assert picture(figure).shape[:2] == (242, 572)


def test_a_line_chart_has_a_line_per_series_and_a_gap_where_there_is_no_value() -> None:
    series = {"fused": [0.8, math.nan, 0.9], "lexical": [0.5, 0.6, 0.7]}
    (axes,) = line_chart("nDCG", ["r1", "r2", "r3"], series, limit=0.55).axes
    fused, lexical, limit = axes.lines
    assert np.ravel(fused.get_ydata()).tolist() == pytest.approx([0.8, math.nan, 0.9], nan_ok=True)
    assert np.ravel(lexical.get_ydata()).tolist() == [0.5, 0.6, 0.7]
    assert set(np.ravel(limit.get_ydata())) == {0.55}
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["fused", "lexical"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["r1", "r2", "r3"]


def test_a_bar_is_seen() -> None:
    pixels = picture(bar_chart("kinds", {"a": 1.0, "b": 5.0}, limit=3))
    colours = {to_hex(tuple(colour)) for colour in pixels.reshape(-1, pixels.shape[-1]).tolist()}
    assert {GOOD_COLOUR, BAD_COLOUR} <= colours


@pytest.mark.parametrize(
    "figure",
    [
        bar_chart("kinds", {}),
        histogram_chart("lengths", np.array([])),
        line_chart("nDCG", [], {"fused": []}),
        line_chart("nDCG", ["r1.1"], {"fused": [math.nan]}),
    ],
    ids=["bars", "histogram", "no time", "no value"],
)
def test_nothing_is_a_picture_too(figure: Figure) -> None:
    assert picture(figure).shape[:2] == (242, 572)
