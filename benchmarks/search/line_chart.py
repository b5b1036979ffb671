"""Draws line charts with a logarithmic x axis, for figures of a benchmark at several sizes."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_PANEL_INCHES = (5.2, 3.4)
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's palette, which people who do not see all colours can tell apart."""


@dataclass(frozen=True)
class BenchLine:
    """One line of a chart: its name and its points (x, y), in ascending order of x; x is above zero."""

    name: str
    points: Sequence[tuple[float, float]]


def bench_chart_svg(x_label: str, panels: Mapping[str, Sequence[BenchLine]]) -> str:
    """Returns an SVG with panels side by side; all have the same logarithmic x axis, and y begins at zero.

    Args:
        x_label: The label of the x axis.
        panels: The lines of each panel by its title; a line without points is left out.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure  # half a second to import
    from matplotlib.ticker import StrMethodFormatter

    names = list(dict.fromkeys(line.name for lines in panels.values() for line in lines if line.points))
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * len(panels), height), layout="constrained")
    axes_of_panels = figure.subplots(1, len(panels), squeeze=False, sharex=True)[0]
    for axes, (title, lines) in zip(axes_of_panels, panels.items(), strict=True):
        for line in lines:
            if line.points:
                x, y = zip(*line.points, strict=True)
                axes.plot(x, y, marker="o", markersize=4, color=colours[line.name], label=line.name)
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_xlabel(x_label)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="#ddd")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    picture = io.StringIO()
    # Text as text, and nothing that differs from one call to the next.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "headwater"}):
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()
