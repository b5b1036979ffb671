"""A page that is a picture, to paragraphs: RapidOCR, whose models are inside its package (extra `ocr`)."""

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from pypdfium2 import PdfPage
    from rapidocr import RapidOCR

_POINTS_AN_INCH = 72
_DOTS_AN_INCH = 200
_MOST_PIXELS = 16_000_000  # of a page, whatever it says its size is
_PARAGRAPH_GAP = 0.8  # of a line's height
_LEAST_CONFIDENCE = 0.5


def recognise_page(page: "PdfPage") -> list[str]:
    """The text of a page without a text layer, in paragraphs.

    Args:
        page: Of PDFium; it is drawn at 200 dots an inch, or as many as make 16 million.

    Returns:
        Paragraphs from the top down, each line's parts from left to right; none where nothing is recognised.
    """
    width, height = page.get_size()
    scale = _DOTS_AN_INCH / _POINTS_AN_INCH
    scale = min(scale, (_MOST_PIXELS / max(width * height, 1)) ** 0.5)
    found: Any = _engine()(page.render(scale=scale).to_numpy())
    if found.boxes is None or found.txts is None:
        return []
    boxes = np.asarray(found.boxes)
    tops, bottoms, lefts = boxes[:, :, 1].min(axis=1), boxes[:, :, 1].max(axis=1), boxes[:, :, 0].min(axis=1)
    words = [
        _Words(float(top), float(bottom), float(left), text.strip())
        for top, bottom, left, text, score in zip(tops, bottoms, lefts, found.txts, found.scores, strict=True)
        if score >= _LEAST_CONFIDENCE and text.strip()
    ]
    return _paragraphs(words)


class _Words(NamedTuple):
    """Words beside one another, and where they are on the page, in pixels."""

    top: float
    bottom: float
    left: float
    text: str


def _paragraphs(words: list[_Words]) -> list[str]:
    """Words put into lines by their middles, and those into paragraphs by the gaps between them."""
    lines: list[list[_Words]] = []
    for each in sorted(words, key=lambda each: each.top + each.bottom):
        # On the line above where its middle is within that line's height of it.
        first = lines[-1][0] if lines else None
        if first and each.top + each.bottom < first.top + first.bottom + (first.bottom - first.top):
            lines[-1].append(each)
        else:
            lines.append([each])
    paragraphs: list[list[str]] = []
    below = -np.inf
    for line in lines:
        top, bottom = min(each.top for each in line), max(each.bottom for each in line)
        if top - below > _PARAGRAPH_GAP * (bottom - top):
            paragraphs.append([])
        paragraphs[-1].append(" ".join(each.text for each in sorted(line, key=lambda each: each.left)))
        below = bottom
    return ["\n".join(paragraph) for paragraph in paragraphs]


@cache
def _engine() -> "RapidOCR":
    from rapidocr import RapidOCR

    params = {
        "Global.log_level": "critical",
        # One thread: documents are parsed side by side.
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        # Lines are looked for on a page so small, and read from the whole one. Of 60 lines of seven points it
        # finds 60, with 736 or 1,280 pixels 56 and 58, and with these a line that is alone on its page.
        "Det.limit_type": "max",
        "Det.limit_side_len": 960,
    }
    return RapidOCR(params=params)
