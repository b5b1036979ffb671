import base64
import random
import string

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.text.language import detect_language
from assets.text.normalization import normalize_text
from assets.text.quality_filter import QualityThresholds, quality_rejections
from assets.text.signals import QUALITY_SIGNALS, quality_signals

RANDOM = random.Random(7)
LICENCE = (
    "Permission is hereby granted, free of charge, to any person obtaining a copy of this software and"
    " associated documentation files, to deal in the Software without restriction, including rights to use,"
    " copy, modify and merge it, and to permit persons to whom the Software is furnished to do so."
)
GOOD = {
    "readme": "Widget makes widgets.\n\npip install widget",
    "licence": LICENCE,
    "question": "Q: Is it free?\nA: Yes.",
    "api": "\n".join(
        f"linalg.{name}(a, *, axis=None)" for name in ("solve", "inv", "det", "norm", "qr", "svd") * 8
    ),
    "table": "\n\n".join(f"currency: EUR\ncountry: Germany\nid: {row}" for row in range(300)),
    "numbers": "\n".join(" ".join(str(RANDOM.randrange(10_000)) for _ in range(6)) for _ in range(60)),
    "changelog": "\n".join(
        f"- Fixed the {word} of widgets." for word in ("size", "colour", "weight", "price") * 5
    ),
    "code": "def walk(path):\n    for name in listing(path):\n        yield name, size(name)\n",
    "chinese": "这是一个用于测试的中文文档。它描述了如何安装软件以及如何运行它。请参阅手册以了解更多。",
    "german": "Die Installation dauert eine Minute. Danach läuft der Dienst im Hintergrund weiter.",
}
LETTERS = string.ascii_lowercase
BAD = {
    "min_word_count": "Hello",
    "max_mean_word_length": "\n".join(base64.b64encode(RANDOM.randbytes(57)).decode() for _ in range(30)),
    "min_alphanumeric_word_ratio": " ".join("".join(RANDOM.choices("!@#$%^&*(){}", k=4)) for _ in range(80)),
    "min_letter_coincidence": " ".join("".join(RANDOM.choices(LETTERS, k=6)) for _ in range(200)),
    "max_no_language_word_count": " ".join("".join(RANDOM.choices("asdfghjkl", k=6)) for _ in range(200)),
    "max_duplicate_line_fraction": "Buy our widgets now.\n" * 100,
    "max_top_4_gram_char_fraction": "Buy now and save. " * 100,
    "max_lorem_ipsum_word_ratio": (
        "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut"
        " labore et dolore magna aliqua."
    ),
    "max_boilerplate_line_ratio": "It uses cookies.\nPlease enable JavaScript.\nSee our privacy policy.",
    "max_replacement_char_ratio": "some \ufffd\ufffd\ufffd te\ufffd\ufffdt \ufffd\ufffd",
    "max_symbol_to_word_ratio": "### one ### two ### three ###",
}


def failed(text: str, thresholds: QualityThresholds | None = None) -> list[str]:
    text = normalize_text(text)
    found = quality_rejections(
        quality_signals(text), detect_language(text), thresholds or QualityThresholds()
    )
    return [rejection.expectation for rejection in found]


@pytest.mark.parametrize("name", GOOD)
def test_what_a_knowledge_base_holds_passes(name: str) -> None:
    assert failed(GOOD[name]) == []


@pytest.mark.parametrize("threshold", BAD)
def test_what_is_damaged_fails_by_name_and_passes_when_turned_off(threshold: str) -> None:
    assert threshold in failed(BAD[threshold])
    off = QualityThresholds.model_validate({threshold: None})
    assert threshold not in failed(BAD[threshold], off)


def test_reason_holds_value_and_threshold() -> None:
    [rejection] = quality_rejections(quality_signals("Hello"), "und", QualityThresholds())
    assert rejection.reason == "word_count is 1, below the minimum of 3"


def test_languages_are_restricted_only_on_request() -> None:
    german = GOOD["german"]
    assert failed(german, QualityThresholds(languages=["de", "en"])) == []
    assert failed(german, QualityThresholds(languages=["en"])) == ["languages"]


def test_every_threshold_bounds_a_signal() -> None:
    others = {"languages", "max_no_language_word_count", "repetition_from_word_count"}
    for name in set(QualityThresholds.model_fields) - others:
        side, _, signal = name.partition("_")
        assert side in {"min", "max"}
        assert signal in QUALITY_SIGNALS


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
