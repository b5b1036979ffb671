"""`bench html`: its gold is what a page names as its main part; an API's listings are not lost."""

from pathlib import Path

import pytest

from assets.parsing.extract import extract_document
from orchestration.bench import html

PROSE = "The sink takes every byte that it is given and keeps none of them at all. " * 6
LISTING = "".join(f"<div><span>pub fn take_{n}</span>(<a>&amp;self</a>) -&gt; u8</div>" for n in range(40))
PAGE = f"""<html><body><nav><a href="/a">All crates</a> <a href="/b">Search the whole site</a></nav>
<main><h1>Sink</h1><p>{PROSE}</p><div>{LISTING}</div></main>
<footer>Made by the sink maker, all rights reserved.</footer></body></html>"""


def test_the_part_that_a_page_names_is_not_lost() -> None:
    text = extract_document(PAGE.encode(), "text/html").text
    assert "pub fn take_39" in text
    assert "All crates" not in text
    assert "rights reserved" not in text
    # Two parts with that name name none.
    two = PAGE.replace("</main>", "</main><main>other</main>")
    assert "keeps none of them" in extract_document(two.encode(), "text/html").text


def test_readers_are_measured_on_the_pages_that_name_their_main_part(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "page.html").write_text(PAGE)
    (tmp_path / "unnamed.html").write_text(PAGE.replace("main>", "div>"))
    figures = html.bench_html(tmp_path).figures
    assert figures["pages"] == 1
    assert figures["headwater_f1"] > 0.95
    assert figures["all_text_recall"] == 1
    assert figures["all_text_precision"] < 1
    (tmp_path / "deep" / "page.html").unlink()
    with pytest.raises(html.NoBenchHtmlPages, match="no HTML file"):
        html.bench_html(tmp_path)
