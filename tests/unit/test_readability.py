"""Only a text of which nothing is left to read is refused; what is merely poor is kept."""

import random

import pytest
from test_training_fit import BAD, GOOD

from assets.text.normalization import normalize_text
from assets.text.readability import ReadabilityThresholds, find_unreadable
from assets.text.signals import quality_signals

RUSSIAN = "Все люди рождаются свободными и равными в своем достоинстве и правах. " * 8
FRENCH = "Là où l’été a passé, la forêt garde une clarté étrange et le château, désert, se tait. " * 8
BEYOND_USE = {
    "max_damaged_char_ratio": RUSSIAN.encode().decode("ascii", "replace"),
    "min_alphanumeric_word_ratio": BAD["min_alphanumeric_word_ratio"],
    "min_letter_coincidence": BAD["min_letter_coincidence"],
}


def refused_by(text: str, thresholds: ReadabilityThresholds | None = None) -> str | None:
    text = normalize_text(text)
    found = find_unreadable(text, quality_signals(text), thresholds or ReadabilityThresholds())
    return found.expectation if found else None


@pytest.mark.parametrize("threshold", BEYOND_USE)
def test_what_is_damaged_beyond_use_is_refused_in_words(threshold: str) -> None:
    text = normalize_text(BEYOND_USE[threshold])
    found = find_unreadable(text, quality_signals(text), ReadabilityThresholds())
    assert found is not None
    assert found.expectation == threshold
    assert "words" in found.reason
    assert "%" in found.reason
    off = ReadabilityThresholds.model_validate({threshold: None})
    assert refused_by(BEYOND_USE[threshold], off) != threshold


@pytest.mark.parametrize("name", [*GOOD, *BAD])
def test_what_is_not_fit_for_training_is_readable(name: str) -> None:
    if name not in BEYOND_USE and name not in ("max_mean_word_length", "max_replacement_char_ratio"):
        assert refused_by(GOOD.get(name) or BAD[name]) is None


def test_a_text_in_which_some_letters_are_lost_is_still_found() -> None:
    assert refused_by(FRENCH.encode().decode("ascii", "ignore")) is None
    lost = "".join(each if each.isascii() else "\N{REPLACEMENT CHARACTER}" for each in FRENCH)
    assert lost.count("\N{REPLACEMENT CHARACTER}") > 50
    assert refused_by(lost) is None
    emoji = "A good day \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER} to all who read this short note."
    assert refused_by(emoji) is None


def test_random_bytes_as_text_are_refused() -> None:
    drawn = random.Random(5)
    text = "".join(drawn.choices("abcdefghijklmnopqrstuvwxyz", k=4000))
    assert refused_by(" ".join(text[at : at + 8] for at in range(0, 4000, 8))) == "min_letter_coincidence"
