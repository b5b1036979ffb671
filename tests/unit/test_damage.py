"""What is left of damage is seen, and what only looks like it is not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.text.damage import detect_cut_off, markup_line_ratio, mojibake_ratio

SENTENCE = "The service reads its settings from a file that stands beside the program."
WRAPPED = (
    "Permission is hereby granted, free of charge, to any person obtaining a copy\n"
    "of this software and associated documentation files, to deal in it gratis"
)
CUT = {
    "dangling word": f"{SENTENCE}\n\nIt can be changed by the",
    "comma": f"{SENTENCE}\n\nIt can be changed,",
    "announcement": f"{SENTENCE}\n\nThe settings are:",
    "hyphen": f"{SENTENCE}\n\nIt is cross-",
    "open bracket": "See the [manual](https://docs.",
    "open quotation": 'The function "solve" calls "__fac',
    "paragraph just begun": f"{SENTENCE}\n\n{SENTENCE}\n\nThe",
    "word just begun": f"{SENTENCE}\n\n{SENTENCE}\n\nSett",
    "fragment": f"{SENTENCE}\n\nThere is another sett",
    "letter": f"{SENTENCE}\n\nThere is another setting w",
    "prose without its stop": f"{SENTENCE}\n\n{SENTENCE[:-1]} and wins over it",
    "wrapped prose": WRAPPED,
}
WHOLE = {
    "sentence": SENTENCE,
    "one word": "Hello",
    "list": f"{SENTENCE}\n\n- red wine and other drinks that hold alcohol\n- cheese of the hard kinds only",
    "command": f"{SENTENCE}\n\nOr run\n\n# the usual way\npip install --upgrade --target here widget",
    "appendix": f"{SENTENCE}\n\nAppendix A",
    "heading": f"{SENTENCE}\n\nSettings",
    "signature": f"{SENTENCE}\n\nAda Lovelace",
    "link": f"{SENTENCE}\n\nhttps://example.org/settings",
    "table": "name | size\nwidget | 3\ngadget | 4",
    "quoted": 'He said "yes".',
    "emoticon": f"{SENTENCE} :)",
    "inch": f'{SENTENCE}\n\nA display of 24"',
    "chinese": "这是一个用于测试的中文文档。",
    "blank": " \n\n ",
}


@pytest.mark.parametrize("name", CUT)
def test_a_text_that_stops_in_the_middle_is_seen(name: str) -> None:
    assert detect_cut_off(CUT[name]) == 1


@pytest.mark.parametrize("name", WHOLE)
def test_a_text_that_only_ends_without_punctuation_is_not(name: str) -> None:
    assert detect_cut_off(WHOLE[name]) == 0


@settings(deadline=None)
@given(st.text())
def test_any_text_has_a_verdict(text: str) -> None:
    assert detect_cut_off(text) in (0, 1)
    assert detect_cut_off(text + "\n\n ") == detect_cut_off(text)
    assert 0 <= mojibake_ratio(text) <= 1
    assert 0 <= markup_line_ratio(text, 1) <= 1


def test_markup_is_elements_of_html_a_line() -> None:
    assert markup_line_ratio("<p>One.</p>\n<div class='x'>Two.</div>\nThree.\nFour <br/>", 4) == 0.75
    assert markup_line_ratio("Use <module> or List<String>, a < b and c > d", 1) == 0


def test_mojibake_is_measured_against_the_letters_it_can_hurt() -> None:
    assert mojibake_ratio("naïve café – “quoted”") == 0
    assert mojibake_ratio("plain") == 0
    assert mojibake_ratio("caf\ufffd and na\ufffdve") == 1
    assert mojibake_ratio("Ã¡Ã©Ã\xad and more Ã³") > 0.2
