"""Draws small charts for the web UI, as Markdown images, which Dagster shows in a dialog."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCHES = (5.2, 2.2)
_DPI = 110
GOOD_COLOUR, BAD_COLOUR = "#0a7d33", "#b3261e"
_BINS = 30


def bar_chart(title: str, values: Mapping[str, float], limit: float | None = None) -> "Figure":
    """Returns a chart with one horizontal bar per name, the first at the top.

    Args:
        title: The chart's title: what the bars measure.
        values: The value of each bar by its name.
        limit: A line is drawn at this value, and bars beyond it are red; None for no line.
    """
    figure, axes = _figure(title)
    beyond = [limit is not None and value > limit for value in values.values()]
    colours = [BAD_COLOUR if each else GOOD_COLOUR for each in beyond]
    axes.barh(list(values), list(values.values()), color=colours)
    axes.invert_yaxis()
    for place, value in enumerate(values.values()):
        axes.annotate(f" {value:,.4g}", (value, place), va="center", fontsize=7)
    axes.margins(x=0.15)
    if limit is not None:
        axes.axvline(limit, color="#555", linestyle=":")
    return figure


def histogram_chart(title: str, values: npt.NDArray[np.float64], log: bool = False) -> "Figure":
    """Returns a histogram of values.

    Args:
        title: The chart's title: what the values are.
        values: (n,) numbers; NaN and infinite ones are left out.
        log: Bins of equal ratio instead of equal width; values that are not above zero are left out.
    """
    figure, axes = _figure(title)
    values = values[np.isfinite(values)]
    if log:
        values = values[values > 0]
    if len(values):
        between = np.geomspace if log else np.linspace
        edges = between(values.min(), values.max(), _BINS + 1)
        # The ends are the values themselves: rounding must not leave them out.
        edges[0], edges[-1] = values.min(), values.max()
        if (np.diff(edges) > 0).all():
            axes.hist(values, bins=list(edges), color=GOOD_COLOUR)
            axes.set_xscale("log" if log else "linear")
        else:  # one value, or so near one that no number lies between
            axes.bar([f"{values[0]:.4g}"], [len(values)], color=GOOD_COLOUR)
    return figure


def line_chart(
    title: str, at: Sequence[str], series: Mapping[str, Sequence[float]], limit: float | None = None
) -> "Figure":
    """Returns a line chart of values over time.

    Args:
        title: The chart's title: what the values are.
        at: The labels of the times, oldest first.
        series: The values of each line by its name, one per time; NaN for a missing value.
        limit: A line is drawn at this value; None for no line.
    """
    figure, axes = _figure(title)
    for name, values in series.items():
        axes.plot(range(len(at)), values, marker="o", markersize=3, linewidth=1, label=name)
    step = max(1, len(at) // 8)
    axes.set_xticks(range(0, len(at), step), list(at)[::step])
    if limit is not None:
        axes.axhline(limit, color="#555", linestyle=":")
    if len(series) > 1:
        axes.legend(fontsize=7, frameon=False)
    return figure


def chart_markdown(figure: "Figure") -> str:
    """Returns a chart as a Markdown image, a PNG in a `data:` URL, with the chart's title as its text."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI)
    title = figure.axes[0].get_title(loc="left")
    return f"![{title}](data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()})"


def _figure(title: str) -> "tuple[Figure, Axes]":
    # Half a second to import, so only where something is drawn.
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
