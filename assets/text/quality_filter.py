"""The thresholds on quality signals that keep a document out of the lake, each with its reason.

They are the rules of Gopher, C4 and FineWeb (see `assets.text.signals`) with other values. Those papers
filter a crawl for training. Here a person chose the documents, so only thresholds that show damage are on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from assets.text.language import NO_LANGUAGE


class QualityThresholds(BaseModel):
    """What a document must hold to be kept. `min_X` and `max_X` bound the signal X; None turns one off.

    The defaults let short READMEs, licences, API listings, tables and questions with answers pass, and keep
    out filler, fragments, symbol soup, binary as text and text that repeats itself throughout.
    """

    languages: list[str] | None = None
    """ISO 639 codes that are kept; None keeps all, also what is undetermined."""
    max_no_language_word_count: int | None = 50
    """Words of a text that is in no language (`zxx`); a longer one is gibberish, not a list of names."""
    min_word_count: int | None = 3
    """Gopher asks for 50 words; an entry of a FAQ is a document here."""
    max_word_count: int | None = None
    """Gopher: 100,000; a manual has more."""
    min_mean_word_length: float | None = None
    """Gopher: 3. Off: it is 1 in Chinese and Japanese, where each character counts as a word."""
    max_mean_word_length: float | None = 40
    """Gopher: 10. Above 40 characters it is encoded data, not words; dotted names of an API stay below."""
    max_symbol_to_word_ratio: float | None = 1.0
    """Gopher: 0.1 hash signs or ellipses a word; commented configuration has more."""
    min_alphabetic_word_ratio: float | None = None
    """Gopher: 0.8 of words with a letter. Off: a table of numbers has none."""
    min_alphanumeric_word_ratio: float | None = 0.3
    """Of words with a letter or digit; below it is symbol soup."""
    min_stop_word_count: int | None = None
    """Gopher: 2 different ones of eight English words. Off: it speaks of English only."""
    max_bullet_line_ratio: float | None = None
    """Gopher: 0.9. Off: a changelog is all bullets."""
    max_ellipsis_line_ratio: float | None = 0.9
    """Gopher: 0.3 of lines end in an ellipsis."""
    min_terminal_punctuation_line_ratio: float | None = None
    """FineWeb: 0.12. Off: tables and API listings end no line with punctuation."""
    max_short_line_ratio: float | None = None
    """FineWeb: 0.67. Off for the same reason."""
    max_newline_to_word_ratio: float | None = None
    """FineWeb: 0.3. Off for the same reason."""
    repetition_from_word_count: int = 50
    """Shorter documents pass the thresholds about repetition: an entry of "yes" and "no" is no spam."""
    max_duplicate_line_fraction: float | None = 0.95
    """Gopher: 0.3. Records share many of their lines, so only near-total repetition counts."""
    max_duplicate_line_char_fraction: float | None = 0.9
    """Gopher: 0.2."""
    max_duplicate_paragraph_fraction: float | None = 0.9
    """Gopher: 0.3."""
    max_duplicate_paragraph_char_fraction: float | None = 0.9
    """Gopher: 0.2."""
    max_top_2_gram_char_fraction: float | None = 0.8
    """Gopher: 0.2. Columns with one value fill most of a table's records."""
    max_top_3_gram_char_fraction: float | None = 0.9
    """Gopher: 0.18."""
    max_top_4_gram_char_fraction: float | None = 0.95
    """Gopher: 0.16."""
    max_duplicate_5_gram_char_fraction: float | None = None
    """Gopher: 0.15. Off: records of one form share their phrases."""
    max_duplicate_10_gram_char_fraction: float | None = 0.95
    """Gopher: 0.10."""
    max_curly_bracket_ratio: float | None = None
    """C4 drops every page with a curly bracket. Off: these documents hold code."""
    max_lorem_ipsum_word_ratio: float | None = 0.3
    """C4 drops every page that says "lorem ipsum"; documentation of templates may quote it."""
    max_boilerplate_line_ratio: float | None = 0.5
    """C4 drops lines about cookies, policies and JavaScript; here a document that is mostly such lines."""
    max_replacement_char_ratio: float | None = 0.05
    """Characters that could not be decoded."""
    min_letter_coincidence: float | None = 0.042
    """Languages in alphabets lie above 0.055, letters drawn at random at 0.038."""
    max_markup_line_ratio: float | None = 0.2
    """Documentation of templates shows tags; a page taken for plain text has them on most lines."""
    max_mojibake_ratio: float | None = 0.05
    """Of the characters outside ASCII; what remains after repair was lost for good."""
    max_cut_off: int | None = 0
    """Texts that stop in the middle of something are half-fetched or half-pasted; None lets them pass."""


@dataclass(frozen=True, slots=True)
class QualityRejection:
    """Why a document is kept out: the threshold's name, and value and threshold in a sentence."""

    expectation: str
    reason: str


def quality_rejections(
    signals: Mapping[str, float | None], language: str, thresholds: QualityThresholds
) -> list[QualityRejection]:
    """Every threshold that a document fails, in the order of the thresholds' declaration.

    Args:
        signals: As `quality_signals` gives them; a signal that is None fails nothing.
        language: As `language.language` gives it.
        thresholds: The bounds, both ends allowed.
    """
    found = []
    if thresholds.languages is not None and language not in thresholds.languages:
        wanted = ", ".join(thresholds.languages)
        found.append(QualityRejection("languages", f"language is {language}, not one of {wanted}"))
    words = signals["word_count"] or 0
    values = dict(signals, no_language_word_count=words if language == NO_LANGUAGE else 0)
    for name, bound in thresholds:
        side, _, signal = name.partition("_")
        if side not in ("min", "max") or bound is None:
            continue
        if words < thresholds.repetition_from_word_count and signal.startswith(("duplicate_", "top_")):
            continue
        value = values[signal]
        if value is not None and (value < bound if side == "min" else value > bound):
            comparison = "below the minimum" if side == "min" else "above the maximum"
            found.append(QualityRejection(name, f"{signal} is {value:.4g}, {comparison} of {bound:g}"))
    return found
