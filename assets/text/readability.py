"""Whether anything useful can be made of a text: damage beyond use keeps a document out of the lake.

Everything else that is wrong with a text says only that it is not fit for training
(`assets.text.training_fit`): a person may still want to find it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from assets.text.damage import damaged_char_ratio
from common.counts import counted


class ReadabilityThresholds(BaseModel):
    """How damaged a text may be before nothing useful can be made of it; None turns a threshold off."""

    max_damaged_char_ratio: float | None = 0.15
    """The share of characters that a wrong decoding destroyed or left unlikely. Where an accented letter here
    and there is lost, about one in twenty, words are still found; of Cyrillic nothing is left."""
    min_alphanumeric_word_ratio: float | None = 0.1
    """A text with a smaller share of words with a letter or digit is symbols."""
    min_letter_coincidence: float | None = 0.042
    """Languages in alphabets are above 0.055; letters drawn at random, and encoded data, are at 0.038."""


@dataclass(frozen=True, slots=True)
class UnreadableText:
    """Why a text is quarantined: the name of the threshold, and a sentence that a person understands."""

    expectation: str
    reason: str


def find_unreadable(
    text: str, signals: Mapping[str, float | None], thresholds: ReadabilityThresholds
) -> UnreadableText | None:
    """Returns why nothing useful can be made of a text; None if something can.

    Args:
        text: Normalised text.
        signals: Its signals, as `quality_signals` returns them.
        thresholds: The thresholds; a value equal to a threshold passes.
    """
    size = f"{counted(signals['line_count'] or 0, 'line')}, {counted(signals['word_count'] or 0, 'word')}"
    damaged = damaged_char_ratio(text)
    if thresholds.max_damaged_char_ratio is not None and damaged > thresholds.max_damaged_char_ratio:
        return UnreadableText(
            "max_damaged_char_ratio",
            f"{size}; {damaged:.0%} of the characters were lost or garbled: it was decoded in the wrong way "
            "before it came here.",
        )
    readable = signals["alphanumeric_word_ratio"] or 0.0
    if (
        thresholds.min_alphanumeric_word_ratio is not None
        and readable < thresholds.min_alphanumeric_word_ratio
    ):
        return UnreadableText(
            "min_alphanumeric_word_ratio",
            f"{size}; {1 - readable:.0%} of the words have neither a letter nor a digit: it is symbols.",
        )
    coincidence = signals["letter_coincidence"]
    if (
        thresholds.min_letter_coincidence is not None
        and coincidence is not None
        and coincidence < thresholds.min_letter_coincidence
    ):
        return UnreadableText(
            "min_letter_coincidence",
            f"{size}; all letters are about as frequent (two are equal in {coincidence:.1%} of pairs, in "
            "languages in more than 5.5%): it is random letters or encoded data.",
        )
    return None
