"""Recognises the text in pictures by RapidOCR, whose models are inside its package (extra `ocr`)."""

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from assets.parsing.formats.paged.picture import Pixels

if TYPE_CHECKING:
    from rapidocr import RapidOCR

_PARAGRAPH_GAP = 0.8  # in heights of a line
_MIN_CONFIDENCE = 0.5


def recognise_text(pixels: Pixels) -> list[str]:
    """Returns the paragraphs in a picture.

    Args:
        pixels: uint8 of shape (height, width, 3), blue before green before red.

    Returns:
        Paragraphs from top to bottom, the words of each line from left to right; none if nothing is
        recognised.
    """
    found: Any = _engine()(pixels)
    if found.boxes is None or found.txts is None:
        return []
    boxes = np.asarray(found.boxes)
    tops, bottoms, lefts = boxes[:, :, 1].min(axis=1), boxes[:, :, 1].max(axis=1), boxes[:, :, 0].min(axis=1)
    words = [
        _Words(float(top), float(bottom), float(left), text.strip())
        for top, bottom, left, text, score in zip(tops, bottoms, lefts, found.txts, found.scores, strict=True)
        if score >= _MIN_CONFIDENCE and text.strip()
    ]
    return _paragraphs(words)


class _Words(NamedTuple):
    """A run of words in one line and its place on the page, in pixels."""

    top: float
    bottom: float
    left: float
    text: str


def _paragraphs(words: list[_Words]) -> list[str]:
    """Groups words into lines by their vertical middles, and lines into paragraphs by their gaps."""
    lines: list[list[_Words]] = []
    for each in sorted(words, key=lambda each: each.top + each.bottom):
        # In the same line if its middle is less than half that line's height below the line's middle.
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
        # One thread, because documents are parsed in parallel.
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        # Lines are detected on a page scaled to this size and read at full size. Of 60 lines of seven points
        # it detects 60, but 56 at 736 pixels and 58 at 1,280; it also detects a line that is alone on its
        # page.
        "Det.limit_type": "max",
        "Det.limit_side_len": 960,
    }
    return RapidOCR(params=params)
