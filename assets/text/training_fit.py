"""Whether a document is fit for a training set, by thresholds on its quality signals, language and licence.

The thresholds are the rules of Gopher, C4 and FineWeb (see `assets.text.signals`) with other values. Those
papers filter a crawl. Here a person chose the documents, so only thresholds that show damage are on. What is
not fit is kept and found all the same: `assets.text.readability` decides what is quarantined.

The decision is one SQL expression over the columns of `silver.documents`, so that documents are judged anew
where they lie when a threshold, or the licence of a source, changes.
"""

from typing import Annotated

from pydantic import BaseModel, StringConstraints

from assets.text.license import SpdxLicense
from retrieval.language.identification import NO_LANGUAGE

MARKUP_REMOVED = ("text/markdown", "text/x-rst", "text/x-org", "text/html", "application/xhtml+xml")
"""Media types whose reader removes markup: tags that are left in the text were quoted, as text or code."""
CAN_BE_CUT_OFF = ("text/plain", *MARKUP_REMOVED)
"""Media types whose files can be cut off without a reader noticing. Packages, pages, tables, records and mail
have an end that their reader misses, so how their last sentence ends is up to their author."""


class TrainingThresholds(BaseModel):
    """What a document must pass to be fit for a training set.

    `min_X` and `max_X` bound the signal X; None turns one off. The defaults let short READMEs, licences, API
    listings, tables and questions with answers pass. They keep out filler text, fragments, symbol soup,
    binary data read as text, and text that repeats itself throughout.
    """

    languages: list[Annotated[str, StringConstraints(pattern="^[a-z]{2,3}$")]] | None = None
    """The ISO 639 codes of languages that are fit; None lets all pass, undetermined ones included."""
    licenses: list[SpdxLicense] | None = None
    """The SPDX licences under which a source's documents are fit; None lets all pass. With a list, sources
    whose licence is not known are not fit."""
    max_no_language_word_count: int | None = 50
    """The words of a text in no language (`zxx`): a longer one is gibberish, not a list of names."""
    min_word_count: int | None = 3
    """Gopher: 50. Here an entry of a FAQ is a document."""
    max_word_count: int | None = None
    """Gopher: 100,000. Off: a manual has more."""
    min_mean_word_length: float | None = None
    """Gopher: 3. Off: it is below 2 in Chinese and Japanese, whose words are of one or two characters."""
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


def training_unfit_sql(thresholds: TrainingThresholds, license_reason: str = "NULL") -> str:
    """Returns SQL for the reasons why a row of `silver.documents` is not fit, joined by commas; '' if it is.

    Each reason is the name of a field of `TrainingThresholds`, in the order of their declaration, and what
    `license_reason` gives. A signal that is NULL passes. DuckDB and Spark give the same.

    Args:
        thresholds: The thresholds; a value equal to a threshold passes.
        license_reason: SQL for the reason that lies in the licence of a row's source, or NULL.
    """
    reasons = []
    if thresholds.languages is not None:
        allowed = ", ".join(f"'{code}'" for code in thresholds.languages) or "''"
        reasons.append(f"CASE WHEN language NOT IN ({allowed}) THEN 'languages' END")
    reasons.append(license_reason)
    for name, bound in thresholds:
        side, _, signal = name.partition("_")
        if side not in ("min", "max") or bound is None:
            continue
        value = _VALUES.get(signal, signal)
        condition = f"{value} {'<' if side == 'min' else '>'} {bound!r}"
        if signal.startswith(("duplicate_", "top_")):
            condition += f" AND word_count >= {thresholds.repetition_from_word_count}"
        reasons.append(f"CASE WHEN {condition} THEN '{name}' END")
    return f"concat_ws(',', {', '.join(reasons)})"


def _has_media_type(media_types: tuple[str, ...]) -> str:
    """Returns SQL for whether a row has one of these media types, with parameters or without."""
    tests = (f"lower(media_type) = '{name}' OR lower(media_type) LIKE '{name};%'" for name in media_types)
    return f"coalesce({' OR '.join(tests)}, false)"


_VALUES = {
    "no_language_word_count": f"CASE WHEN language = '{NO_LANGUAGE}' THEN word_count END",
    "markup_line_ratio": f"CASE WHEN NOT {_has_media_type(MARKUP_REMOVED)} THEN markup_line_ratio END",
    "cut_off": f"CASE WHEN {_has_media_type(CAN_BE_CUT_OFF)} THEN cut_off END",
}
"""SQL for the values that differ from the column of their name: signals say nothing about some documents."""
