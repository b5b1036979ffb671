"""An evaluation as one picture: a bar a mode for each measure, with the interval that its queries leave."""

from html import escape

from orchestration.operations.evaluation import MEASURES, CollectionResult

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Okabe and Ito's, which are told apart also by those who do not see all colours."""
_BAR, _GAP, _HEIGHT, _LEFT, _TOP, _BOTTOM = 34, 30, 260, 44, 44, 46


def evaluation_svg(result: CollectionResult) -> str:
    """Draws an evaluation as SVG, from 0 to 1, each bar with its 95% bootstrap interval."""
    group = _BAR * len(result.modes)
    width = _LEFT + len(MEASURES) * (group + _GAP) + 110
    base = _TOP + _HEIGHT
    title = f"{result.dataset}: {result.documents:,} documents, {result.queries:,} queries"
    drawn = [f'<text x="{_LEFT}" y="22" font-weight="bold">{escape(title)}</text>']
    for tenth in range(0, 11, 2):
        y = base - _HEIGHT * tenth / 10
        drawn.append(f'<path d="M{_LEFT} {y:.1f}H{width - 110}" stroke="#ddd"/>')
        drawn.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>')
    for column, measure in enumerate(MEASURES):
        left = _LEFT + _GAP / 2 + column * (group + _GAP)
        drawn.append(
            f'<text x="{left + group / 2:.1f}" y="{base + 20}" text-anchor="middle">{escape(measure)}</text>'
        )
        for place, (colour, mode) in enumerate(zip(_COLOURS, result.modes.values(), strict=False)):
            mean, low, high = mode.interval(measure)
            x = left + place * _BAR
            y, bottom, top = (base - _HEIGHT * value for value in (mean, low, high))
            middle = x + _BAR / 2 - 2
            drawn.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{_BAR - 4}" height="{base - y:.1f}" fill="{colour}"/>'
                f'<path d="M{middle:.1f} {bottom:.1f}V{top:.1f}" stroke="#000"/>'
                f'<text x="{middle:.1f}" y="{base - 6}" text-anchor="middle" fill="#fff" font-size="10">'
                f"{mean:.3f}</text>"
            )
    for place, (colour, name) in enumerate(zip(_COLOURS, result.modes, strict=False)):
        y = _TOP + 20 * place
        drawn.append(f'<rect x="{width - 100}" y="{y}" width="12" height="12" fill="{colour}"/>')
        drawn.append(f'<text x="{width - 82}" y="{y + 11}">{escape(name)}</text>')
    size = f'width="{width}" height="{base + _BOTTOM}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
        f'<rect {size} fill="white"/>{"".join(drawn)}</svg>\n'
    )
