"""Manual pages as documents of the lake: title, headings, coverage, and the reason why one has no text."""

import gzip
from pathlib import Path

import pytest

from assets.parsing.blocks import ExtractionError
from assets.parsing.content_type import ROFF, detect_media_type
from assets.parsing.extract import extract_document

PAGE = """.TH TIDE 1
.SH NAME
tide \\- print tables of the tide
.SH OPTIONS
.TP
.B \\-q
Print nothing in a caf\u00e9 of Le Havre.
.TS
lb lb
l l.
Code\tMeaning
0\tsuccess
.TE
"""


LATIN_1 = "'\\\" -*- coding: latin-1 -*-\n"


@pytest.mark.parametrize(("first", "encoding"), [("", "utf-8"), (LATIN_1, "latin-1")])
def test_a_page_is_read_with_title_headings_and_coverage(first: str, encoding: str) -> None:
    body = (first + PAGE).encode(encoding)
    assert detect_media_type(body, "tide.1") == ROFF
    page = extract_document(body, ROFF)
    assert (page.title, page.text_coverage) == ("tide(1)", 1.0)
    assert [(heading.title, heading.level) for heading in page.headings] == [("NAME", 1), ("OPTIONS", 1)]
    assert page.text == (
        "NAME\n\ntide - print tables of the tide\n\nOPTIONS\n\n"
        "-q\n  Print nothing in a caf\u00e9 of Le Havre.\n\n"
        "  Code | Meaning\n  0 | success"
    )


def test_a_page_that_only_refers_to_another_one_has_no_text() -> None:
    with pytest.raises(ExtractionError, match=r"another: man1/tide\.1") as refused:
        extract_document(b".so man1/tide.1\n", ROFF)
    assert refused.value.expectation == "no_text"


def test_the_header_of_a_long_table_is_repeated() -> None:
    rows = "".join(f"{number}\tthe meaning of number {number}\n" for number in range(100))
    text = extract_document(
        f".TH A 1\n.SH B\n.TS\nlb lb\nl l.\nCode\tMeaning\n{rows}.TE\n".encode(), ROFF
    ).text
    assert text.count("| Code | Meaning |") > 3


def test_pages_of_the_installed_manual_are_read_whole() -> None:
    pages = sorted(Path("/usr/share/man/man1").glob("*.1.gz"))[:2000:40]
    if not pages:
        pytest.skip("no manual pages are installed")
    for path in pages:
        body = gzip.decompress(path.read_bytes())
        assert detect_media_type(body, path.stem) == ROFF, path
        try:
            found = extract_document(body, ROFF)
        except ExtractionError as error:
            assert "name of another" in error.reason  # noqa: PT017
        else:
            assert (found.text_coverage or 1) > 0.7, path
