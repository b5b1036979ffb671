"""Lines over a logarithmic axis as one SVG picture, for figures that a bench keeps from run to run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 420, 300, 50, 90, 40, 45
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which are told apart also by those who do not see all colours."""


@dataclass(frozen=True)
class Line:
    """A name and its points (x, y), by x; x is above zero."""

    name: str
    points: Sequence[tuple[float, float]]


def plot(across: str, panels: Mapping[str, Sequence[Line]]) -> str:
    """Draws panels side by side, each from zero to its greatest value, all over the same decades of x.

    Args:
        across: What x is.
        panels: The lines of each, by the panel's title; a line without points is left out.
    """
    names = list(dict.fromkeys(line.name for lines in panels.values() for line in lines if line.points))
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
    xs = [x for lines in panels.values() for line in lines for x, _ in line.points]
    decades = range(math.floor(math.log10(min(xs))), max(math.ceil(math.log10(max(xs))), 1) + 1)
    drawn = [
        f'<g transform="translate({place * _WIDTH},0)">{_panel(title, across, lines, decades, colours)}</g>'
        for place, (title, lines) in enumerate(panels.items())
    ]
    size = f'width="{_WIDTH * len(panels)}" height="{_HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
        f'<rect {size} fill="white"/>{"".join(drawn)}</svg>\n'
    )


def _panel(title: str, across: str, lines: Sequence[Line], decades: range, colours: Mapping[str, str]) -> str:
    lines = [line for line in lines if line.points]
    step = _step(max(y for line in lines for _, y in line.points))
    top = step * max(1, math.ceil(max(y for line in lines for _, y in line.points) / step - 1e-9))
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    span = max(1, decades[-1] - decades[0])

    def at(x: float, y: float) -> tuple[float, float]:
        across_share = (math.log10(x) - decades[0]) / span
        return _LEFT + across_share * (right - _LEFT), bottom - y / top * (bottom - _TOP)

    parts = [f'<text x="{_LEFT}" y="20" font-weight="bold">{escape(title)}</text>']
    for mark in range(round(top / step) + 1):
        y = at(10 ** decades[0], mark * step)[1]
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{mark * step:g}</text>')
    for decade in decades:
        x = at(10**decade, 0)[0]
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{10**decade:,}</text>')
    parts.append(
        f'<text x="{(_LEFT + right) / 2}" y="{bottom + 34}" text-anchor="middle">{escape(across)}</text>'
    )
    label_y = math.inf
    for line in sorted(lines, key=lambda line: line.points[-1][1]):
        places = [at(x, y) for x, y in line.points]
        colour = colours[line.name]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        label_y = min(places[-1][1] + 4, label_y - 14)  # names never lie on one another
        parts.append(f'<text x="{right + 8}" y="{label_y:.1f}" fill="{colour}">{escape(line.name)}</text>')
    return "".join(parts)


def _step(greatest: float) -> float:
    """A round number of which about five make up the greatest value."""
    rough = max(greatest, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
