"""Words, lines and paragraphs of a text as numpy arrays, without a Python object per word."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from common.scripts import UNSPACED_SCRIPTS
from retrieval.language.words import word_starts

WordHashes = npt.NDArray[np.uint64]
TokenIndex = npt.NDArray[np.intp]
HASH_PRIME = np.uint64(0x100000001B3)

# Bits of a character's kind: `_UNSPACED` is of a script that puts no spaces between words.
_SPACE, _LETTER, _DIGIT, _UNSPACED = np.uint8(1), np.uint8(2), np.uint8(4), np.uint8(8)
_LAST = 0xFFFF  # the last character of the basic plane
_BLANK, _NEWLINE = 0x20, 0x0A
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class TextTokens:
    """The words of a text as arrays.

    Attributes:
        codes: The code point of each visible character, uint32.
        folded: The code point of each visible character in lower case, uint32.
        positions: The offset of each visible character in the text.
        starts: The index in `codes` of the first character of each word.
        ends: The index in `codes` after the last character of each word.
        lengths: The number of characters of each word.
        hashes: A 64-bit hash of each word without case; equal words have equal hashes.
        alphabetic: Whether each word has a letter.
        alphanumeric: Whether each word has a letter or digit.
        line_starts: The index of the first word of each line that has a word.
        paragraph_starts: The index in `line_starts` of the first line of each paragraph.
    """

    codes: npt.NDArray[np.uint32]
    folded: npt.NDArray[np.uint32]
    positions: TokenIndex
    starts: TokenIndex
    ends: TokenIndex
    lengths: TokenIndex
    hashes: WordHashes
    alphabetic: npt.NDArray[np.bool_]
    alphanumeric: npt.NDArray[np.bool_]
    line_starts: TokenIndex
    paragraph_starts: TokenIndex


def tokenize_text(codes: npt.NDArray[np.uint32]) -> TextTokens:
    """Splits a text into words, lines and paragraphs.

    A word is a run of characters between whitespace; in scripts without spaces, what ICU's dictionaries take
    for one, with the punctuation after it.

    Args:
        codes: The code points of the text; at least one is not whitespace.
    """
    table = _characters()
    small = np.minimum(codes, _LAST)
    kind = table.kinds[small]
    visible = (kind & _SPACE) == 0
    begins = visible.copy()
    begins[1:] &= ~visible[:-1]
    unspaced = (kind & _UNSPACED) != 0
    if unspaced.any():
        word_character = (kind & (_LETTER | _DIGIT)) != 0
        begins[1:] |= unspaced[:-1] & ~unspaced[1:] & word_character[1:]
        begins |= _unspaced_word_starts(codes, unspaced)
    positions = np.flatnonzero(visible)
    starts = np.flatnonzero(begins[positions])
    ends = np.append(starts[1:], len(positions))
    folded = np.where(codes < _LAST, table.lower[small], codes)[positions]
    lines = np.cumsum(codes == _NEWLINE)[positions[starts]]
    line_starts = np.flatnonzero(np.diff(lines, prepend=-1))
    paragraph_starts = np.flatnonzero(np.diff(lines[line_starts], prepend=-2) > 1)
    seen = kind[positions]
    return TextTokens(
        codes=codes[positions],
        folded=folded,
        positions=positions,
        starts=starts,
        ends=ends,
        lengths=ends - starts,
        hashes=hash_text_segments(folded.astype(np.uint64), starts),
        alphabetic=np.logical_or.reduceat((seen & _LETTER) != 0, starts),
        alphanumeric=np.logical_or.reduceat((seen & (_LETTER | _DIGIT)) != 0, starts),
        line_starts=line_starts,
        paragraph_starts=paragraph_starts,
    )


def _unspaced_word_starts(
    codes: npt.NDArray[np.uint32], unspaced: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Returns the characters of scripts without spaces at which a word or a run of such characters begins."""
    places = np.flatnonzero(unspaced)
    run_starts = np.flatnonzero(np.diff(places, prepend=-2) > 1)
    # Only these characters are segmented, with a blank before each run.
    blanks = run_starts + np.arange(len(run_starts))
    segmented = np.insert(codes[places], run_starts, _BLANK)
    begins = np.zeros(len(segmented), dtype=np.bool_)
    begins[word_starts(segmented)] = True
    begins[blanks + 1] = True  # also where it is a mark that combines with the blank
    found = np.zeros(len(codes), dtype=np.bool_)
    found[places] = np.delete(begins, blanks)
    return found


def hash_text_segments(values: WordHashes, starts: TokenIndex) -> WordHashes:
    """Returns a polynomial hash modulo 2**64 of each segment of values, such as the characters of each word.

    Args:
        starts: The index of the first value of each segment.
    """
    lengths = np.diff(starts, append=len(values))
    powers = np.cumprod(np.full(int(lengths.max()), HASH_PRIME, dtype=np.uint64))
    places = np.arange(len(values)) - np.repeat(starts, lengths)
    mixed = values * _GOLDEN
    mixed ^= mixed >> np.uint64(29)  # without this, the sum would be linear in the code points
    hashes: WordHashes = np.add.reduceat(mixed * powers[places], starts)
    return hashes


@dataclass(frozen=True, slots=True)
class _Characters:
    """The kinds, as bits, and the lower case of each character of the basic plane."""

    kinds: npt.NDArray[np.uint8]
    lower: npt.NDArray[np.uint32]


@cache
def _characters() -> _Characters:
    every = [chr(code) for code in range(_LAST + 1)]
    kinds = np.fromiter(map(str.isspace, every), np.uint8, len(every)) * _SPACE
    kinds |= np.fromiter(map(str.isalpha, every), np.uint8, len(every)) * _LETTER
    kinds |= np.fromiter(map(str.isdigit, every), np.uint8, len(every)) * _DIGIT
    for first, last in UNSPACED_SCRIPTS:
        kinds[first : last + 1] |= _UNSPACED
    kinds[_LAST] = _LETTER | _UNSPACED  # characters beyond the basic plane are mostly ideographs and emoji
    lower = np.fromiter((ord(char.lower()[0]) for char in every), np.uint32, len(every))
    return _Characters(kinds, lower)
