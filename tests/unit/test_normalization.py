import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assets.text.normalization import collapse_whitespace, normalize_text


@settings(deadline=None)  # the first call imports ftfy
@given(st.text())
@example("Ã©\u0301 \x85 donâ€™t")
@example("a\u00a0\n\n\n\n\n\ud800 b\u2028")
def test_is_idempotent_and_canonical(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert once.encode("utf-8").decode("utf-8") == once
    assert "\r" not in once
    assert "\n\n\n\n" not in once
    assert once == once.strip("\n")


@settings(deadline=None)  # the first call imports ftfy
@given(st.text(alphabet="aé Ã©â€™\u0301\u0327ç\n\t\x93\x80Â"))
def test_is_idempotent_where_repairs_meet_composition(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("donâ€™t stop", "don’t stop"),
        ("schÃ¶n", "schön"),
        ("schÃ¶n\nund “schön” ‘so’ – ja…", "schön\nund “schön” ‘so’ – ja…"),
        ("cafe\u0301", "café"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("one  \n\n\n\n\n\ntwo\t", "one\n\n\ntwo"),
        ("\ufeffzero\u00adwidth\x00\x07", "zerowidth"),
        ("  indented\n    code", "  indented\n    code"),
        ("no\u00a0break", "no break"),
        ("lone \ud83d surrogate", "lone \ufffd surrogate"),
        ("ﬁne ＡＢＣ", "ﬁne ＡＢＣ"),
        (" \n\t\n ", ""),
    ],
)
def test_repairs_what_is_damaged_and_leaves_what_is_meant(raw: str, expected: str) -> None:
    assert normalize_text(raw) == expected


def test_long_runs_of_spaces_take_linear_time() -> None:
    assert normalize_text(" " * 2_000_000 + "x") == " " * 2_000_000 + "x"


@settings(deadline=None)
@given(st.text())
@example("Â\r0")
def test_a_title_is_normalised_in_one_line(text: str) -> None:
    once = collapse_whitespace(text)
    assert collapse_whitespace(once) == normalize_text(once) == once
    assert "\n" not in once
