"""Coverage: the share of a source's visible words that arrived, by format, and what it tells of a loss."""

from types import ModuleType
from typing import Any

import pytest
from documents import make_docx, make_odt, make_pdf, make_pptx

from assets.parsing import content_type
from assets.parsing.blocks import text_coverage
from assets.parsing.extract import extract_document
from assets.parsing.formats.html import page
from assets.parsing.formats.office import docx, opendocument, pptx
from assets.parsing.formats.paged import pdf
from quality.suites import LOW_TEXT_COVERAGE

SENTENCE = "The gate refuses every document whose digest is unknown to the lake."
PAGE = f"<html><body><h1>T</h1><p>{SENTENCE} {SENTENCE}</p><p>The last of them. {SENTENCE}</p></body></html>"
LINES = [f"Line {n} of a page that says what the gate of the lake refuses." for n in range(20)]

# A file, and the function of its reader from which a part of the text is taken away.
READERS: list[tuple[str, bytes, ModuleType, str]] = [
    ("text/html", PAGE.encode(), page, "html_blocks"),
    (content_type.DOCX, make_docx(), docx, "_blocks"),
    (content_type.PPTX, make_pptx(), pptx, "_texts"),
    (content_type.ODT, make_odt(), opendocument, "_blocks"),
    (content_type.PDF, make_pdf([LINES, LINES]), pdf, "_paragraphs"),
]


@pytest.mark.parametrize(("media_type", "body", "reader", "part"), READERS)
def test_what_a_reader_loses_is_missed(
    media_type: str, body: bytes, reader: ModuleType, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extract_document(body, media_type).text_coverage == 1
    whole = getattr(reader, part)

    def losing(*arguments: Any) -> list[Any]:
        found = list(whole(*arguments))
        texts = [each[: len(each) // 2] for each in found if isinstance(each, str)]
        return texts or found[: len(found) * 2 // 3]

    monkeypatch.setattr(reader, part, losing)
    lost = extract_document(body, media_type).text_coverage
    assert lost is not None
    assert 0 < lost < LOW_TEXT_COVERAGE


def test_navigation_hidden_and_deleted_text_were_not_to_arrive() -> None:
    page = f"<nav>{SENTENCE}</nav><p hidden>{SENTENCE}</p><p style='display:none'>x</p><p>{SENTENCE}</p>"
    assert extract_document(page.encode(), "text/html").text_coverage == 1
    running = [
        ["Handbook of the lake, part two", *LINES],
        ["Handbook of the lake, part two", *LINES[::-1]],
    ] * 3
    assert extract_document(make_pdf(running), content_type.PDF).text_coverage == 1


DRAWING = "<svg><title>no</title><defs><text>no</text></defs><g><text>{}</text></g></svg>"


@pytest.mark.parametrize(
    "page",
    [
        f"<h1>T</h1>{DRAWING}",
        "<h1>T</h1><main><form><textarea rows=9>{}</textarea></form></main>",
        "<h1>T</h1><noframes><p>{}</p></noframes>",
        "<frameset cols='9,9'><frame src='a.html'><noframes><p>{}</p></noframes></frameset>",
        "<frameset cols='9,9'><frame src='a.html'><noframes><body><p>{}</p></body></noframes></frameset>",
    ],
    ids=["a drawing", "a text field", "without frames", "a frameset", "a frameset with a body"],
)
def test_words_in_drawings_text_fields_and_for_readers_without_frames_arrive(page: str) -> None:
    found = extract_document(
        f"<html><head><title>T</title></head>{page.format(SENTENCE)}</html>".encode(), "text/html"
    )
    assert SENTENCE in found.text
    assert "no" not in found.text.split()
    assert found.text_coverage == 1


def test_words_in_drawings_that_a_reader_loses_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assets.parsing.formats.html.blocks._drawing_labels", lambda drawing: [])
    body = f"<h1>T</h1><p>One line only.</p>{DRAWING.format(SENTENCE)}".encode()
    lost = extract_document(body, "text/html").text_coverage
    assert lost is not None
    assert lost < LOW_TEXT_COVERAGE


def test_the_legal_notice_of_a_footer_was_not_to_arrive() -> None:
    notice = " ".join([f"All rights of the lake are reserved. {SENTENCE}"] * 12)
    page = f"<main><h1>Uses</h1><p>{SENTENCE}</p></main><footer role=contentinfo><p>{notice}</p></footer>"
    assert extract_document(page.encode(), "text/html").text_coverage == 1


def test_each_word_counts_as_often_as_the_source_has_it() -> None:
    twelve = "one two three four five six seven eight nine ten one two"
    assert text_coverage(twelve, twelve) == 1
    assert text_coverage(twelve, twelve[: twelve.rindex("one")]) == pytest.approx(10 / 12)
    assert text_coverage(twelve, "Other words.") == 0
    assert text_coverage("Too few words.", "") is None
    assert text_coverage(None, twelve) is None
