import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_training_fit import BAD, GOOD, LICENCE

from assets.text.signals import QUALITY_SIGNALS, quality_signals
from retrieval.language.identification import detect_language


def test_counts_by_hand() -> None:
    signals = quality_signals("The cat sat.\n- the cat ran…\n\n# {x} 12\nThe cat sat.")
    assert signals["word_count"] == 13
    assert signals["line_count"] == 4
    assert signals["stop_word_count"] == 1
    assert signals["alphabetic_word_ratio"] == pytest.approx(10 / 13)
    assert signals["alphanumeric_word_ratio"] == pytest.approx(11 / 13)
    assert signals["bullet_line_ratio"] == 0.25
    assert signals["ellipsis_line_ratio"] == 0.25
    assert signals["terminal_punctuation_line_ratio"] == 0.75
    assert signals["short_line_ratio"] == 1
    assert signals["duplicate_line_fraction"] == 0.25
    assert signals["duplicate_line_char_fraction"] == pytest.approx(10 / 37)
    assert signals["duplicate_paragraph_fraction"] == 0
    assert signals["symbol_to_word_ratio"] == pytest.approx(2 / 13)
    assert signals["newline_to_word_ratio"] == pytest.approx(4 / 13)
    # "the cat" three times, six characters each
    assert signals["top_2_gram_char_fraction"] == pytest.approx(18 / 37)
    assert signals["top_3_gram_char_fraction"] == pytest.approx(20 / 37)


def test_words_of_a_script_without_spaces_are_counted_as_words() -> None:
    signals = quality_signals("人人都有受教育的权利。\n\nEveryone has it 𠀀𠀁.")
    assert signals["word_count"] == 6 + 3 + 2
    assert signals["alphanumeric_word_ratio"] == 1.0
    thai = quality_signals("ทุกคนมีสิทธิในการศึกษา ทุกคนมีสิทธิในการศึกษา")
    assert thai["word_count"] == 14
    assert (thai["top_4_gram_char_fraction"] or 0) > 0.5


@pytest.mark.parametrize(
    "sentence",
    [
        *("He told us about the storm.", "The menu has cod and potatoes.", "Loading takes two hours."),
        *("The navigation lights are red and green.", "Please register the boat at the harbour office."),
        *("We made contact with the pilot at noon.", "The privacy of the crew comes first."),
    ],
)
def test_a_sentence_with_a_word_of_a_menu_is_no_boilerplate(sentence: str) -> None:
    assert quality_signals(sentence)["boilerplate_line_ratio"] == 0


@pytest.mark.parametrize(
    "line",
    [
        *(
            "Menu",
            "About us",
            "Read more",
            "Loading, please wait.",
            "Sign in to your account",
            "Page not found",
        ),
        *(
            "Subscribe to our newsletter",
            "Log in with Google",
            "Follow us on Twitter",
            "Skip to main content",
        ),
        *("Enter your email address", "Copyright 2024. All rights reserved.", "Terms of Service | Privacy"),
        *("Home page | About us | Contact us", "Share on Facebook", "We use cookies on this site."),
    ],
)
def test_a_line_of_words_of_a_menu_is_boilerplate(line: str) -> None:
    assert quality_signals(line)["boilerplate_line_ratio"] == 1


def test_repeated_n_grams_cover_each_character_once() -> None:
    words = "a bb ccc dddd eeeee ffffff"
    signals = quality_signals(f"{words} {words}")
    assert signals["duplicate_5_gram_char_fraction"] == 0.5
    assert signals["duplicate_10_gram_char_fraction"] == 0
    assert quality_signals("a b c d e f g h i j k l")["duplicate_5_gram_char_fraction"] == 0


def plain_signals(text: str) -> dict[str, float]:
    """The same definitions in plain Python."""
    words = text.lower().split()
    lines = [line.split() for line in text.lower().split("\n") if line.strip()]
    again = [line in lines[:at] for at, line in enumerate(lines)]
    grams = [tuple(words[at : at + 5]) for at in range(len(words) - 4)]
    covered = {at + step for at, gram in enumerate(grams) if gram in grams[:at] for step in range(5)}
    total = sum(map(len, words))
    return {
        "word_count": len(words),
        "mean_word_length": total / len(words),
        "line_count": len(lines),
        "duplicate_line_fraction": sum(again) / len(lines),
        "duplicate_5_gram_char_fraction": sum(len(words[at]) for at in covered) / total,
    }


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abAB .\n", min_size=1, max_size=200).filter(str.strip))
def test_agrees_with_plain_python(text: str) -> None:
    signals = quality_signals(text)
    for name, expected in plain_signals(text).items():
        assert signals[name] == pytest.approx(expected), name


@settings(deadline=None)
@given(st.text())
def test_every_text_has_every_signal_in_its_type(text: str) -> None:
    signals = quality_signals(text)
    assert list(signals) == list(QUALITY_SIGNALS)
    row = pa.RecordBatch.from_pylist([signals], schema=pa.schema(QUALITY_SIGNALS.values()))
    for name in QUALITY_SIGNALS:
        if name.endswith(("_fraction", "_line_ratio")):
            assert 0 <= row.column(name)[0].as_py() <= 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (LICENCE, "en"),
        (GOOD["german"], "de"),
        (GOOD["chinese"], "zh"),
        ("Hello", "und"),
        ("12 34 56 78 90 12 34 56", "und"),
        (BAD["max_no_language_word_count"], "zxx"),
    ],
)
def test_language(text: str, code: str) -> None:
    assert detect_language(text) == code
