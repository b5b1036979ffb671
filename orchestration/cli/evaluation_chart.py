"""Draws evaluations as bar charts: a bar per search mode or engine and measure, with its interval."""

import io
from collections.abc import Mapping

import numpy as np

from quality.evaluation.answer_evaluation import ANSWER_MEASURES, AnswerEvaluation
from quality.evaluation.collection_evaluation import MEASURES, CollectionEvaluation

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Okabe and Ito's palette, which people who do not see all colours can tell apart."""
_SHARES = tuple(measure for measure in ANSWER_MEASURES if measure != "words")
_INCHES = (7.0, 4.0)
_GROUP_WIDTH = 0.85


def evaluation_svg(evaluation: CollectionEvaluation) -> str:
    """Returns an SVG bar chart from 0 to 1; each bar is a mean with its 95% bootstrap interval."""
    bars = {
        name: {measure: mode.interval(measure) for measure in MEASURES}
        for name, mode in evaluation.modes.items()
    }
    return _bars_svg(
        f"{evaluation.dataset}: {evaluation.documents:,} documents, {evaluation.queries:,} queries", bars
    )


def answers_svg(evaluation: AnswerEvaluation) -> str:
    """Returns an SVG bar chart of the shares that a collection gives, each a mean with its 95% interval."""
    bars: dict[str, dict[str, tuple[float, float, float]]] = {}
    for name, engine in evaluation.engines.items():
        for measure in _SHARES:
            mean, interval = engine.mean(measure), engine.interval(measure)
            if mean is not None and interval is not None:
                bars.setdefault(name, {})[measure] = mean, *interval
    return _bars_svg(f"{evaluation.dataset}: {evaluation.questions:,} questions", bars)


def _bars_svg(title: str, bars: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> str:
    """The chart of `(mean, low, high)` by series and measure; a series may lack measures of others."""
    import matplotlib as mpl
    from matplotlib.figure import Figure  # half a second to import

    measures = list(dict.fromkeys(measure for values in bars.values() for measure in values))
    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    bar_width = _GROUP_WIDTH / max(1, len(bars))
    for place, (name, values) in enumerate(bars.items()):
        given = [number for number, measure in enumerate(measures) if measure in values]
        mean, low, high = np.array([values[measures[number]] for number in given]).T
        left = np.array(given) + place * bar_width
        # A mean of draws may lie a rounding error outside of its interval, and an error bar can not.
        errors = np.maximum([mean - low, high - mean], 0)
        drawn = axes.bar(
            left, mean, 0.9 * bar_width, yerr=errors, color=_COLOURS[place % len(_COLOURS)], label=name
        )
        axes.bar_label(
            drawn, [f"{value:.3f}" for value in mean], label_type="center", color="white", fontsize=7
        )
    # Long names lie on one another where there are many.
    names = [name.replace("_", "\n") for name in measures]
    axes.set_xticks(np.arange(len(measures)) + (_GROUP_WIDTH - bar_width) / 2, names)
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
