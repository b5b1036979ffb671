"""Draws an evaluation as a bar chart: one bar per search mode and measure, with its confidence interval."""

import io

import numpy as np

from quality.evaluation.collection_evaluation import MEASURES, CollectionEvaluation

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Okabe and Ito's palette, which people who do not see all colours can tell apart."""
_INCHES = (7.0, 4.0)
_GROUP_WIDTH = 0.85


def evaluation_svg(evaluation: CollectionEvaluation) -> str:
    """Returns an SVG bar chart from 0 to 1; each bar is a mean with its 95% bootstrap interval."""
    import matplotlib as mpl
    from matplotlib.figure import Figure  # half a second to import

    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title(
        f"{evaluation.dataset}: {evaluation.documents:,} documents, {evaluation.queries:,} queries",
        loc="left",
    )
    bar_width = _GROUP_WIDTH / len(evaluation.modes)
    for place, (name, mode) in enumerate(evaluation.modes.items()):
        mean, low, high = np.array([mode.interval(measure) for measure in MEASURES]).T
        left = np.arange(len(MEASURES)) + place * bar_width
        # A mean of draws may lie a rounding error outside of its interval, and an error bar can not.
        errors = np.maximum([mean - low, high - mean], 0)
        bars = axes.bar(left, mean, 0.9 * bar_width, yerr=errors, color=_COLOURS[place], label=name)
        axes.bar_label(
            bars, [f"{value:.3f}" for value in mean], label_type="center", color="white", fontsize=7
        )
    axes.set_xticks(np.arange(len(MEASURES)) + (_GROUP_WIDTH - bar_width) / 2, list(MEASURES))
    axes.set_ylim(0, 1)
    axes.grid(axis="y", color="#ddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    picture = io.StringIO()
    # Text as text, and nothing that differs from one call to the next.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "headwater"}):
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()
