"""The thresholds on quality signals that keep a document out of the lake, each with its reason.

They are the rules of Gopher, C4 and FineWeb (see `assets.text.signals`) with other values. Those papers
filter a crawl for training. Here a person chose the documents, so only thresholds that show damage are on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from assets.text.language import NO_LANGUAGE


class QualityThresholds(BaseModel):
    """The thresholds that a document must pass: `min_X` and `max_X` bound the signal X; None turns one off.

    The defaults let short READMEs, licences, API listings, tables and questions with answers pass. They keep
    out filler text, fragments, symbol soup, binary data read as text, and text that repeats itself
    throughout.
    """

    languages: list[str] | None = None
    """The ISO 639 codes of languages that pass; None lets all pass, undetermined ones included."""
    max_no_language_word_count: int | None = 50
    """The words of a text in no language (`zxx`): a longer one is gibberish, not a list of names."""
    min_word_count: int | None = 3
    """Gopher: 50. Here an entry of a FAQ is a document."""
    max_word_count: int | None = None
    """Gopher: 100,000. Off: a manual has more."""
    min_mean_word_length: float | None = None
    """Gopher: 3. Off: it is 1 in Chinese and Japanese, where each character counts as a word."""
    max_mean_word_length: float | None = 40
    """Gopher: 10. A mean above 40 characters is encoded data; dotted names of an API stay below."""
    max_symbol_to_word_ratio: float | None = 1.0
    """Gopher: 0.1 hash signs or ellipses per word. Commented configuration has more."""
    min_alphabetic_word_ratio: float | None = None
    """Gopher: 0.8 of the words have a letter. Off: a table of numbers has none."""
    min_alphanumeric_word_ratio: float | None = 0.3
    """A text with a smaller share of words with a letter or digit is symbol soup."""
    min_stop_word_count: int | None = None
    """Gopher: 2 of eight English words. Off: it is for English only."""
    max_bullet_line_ratio: float | None = None
    """Gopher: 0.9. Off: a changelog has only bullets."""
    max_ellipsis_line_ratio: float | None = 0.9
    """Gopher: 0.3. Tables of contents and menus end more lines with an ellipsis."""
    min_terminal_punctuation_line_ratio: float | None = None
    """FineWeb: 0.12. Off: lines of tables and API listings do not end with punctuation."""
    max_short_line_ratio: float | None = None
    """FineWeb: 0.67. Off: lines of tables and API listings are short."""
    max_newline_to_word_ratio: float | None = None
    """FineWeb: 0.3. Off: lines of tables and API listings have few words."""
    repetition_from_word_count: int = 50
    """Documents with fewer words pass the thresholds on repetition: a form with "yes" and "no" is no spam."""
    max_duplicate_line_fraction: float | None = 0.95
    """Gopher: 0.3. Records share many of their lines, so that only near-total repetition counts."""
    max_duplicate_line_char_fraction: float | None = 0.9
    """Gopher: 0.2. As for the share of lines."""
    max_duplicate_paragraph_fraction: float | None = 0.9
    """Gopher: 0.3. Records of few fields are often equal."""
    max_duplicate_paragraph_char_fraction: float | None = 0.9
    """Gopher: 0.2. As for the share of paragraphs."""
    max_top_2_gram_char_fraction: float | None = 0.8
    """Gopher: 0.2. A column with one value fills most of a table's records."""
    max_top_3_gram_char_fraction: float | None = 0.9
    """Gopher: 0.18. As for 2-grams."""
    max_top_4_gram_char_fraction: float | None = 0.95
    """Gopher: 0.16. As for 2-grams."""
    max_duplicate_5_gram_char_fraction: float | None = None
    """Gopher: 0.15. Off: records of one form share their phrases."""
    max_duplicate_10_gram_char_fraction: float | None = 0.95
    """Gopher: 0.10. Records of one form share long phrases too, so that only near-total repetition counts."""
    max_curly_bracket_ratio: float | None = None
    """C4 drops every page with a curly bracket. Off: documents here have code."""
    max_lorem_ipsum_word_ratio: float | None = 0.3
    """C4 drops every page with "lorem ipsum". Documentation of templates may quote it."""
    max_boilerplate_line_ratio: float | None = 0.5
    """C4 drops lines about cookies, policies and JavaScript. Here a document fails if most of its lines are
    such."""
    max_replacement_char_ratio: float | None = 0.05
    """A text with a larger share of U+FFFD was decoded wrongly."""
    min_letter_coincidence: float | None = 0.042
    """Languages in alphabets are above 0.055; letters drawn at random are at 0.038."""
    max_markup_line_ratio: float | None = 0.2
    """Documentation of templates shows tags on some lines; a page read as plain text has them on most."""
    max_mojibake_ratio: float | None = 0.05
    """The share of characters outside ASCII that a wrong decoding destroyed and repair could not restore."""
    max_cut_off: int | None = 0
    """A text that stops in the middle was fetched or pasted in part. None lets such texts pass."""


@dataclass(frozen=True, slots=True)
class QualityRejection:
    """Why a document fails: the name of the threshold, and a sentence with the value and the threshold."""

    expectation: str
    reason: str


def quality_rejections(
    signals: Mapping[str, float | None], language: str, thresholds: QualityThresholds
) -> list[QualityRejection]:
    """Returns a rejection for each threshold that a document fails, in the order of their declaration.

    Args:
        signals: The document's signals, as `quality_signals` returns them; None passes every threshold.
        language: The document's language, as `detect_language` returns it.
        thresholds: The thresholds; a value equal to a threshold passes.
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
