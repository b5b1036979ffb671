"""Quality signals of a text: numbers that tell prose from damage, repetition and noise.

The heuristics and their names are those of Gopher (Rae et al. 2021, arXiv:2112.11446, appendix A.1.1 and
table A1), C4 (Raffel et al. 2020, arXiv:1910.10683, section 2.2) and FineWeb (Penedo et al. 2024,
arXiv:2406.17557, section 3.6). Every signal is a column of `silver.documents`; `training_fit` has the
thresholds.
"""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assets.columns import column
from assets.text.damage import SourceEnd, detect_cut_off, markup_line_ratio, mojibake_ratio
from assets.text.tokens import HASH_PRIME, TokenIndex, WordHashes, hash_text_segments, tokenize_text


def _signal(name: str, comment: str, kind: pa.DataType | None = None) -> pa.Field:
    return column(name, comment, kind or pa.float64(), nullable=True)


QUALITY_SIGNALS: dict[str, pa.Field] = {
    field.name: field
    for field in (
        _signal("word_count", "Number of words.", pa.int32()),
        _signal("mean_word_length", "Mean number of characters per word."),
        _signal("symbol_to_word_ratio", "Hash signs and ellipses per word."),
        _signal("alphabetic_word_ratio", "Share of words with a letter."),
        _signal("alphanumeric_word_ratio", "Share of words with a letter or digit."),
        _signal("stop_word_count", "Number of occurrences of Gopher's eight English stop words.", pa.int32()),
        _signal("line_count", "Number of lines that are not blank.", pa.int32()),
        _signal("bullet_line_ratio", "Share of lines that begin with a bullet."),
        _signal("ellipsis_line_ratio", "Share of lines that end with an ellipsis."),
        _signal("terminal_punctuation_line_ratio", "Share of lines that end with terminal punctuation."),
        _signal("short_line_ratio", "Share of lines of up to 30 characters."),
        _signal("newline_to_word_ratio", "Line feeds per word."),
        _signal("duplicate_line_fraction", "Share of lines that repeat an earlier one."),
        _signal("duplicate_line_char_fraction", "Share of characters in such lines."),
        _signal("duplicate_paragraph_fraction", "Share of paragraphs that repeat an earlier one."),
        _signal("duplicate_paragraph_char_fraction", "Share of characters in such paragraphs."),
        _signal("top_2_gram_char_fraction", "Share of characters in the most frequent pair of words."),
        _signal("top_3_gram_char_fraction", "Share of characters in the most frequent triple of words."),
        _signal("top_4_gram_char_fraction", "Share of characters in the most frequent four words."),
        _signal("duplicate_5_gram_char_fraction", "Share of characters in repeated 5-grams of words."),
        _signal("duplicate_10_gram_char_fraction", "Share of characters in repeated 10-grams of words."),
        _signal("curly_bracket_ratio", "Curly brackets per character."),
        _signal("lorem_ipsum_word_ratio", "Share of words of printers' filler text."),
        _signal("boilerplate_line_ratio", "Share of lines about policies, cookies or page furniture."),
        _signal("replacement_char_ratio", "U+FFFD per character."),
        _signal(
            "letter_coincidence", "Chance that two basic Latin letters are equal; NULL for fewer than 200."
        ),
        _signal("markup_line_ratio", "Share of lines that are markup left in."),
        _signal("mojibake_ratio", "Share of letters that a wrong decoding left."),
        _signal("cut_off", "1 where the text stops in the middle, else 0.", pa.int32()),
    )
}
"""The signal columns of `silver.documents`; `quality_signals` says which paper each is from."""

_STOP_WORDS = "the be to of and that have with"
# Words of the printers' filler text that are rare in real Latin and in every other language.
_LOREM_IPSUM = (
    "lorem ipsum dolor amet consectetur adipiscing elit eiusmod tempor incididunt labore magna aliqua veniam"
    " nostrud exercitation ullamco laboris aliquip commodo consequat aute irure reprehenderit voluptate"
    " cillum fugiat pariatur excepteur occaecat cupidatat proident deserunt mollit laborum dolore"
)
_POLICY_PHRASES = (
    *("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"),
    *("enable javascript", "javascript is disabled", "javascript is required", "accept cookies"),
)
# Words that pages put around their text. Only short lines count, as in RefinedWeb (Penedo et al. 2023,
# arXiv:2306.01116, appendix G.2), and of longer ones than a button's those which are mostly such words:
# prose mentions passwords and navigation too, and is about something.
_FURNITURE = re.compile(
    r"\b(?:sign(?:ed)?[ -]?(?:in|up|out)|log(?:ged)?[ -]?(?:in|out)|register|(?:my|your|an?"
    r"|free) account|password|cookies?|javascript|your browser|(?:value your )?privacy"
    r"|terms (?:of|and)|copyright|(?:all )?rights reserved|newsletter|subscribe|e-?mail address"
    r"|follow us|share (?:on|this)|tweet|like us|skip to|(?:back|return) to|home ?page|menu"
    r"|navigation|contact(?: us)?|about(?: us)?|site ?map|read more|(?:learn|show|see|load) more"
    r"|next page|previous page|loading|not found|powered by|items in cart|added? to cart|checkout"
    r"|advertisement)\b",
    re.IGNORECASE,
)
_FURNITURE_LINE_MAX_WORDS = 10
_BUTTON_MAX_WORDS = 3
_WORD = re.compile(r"\w+")
_BULLETS = "-*•‣▪▫■□●○◦◆◇–·►"
_TERMINAL = ".!?\"'”’。！？…"
_SHORT_LINE_CHARS = 30  # as in FineWeb
_MIN_LETTERS = 200  # fewer letters say nothing about how letters are distributed

_DOT, _ELLIPSIS = 0x2E, 0x2026


def quality_signals(
    text: str, end: SourceEnd = SourceEnd.UNKNOWN, decoding_doubt: float = 0.0
) -> dict[str, int | float | None]:
    """Returns all quality signals of a text.

    A word is a run of characters between whitespace, compared without case. In scripts without spaces
    (Chinese, Japanese, Thai and related scripts) ICU's dictionaries say where words begin. Lines and
    paragraphs without a word do not count, and whitespace is not counted as characters.

    - Gopher, A.1.1: `word_count`; `mean_word_length`; `symbol_to_word_ratio` of hash signs and ellipses;
      `alphabetic_word_ratio` of words that hold a letter, `alphanumeric_word_ratio` a letter or digit;
      `stop_word_count` of different stop words; `bullet_line_ratio` of lines that begin with a bullet;
      `ellipsis_line_ratio` of lines that end with an ellipsis.
    - Gopher, table A1: `duplicate_*_fraction` of lines and paragraphs that occurred before, and of the
      characters in them; `top_N_gram_char_fraction` of characters in the N-gram that occurs most often, if
      more than once; `duplicate_N_gram_char_fraction` of characters in N-grams that occurred before, each
      character counted once.
    - C4, 2.2: `curly_bracket_ratio` per character; `lorem_ipsum_word_ratio`; `boilerplate_line_ratio` of
      lines about policies, cookies and JavaScript, and of short lines that pages put around their text.
    - FineWeb, 3.6: `terminal_punctuation_line_ratio`; `short_line_ratio` of lines up to 30 characters;
      `newline_to_word_ratio`.
    - `replacement_char_ratio`: U+FFFD per character. `letter_coincidence`: the probability that two of the
      text's basic Latin letters are equal (the index of coincidence, Friedman 1922); None for fewer than 200.
    - `markup_line_ratio`, `mojibake_ratio` and `cut_off`: see `assets.text.damage`.

    Args:
        text: Normalised text. Without a word, all signals are 0, but `letter_coincidence` is None.
        end: What the text's source says about its end, for `cut_off`.
        decoding_doubt: The share of characters outside ASCII whose decoding is in doubt, for
            `mojibake_ratio`: nothing in the text tells a wrong decoding that gives likely letters.

    Returns:
        One value for each key of `QUALITY_SIGNALS`.
    """
    if not text.strip():
        return dict.fromkeys(QUALITY_SIGNALS, 0) | {"letter_coincidence": None}
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), dtype=np.uint32)
    words = tokenize_text(codes)
    n_words = len(words.hashes)
    n_lines = len(words.line_starts)
    line_ends = np.append(words.line_starts[1:], n_words) - 1
    first, last = words.starts[words.line_starts], words.ends[line_ends] - 1
    line_hashes = hash_text_segments(words.hashes, words.line_starts)
    line_chars = np.add.reduceat(words.lengths, words.line_starts)
    paragraph_hashes = hash_text_segments(line_hashes, words.paragraph_starts)
    paragraph_chars = np.add.reduceat(line_chars, words.paragraph_starts)
    final = words.codes[last]
    three_dots = [words.codes[np.maximum(last - step, 0)] == _DOT for step in range(3)]
    dots = (final == _ELLIPSIS) | ((last >= 2) & np.logical_and.reduce(three_dots))
    symbols = text.count("#") + text.count("...") + text.count("…")
    duplicate_lines = _repeats(line_hashes, line_chars)
    duplicate_paragraphs = _repeats(paragraph_hashes, paragraph_chars)
    vocabulary = _vocabulary()
    return {
        "word_count": n_words,
        "mean_word_length": len(words.codes) / n_words,
        "symbol_to_word_ratio": symbols / n_words,
        "alphabetic_word_ratio": float(words.alphabetic.mean()),
        "alphanumeric_word_ratio": float(words.alphanumeric.mean()),
        "stop_word_count": int(np.isin(vocabulary.stop_words, words.hashes).sum()),
        "line_count": n_lines,
        "bullet_line_ratio": float(np.isin(words.codes[first], vocabulary.bullets).mean()),
        "ellipsis_line_ratio": float(dots.mean()),
        "terminal_punctuation_line_ratio": float(np.isin(final, vocabulary.terminal).mean()),
        "short_line_ratio": float(
            (words.positions[last] - words.positions[first] < _SHORT_LINE_CHARS).mean()
        ),
        "newline_to_word_ratio": text.count("\n") / n_words,
        "duplicate_line_fraction": duplicate_lines[0],
        "duplicate_line_char_fraction": duplicate_lines[1],
        "duplicate_paragraph_fraction": duplicate_paragraphs[0],
        "duplicate_paragraph_char_fraction": duplicate_paragraphs[1],
        **_n_gram_fractions(words.hashes, words.lengths),
        "curly_bracket_ratio": (text.count("{") + text.count("}")) / len(codes),
        "lorem_ipsum_word_ratio": float(np.isin(words.hashes, vocabulary.lorem_ipsum).mean()),
        "boilerplate_line_ratio": _boilerplate_lines(text) / n_lines,
        "replacement_char_ratio": text.count("\ufffd") / len(codes),
        "letter_coincidence": _coincidence(words.folded),
        "markup_line_ratio": markup_line_ratio(text, n_lines),
        "mojibake_ratio": max(mojibake_ratio(text), decoding_doubt),
        "cut_off": detect_cut_off(text, end),
    }


def _repeats(hashes: WordHashes, chars: TokenIndex) -> tuple[float, float]:
    """Returns the fraction of segments that occurred before, and of characters in such segments."""
    again = np.ones(len(hashes), dtype=np.bool_)
    again[np.unique(hashes, return_index=True)[1]] = False
    return float(again.mean()), float(chars[again].sum() / chars.sum())


def _n_gram_fractions(hashes: WordHashes, lengths: TokenIndex) -> dict[str, float]:
    fractions = {}
    total = int(lengths.sum())
    ends = np.append(0, np.cumsum(lengths))
    grams = hashes
    for n in range(2, 11):
        # Horner's rule: the hash of an n-gram from that of its first n - 1 words.
        grams = grams[:-1] * HASH_PRIME + hashes[n - 1 :] if len(grams) else grams
        if n in (2, 3, 4):
            fractions[f"top_{n}_gram_char_fraction"] = _top(grams, ends[n:] - ends[:-n], total)
        elif n in (5, 10):
            fractions[f"duplicate_{n}_gram_char_fraction"] = _covered(grams, n, lengths, total)
    return fractions


def _top(grams: WordHashes, chars: TokenIndex, total: int) -> float:
    if len(grams) == 0:
        return 0.0
    _, index, counts = np.unique(grams, return_index=True, return_counts=True)
    most = counts.max()
    if most == 1:
        return 0.0
    # Occurrences of "a a" in "a a a" overlap.
    return min(1.0, float(most * chars[index[counts == most]].max() / total))


def _covered(grams: WordHashes, n: int, lengths: TokenIndex, total: int) -> float:
    if len(grams) == 0:
        return 0.0
    again = np.ones(len(grams), dtype=np.int8)
    again[np.unique(grams, return_index=True)[1]] = 0
    edges = np.zeros(len(lengths) + 1, dtype=np.int32)
    edges[: len(grams)] += again
    edges[n : n + len(grams)] -= again
    return float(lengths[np.cumsum(edges)[:-1] > 0].sum() / total)


def _boilerplate_lines(text: str) -> int:
    lowered = text.lower()
    phrases = [phrase for phrase in _POLICY_PHRASES if phrase in lowered]
    if not phrases and not _FURNITURE.search(lowered):
        return 0
    return sum(
        any(phrase in line for phrase in phrases) or _is_furniture(line) for line in lowered.split("\n")
    )


def _is_furniture(line: str) -> bool:
    if len(line.split(None, _FURNITURE_LINE_MAX_WORDS)) > _FURNITURE_LINE_MAX_WORDS:
        return False
    n_words = len(_WORD.findall(line))
    n_found = sum(len(_WORD.findall(found)) for found in _FURNITURE.findall(line))
    return n_found > 0 and (n_words <= _BUTTON_MAX_WORDS or 2 * n_found >= n_words)


def _coincidence(folded: npt.NDArray[np.uint32]) -> float | None:
    letters = folded[(folded >= ord("a")) & (folded <= ord("z"))]
    n = len(letters)
    if n < _MIN_LETTERS:
        return None
    counts = np.bincount(letters)
    return float((counts * (counts - 1)).sum() / (n * (n - 1)))


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """Fixed words as hashes, and fixed characters as code points."""

    stop_words: WordHashes
    lorem_ipsum: WordHashes
    bullets: npt.NDArray[np.uint32]
    terminal: npt.NDArray[np.uint32]


@cache
def _vocabulary() -> _Vocabulary:
    def points(text: str) -> npt.NDArray[np.uint32]:
        return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)

    return _Vocabulary(
        stop_words=tokenize_text(points(_STOP_WORDS)).hashes,
        lorem_ipsum=tokenize_text(points(_LOREM_IPSUM)).hashes,
        bullets=points(_BULLETS),
        terminal=points(_TERMINAL),
    )
