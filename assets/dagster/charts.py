"""Small pictures for the web UI, as Markdown, which Dagster shows in a dialog."""

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
_GOOD, _BAD = "#0a7d33", "#b3261e"
_BINS = 30


def bars(title: str, values: Mapping[str, float], limit: float | None = None) -> str:
    """A bar a name, from the top down.

    Args:
        title: What the bars measure.
        values: Name to value.
        limit: Where there is one, a line is drawn at it, and a bar beyond it is red.
    """
    figure, axes = _figure(title)
    names = list(values)
    over = [limit is not None and value > limit for value in values.values()]
    axes.barh(names, list(values.values()), color=[_BAD if each else _GOOD for each in over])
    axes.invert_yaxis()
    for place, value in enumerate(values.values()):
        axes.annotate(f" {value:,.4g}", (value, place), va="center", fontsize=7)
    axes.margins(x=0.15)
    if limit is not None:
        axes.axvline(limit, color="#555", linestyle=":")
    return _markdown(figure, title)


def histogram(title: str, values: npt.NDArray[np.float64], log: bool = False) -> str:
    """How often values occur.

    Args:
        title: What the values are.
        values: (n,) numbers; NaN is left out.
        log: Bins of equal ratio instead of equal width; for values above zero.
    """
    figure, axes = _figure(title)
    values = values[np.isfinite(values)]
    if log:
        values = values[values > 0]
    if len(values):
        between = np.geomspace if log else np.linspace
        edges = between(values.min(), values.max(), _BINS + 1)
        if (np.diff(edges) > 0).all():
            axes.hist(values, bins=list(edges), color=_GOOD)
            axes.set_xscale("log" if log else "linear")
        else:  # one value, or so near one that no number lies between
            axes.bar([f"{values[0]:.4g}"], [len(values)], color=_GOOD)
    return _markdown(figure, title)


def lines(
    title: str, at: Sequence[str], series: Mapping[str, Sequence[float]], limit: float | None = None
) -> str:
    """How figures changed from one moment to the next.

    Args:
        title: What they are.
        at: The moments, oldest first.
        series: Name to one value a moment; NaN where there is none.
        limit: Where there is one, a line is drawn at it.
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
    return _markdown(figure, title)


def _figure(title: str) -> "tuple[Figure, Axes]":
    # Half a second to import, so only where something is drawn.
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _markdown(figure: "Figure", title: str) -> str:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=_DPI)
    return f"![{title}](data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()})"
