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
_LABELS = 6
"""The most labels under a line chart."""


def bar_chart(title: str, values: Mapping[str, float], limit: float | None = None) -> "Figure":
    """Returns a chart with one horizontal bar per name, the first at the top.

    Args:
        title: The chart's title: what the bars measure.
        limit: A line is drawn at this value, and bars beyond it are red; None for no line.
    """
    figure, axes = _figure(title)
    beyond = [limit is not None and value > limit for value in values.values()]
    colours = [BAD_COLOUR if each else GOOD_COLOUR for each in beyond]
    axes.barh(list(values), list(values.values()), color=colours)
    axes.invert_yaxis()
    for place, value in enumerate(values.values()):
        axes.annotate(f" {written_out(value)}", (value, place), va="center", fontsize=7)
    axes.margins(x=0.15)
    axes.xaxis.set_major_formatter(written_out)
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
            if log and edges[-1] < 10 * edges[0]:  # within a decade, a logarithmic axis has small ticks only
                axes.set_xticks(np.geomspace(edges[0], edges[-1], 4))
            axes.xaxis.set_major_formatter(written_out)
            axes.xaxis.set_minor_formatter("")
        else:  # one value, or so near one that no number lies between
            axes.bar([written_out(values[0])], [len(values)], color=GOOD_COLOUR)
        axes.yaxis.set_major_formatter(written_out)
        axes.locator_params(axis="y", integer=True)
    return figure


def line_chart(
    title: str,
    at: Sequence[str],
    series: Mapping[str, Sequence[float]],
    limit: float | None = None,
    before: Mapping[str, Sequence[float]] | None = None,
    ends: tuple[float, float] | None = None,
) -> "Figure":
    """Returns a line chart of values over time, whose legend says the newest value of each line.

    Args:
        title: The chart's title: what the values are.
        at: The labels of the times, oldest first.
        series: The values of each line by its name, one per time; NaN for a missing value.
        limit: A line is drawn at this value; None for no line.
        before: For values that compare only with some others: by the line's name, what each value is compared
            with at the time before it, NaN for nothing. None where all compare, and are joined.
        ends: The least and the largest value that can be, where the chart shows all between.
    """
    figure, axes = _figure(title)
    for name, values in series.items():
        known = [value for value in values if np.isfinite(value)]
        label = f"{name} {written_out(known[-1])}" if known else name
        line = "None" if before else "-"
        (points,) = axes.plot(
            range(len(at)), values, marker="o", markersize=3, linewidth=1, linestyle=line, label=label
        )
        for place, earlier in enumerate(before[name] if before else ()):
            if place and np.isfinite(earlier):
                joined = (earlier, values[place])
                axes.plot((place - 1, place), joined, linewidth=1, color=points.get_color())
    step = max(1, -(-len(at) // _LABELS))
    axes.set_xticks(range(0, len(at), step), list(at)[::step])
    axes.yaxis.set_major_formatter(written_out)
    if ends:
        spare = (ends[1] - ends[0]) / 20
        axes.set_ylim(ends[0], ends[1] + spare)
    if limit is not None:
        axes.axhline(limit, color="#555", linestyle=":")
    if len(series) > 1:
        axes.legend(fontsize=7, frameon=False)
    return figure


def written_out(value: float, place: float = 0) -> str:
    """Returns a number with four digits or more, never with an exponent: 12,290 and 0.00012.

    Args:
        place: Where matplotlib, which calls this for its axes, writes it.
    """
    if not np.isfinite(value) or abs(value) >= 1000 or value == round(value):
        return f"{value:,.0f}"
    return np.format_float_positional(value, 4, fractional=False, trim="-")


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
