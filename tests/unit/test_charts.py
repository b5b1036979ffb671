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
    written_out,
)
from assets.dagster.release_charts import metrics_of_live

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
    assert [text.get_text() for text in legend.get_texts()] == ["fused 0.9", "lexical 0.7"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["r1", "r2", "r3"]


def test_values_that_do_not_compare_are_not_joined() -> None:
    """The questions went from 8 to 50: what was 1.00 on the 8 is 0.91 on the 50, and did not fall to 0.92."""
    series, before = {"fused": [1.0, 0.92, 0.95]}, {"fused": [math.nan, 0.91, math.nan]}
    (axes,) = line_chart("nDCG", ["r1\n8", "r2\n50", "r3\n60"], series, before=before, ends=(0, 1)).axes
    points, joined = axes.lines
    assert points.get_linestyle() == "None"
    assert np.ravel(points.get_ydata()).tolist() == [1.0, 0.92, 0.95]
    assert np.ravel(joined.get_xdata()).tolist() == [0, 1]
    assert np.ravel(joined.get_ydata()).tolist() == [0.91, 0.92]
    assert axes.get_ylim() == (0, 1.05)


def test_of_the_live_release_is_kept_what_a_candidate_is_drawn_beside() -> None:
    live = {"ndcg@10": 0.91, "ndcg@10/lexical": 0.8, "ndcg@10/vector": 0.7, "p50_ms": 3.0, "questions": 50.0}
    assert metrics_of_live(live) == {
        "ndcg@10/before": 0.91,
        "ndcg@10/lexical/before": 0.8,
        "ndcg@10/vector/before": 0.7,
    }
    assert metrics_of_live({}) == {}


def test_many_times_have_few_labels() -> None:
    (axes,) = line_chart("nDCG", [f"r{number}" for number in range(50)], {"fused": [0.5] * 50}).axes
    assert len(axes.get_xticklabels()) <= 6


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (12290.0, "12,290"), (12290.4, "12,290"), (1234567890.0, "1,234,567,890"), (0.0, "0"), (7.0, "7"),
        (0.12345, "0.1235"), (0.00012346, "0.0001235"), (999.96, "1000"), (-3.5, "-3.5"),
        (1e-9, "0.000000001"),
    ],
)  # fmt: skip
def test_a_number_is_written_out(value: float, written: str) -> None:
    assert written_out(value) == written


def test_no_axis_has_an_exponent() -> None:
    large = [3e6, 5e6]
    figures = [
        bar_chart("rows", {"a": 3e6, "b": 5e9}),
        histogram_chart("lengths", np.array([1e3, 1e6, 3e7]), log=True),
        histogram_chart("lengths", np.array([1e6, 3e6])),
        histogram_chart("lengths", np.array([1e6, 3e6]), log=True),
        line_chart("rows", ["r1", "r2"], {"a": large}),
    ]
    for figure in figures:
        figure.canvas.draw()
        (axes,) = figure.axes
        said = [
            label.get_text()
            for axis in (axes.xaxis, axes.yaxis)
            for label in axis.get_ticklabels(which="both")
        ]
        said += [axis.get_offset_text().get_text() for axis in (axes.xaxis, axes.yaxis)]
        assert not [each for each in said if re.search(r"\de|10\^|mathdefault", each)], said


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
