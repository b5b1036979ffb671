"""`bench html`: its gold is an article's text by hand, or documentation without navigation."""

import gzip
import json
from pathlib import Path

import pytest

from benchmarks.html import NoBenchHtmlPages, bench_html

PROSE = "The sink takes every byte that it is given and keeps none of them at all. " * 6
LISTING = "".join(f"<div><span>pub fn take_{n}</span>(<a>&amp;self</a>) -&gt; u8</div>" for n in range(40))
PAGE = f"""<html><head><meta name="generator" content="rustdoc"></head><body>
<nav><a href="/a">All crates</a></nav>
<main><h1>Sink</h1><p>{PROSE}</p><div>{LISTING}</div></main></body></html>"""
ARTICLE = f"""<html><head><meta property="og:type" content="article"></head><body>
<nav><a href="/">Home</a></nav>
<article><h1>Sinks</h1>{"".join(f"<p>Number {n}. {PROSE}</p>" for n in range(9))}</article></body></html>"""


def test_documentation_is_measured_by_its_maker(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "page.html").write_text(PAGE)
    (tmp_path / "unknown.html").write_text(PAGE.replace("main>", "div>").replace("rustdoc", ""))
    figures = bench_html(tmp_path).figures
    assert figures["rustdoc_pages"] == figures["coverage_pages"] == 1
    assert figures["rustdoc_headwater_words_kept"] == 1
    assert figures["rustdoc_headwater_navigation"] == 0
    assert 0 < figures["rustdoc_trafilatura_words_kept"] <= 1
    assert figures["coverage_flags_of_complete"] == 0
    assert figures["coverage_flags_of_lost_fifth"] == 1
    (tmp_path / "deep" / "page.html").unlink()
    with pytest.raises(NoBenchHtmlPages, match="no HTML file"):
        bench_html(tmp_path)


def test_articles_are_measured_by_their_text_by_hand(tmp_path: Path) -> None:
    text = "\n".join(f"Number {n}. {PROSE}" for n in range(9))
    (tmp_path / "ground-truth.json").write_text(json.dumps({"a": {"articleBody": text, "url": "x"}}))
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "a.html.gz").write_bytes(gzip.compress(ARTICLE.encode()))
    figures = bench_html(tmp_path).figures
    assert figures["articles"] == 1
    assert figures["articles_headwater_f1"] == 1
    assert 0 < figures["articles_trafilatura_f1"] <= 1
