"""Finds the words of a text, also in scripts that put no spaces between them."""

import numpy as np
import numpy.typing as npt
from icu4py.breakers import WordBreaker

from common.scripts import UNSPACED

_LAST_OF_BASIC_PLANE = 0xFFFF


def split_words(text: str) -> list[str]:
    """Returns the words of a text, as they are written; what has no letter or digit is no word.

    Between spaces, words end at punctuation; in scripts without spaces ICU's dictionaries find them
    (Unicode UAX 29, and for Chinese, Japanese, Thai, Lao, Khmer and Burmese the dictionaries of ICU).

    Args:
        text: Any text without unpaired surrogates.
    """
    return [word for word in WordBreaker(text, "") if any(map(str.isalnum, word))]


def count_words(text: str) -> int:
    """Returns the number of words: runs between whitespace, or of scripts without spaces ICU's words."""
    if text.isascii() or not UNSPACED.search(text):
        return len(text.split())
    return len(split_words(text))


def word_starts(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
    """Returns the indices at which ICU's segments begin in characters of scripts without spaces.

    Args:
        codes: Code points, none of them a surrogate; at least one.

    Returns:
        Ascending indices; the first is 0. Punctuation and spaces are segments as well.
    """
    segments = WordBreaker(codes.astype("<u4").tobytes().decode("utf-32-le"), "").segments()
    starts = np.fromiter((start for start, _ in segments), dtype=np.intp)
    wide = codes > _LAST_OF_BASIC_PLANE
    if wide.any():  # ICU counts in UTF-16, where these take two places
        places = np.arange(len(codes)) + np.cumsum(wide) - wide
        starts = np.searchsorted(places, starts)
    return starts
