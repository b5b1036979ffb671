"""Web pages: what belongs to the text arrives with its structure, what stands around it does not."""

import time

import pytest

from assets.parsing.blocks import ExtractedDocument, ExtractionError
from assets.parsing.extract import extract_document

SENTENCE = "The gate refuses every document whose digest is unknown to the lake. "


def read(page: str | bytes) -> ExtractedDocument:
    return extract_document(page.encode() if isinstance(page, str) else page, "text/html")


DOCBOOK = f"""<html><head><meta name="generator" content="publican v4"></head><body>
<ul class="docnav"><li class="previous"><a href="a.html">Prev</a></li><li class="next"><a>Next</a></li></ul>
<div class="section"><h2 class="title">12.2. Virtualization</h2>
<div class="para">First of all. {SENTENCE}</div>
<div class="sidebar"><p class="title"><strong>HARDWARE</strong></p>
<div class="para">A box. {SENTENCE}</div></div>
<div class="itemizedlist"><ul><li><div class="para">Xen is one, says <a href="x">its page</a>.</div></li>
<li><div class="para">KVM is another.</div></li></ul></div></div>
<ul class="docnav"><li class="previous"><a href="a.html">Prev</a></li></ul></body></html>"""


def test_paragraphs_of_docbook_arrive_without_the_navigation() -> None:
    found = read(DOCBOOK)
    for words in ("First of all.", "HARDWARE", "A box.", "- Xen is one, says its page.", "- KVM is another."):
        assert words in found.text
    assert "Prev" not in found.text
    assert "Next" not in found.text
    assert [(each.level, each.title) for each in found.headings] == [(2, "12.2. Virtualization")]
    assert found.text_coverage == 1


@pytest.mark.parametrize(
    "around",
    [
        '<div class="header"><p>Next: <a rel="next" href="b">Added</a>, Up: <a rel="up" href="c">Top</a></p>',
        '<div class="topNav"><ul><li><a href="a">Overview</a></li><li>Class</li></ul></div>',
        '<div class="navheader"><table><tr><th>SELECT</th><td><a>Prev</a></td></tr></table></div>',
        '<div role="navigation"><h3>Table of contents</h3><ul><li><a href="#a">Sinks</a></li></ul></div>',
        '<div class="sphinxsidebar"><h4>This page</h4><a href="a">Show source</a></div>',
        '<div id="path"><a href="/">Apache</a> &gt; <a href="/d">Documentation</a></div>',
        '<div class="toplang">Languages: en | <a hreflang="fr">fr</a> | <a hreflang="ja">ja</a></div>',
        "<footer>All rights reserved by the maker of sinks.</footer>",
        '<form><input name="q"><label>Search all pages</label></form>',
        '<p hidden>Not shown.</p><p style="display: none">Not shown.</p><noscript>Turn it on</noscript>',
    ],
)
def test_what_stands_around_the_text_is_left_out(around: str) -> None:
    text = f"<h1>Sinks</h1><p>{SENTENCE * 3}</p>"
    expected = f"Sinks\n\n{(SENTENCE * 3).strip()}"
    assert read(f"<html><body>{around}{text}</body></html>").text == expected
    assert read(f"<html><body>{text}{around}</body></html>").text == expected


def test_a_section_may_be_called_like_navigation() -> None:
    section = f'<div class="section" id="navigation"><h2>Navigation</h2><p>{SENTENCE}</p></div>'
    found = read(f"<html><body><h1>Manual</h1><p>{SENTENCE * 4}</p>{section}<p>The end.</p></body></html>")
    assert "Navigation\n\nThe gate refuses" in found.text


def test_code_keeps_its_lines_and_indentation() -> None:
    code = "<span class=k>def</span> f(x):\n    <b>if</b> x:<br>        return 1\n\n    return 2"
    expected = "def f(x):\n    if x:\n        return 1\n\n    return 2"
    assert expected in read(f"<h1>T</h1><div class=highlight><pre>{code}\n</pre></div><p>{SENTENCE}</p>").text
    listed = read(f"<ol start=3><li>Do this:<pre>{code}</pre></li><li>Then that.</li></ol>").text
    assert listed.startswith("3. Do this:\n   def f(x):\n       if x:\n           return 1")
    assert listed.endswith("4. Then that.")
    numbered = "<td class=linenos><pre>1\n2</pre></td><td class=code><pre>a = 1\n  b = 2</pre></td>"
    assert read(f"<table><tr>{numbered}</tr></table>").text == "a = 1\n  b = 2"
    doxygen = (
        '<div class="fragment"><div class="line">int f() {</div><div class="line">  return 1; }</div></div>'
    )
    assert "int f() {\n  return 1; }" in read(f"<p>{SENTENCE}</p>{doxygen}").text


def test_tables_are_markdown_with_their_header_in_every_part() -> None:
    rows = "".join(f"<tr><td>{n}</td><td>a | b of <b>row {n}</b></td></tr>" for n in range(200))
    found = read(
        f"<table><caption>Rows</caption><thead><tr><th>n</th><th>what</th></tr></thead>{rows}</table>"
    )
    parts = found.text.split("\n\n")
    assert parts[0] == "Rows"
    assert len(parts) > 5
    for part in parts[1:]:
        assert part.startswith("| n | what |\n| --- | --- |\n| ")
        assert len(part) < 800
    assert r"| 199 | a \| b of row 199 |" in parts[-1]
    # Without a header there is none to invent, and a table that only lays out a page is none.
    assert read("<table><tr><td>a</td><td>b</td></tr></table>").text == "a | b"
    assert read("<table><tr><td><h2>T</h2><p>One.</p></td></tr></table>").text == "T\n\nOne."


def test_lists_definitions_and_pictures_keep_what_they_say() -> None:
    assert read("<ul><li>one<ul><li>inner</li></ul></li>stray <li>two</li></ul>").text.startswith(
        "- one\n  - inner"
    )
    terms = "<dl><dt>gate</dt><dd><p>It stops.</p><p>Always.</p></dd><dt>lake</dt><dd>It holds.</dd></dl>"
    assert read(terms).text == "gate\n    It stops.\n    Always.\nlake\n    It holds."
    assert (
        read('<p>See <img src="a.png" alt="the graph of assets"> here.</p>').text
        == "See the graph of assets here."
    )
    assert read("<h3>Deep</h3><p>x<sub>1</sub><br>y</p>").text == "Deep\n\nx1\ny"


ARTICLE = f"""<html><head><title>Sinks win | Daily</title>
<meta property="og:type" content="article"></head><body>
<nav><a href="/">Home</a></nav><article><h1>Sinks win</h1>
{"".join(f"<p>Paragraph {n} of the report. {SENTENCE}</p>" for n in range(8))}
<p><a href="/other">Related: another report about gates and lakes of last year</a></p></article>
<aside><h3>More</h3><a href="/b">Basins lose</a></aside><footer>All rights reserved</footer></body></html>"""


def test_an_article_is_read_without_its_links_and_with_its_title_apart() -> None:
    found = read(ARTICLE)
    assert found.title == "Sinks win"
    assert found.text.startswith("Paragraph 0 of the report.")
    assert "Paragraph 7 of the report." in found.text
    for words in ("Related", "Basins", "rights reserved", "Home"):
        assert words not in found.text
    assert found.text_coverage == 1


ROWS = "".join(f"<tr><td>{n}</td><td>name {n}</td><td>value of row {n}</td></tr>" for n in range(100_000))
HEADER = "<tr><th>a</th><th>b</th><th>c</th></tr>"
DEEP = "<div>" * 50_000 + SENTENCE + "</div>" * 50_000
UMLAUT = f"<html><body><h1>Füße</h1><p>Naïve façade, “quoted”. {SENTENCE}</p></body></html>"


def test_links_before_the_title_are_a_menu_and_after_it_an_index() -> None:
    links = "".join(f'<li><a href="{n}">Module number {n}</a></li>' for n in range(9))
    found = read(f"<html><body><div><ul>{links}</ul></div><h1>Sinks</h1><p>{SENTENCE}</p></body></html>")
    assert found.text == f"Sinks\n\n{SENTENCE.strip()}"
    assert "- Module number 8" in read(f"<html><body><h1>All modules</h1><ul>{links}</ul></body></html>").text
    assert "- Module number 8" in read(f"<html><body><ul>{links}</ul></body></html>").text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            f"Lines &amp; no tags,\nas <3 they are.\n{SENTENCE}".encode(),
            "Lines & no tags,\nas <3 they are.\nThe gate",
        ),
        (DEEP.encode(), SENTENCE.strip()),
        (f"<html><body><h1>T</h1>{DEEP}".encode(), SENTENCE.strip()),
        (UMLAUT.encode("utf-16-le"), "Füße\n\nNaïve façade, “quoted”."),
        (UMLAUT.encode("utf-16-be"), "Füße\n\nNaïve façade, “quoted”."),
        (UMLAUT.replace("<body>", "<meta charset=utf-8><body>").encode("cp1252"), "Naïve façade, “quoted”."),
        (UMLAUT.replace("<body>", "<meta charset=utf-16><body>").encode(), "Naïve façade, “quoted”."),
        (UMLAUT.replace("<body>", "<meta charset=koi8-r><body>").encode(), "Naïve façade, “quoted”."),
        (
            b'<?xml version="1.0" encoding="iso-8859-1"?>'
            b'<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN"'
            b' "http://192.0.2.1/x.dtd" [<!ENTITY co "Widget"><!ELEMENT p ANY>]>\n<html'
            b' xmlns="http://www.w3.org/1999/xhtml"><head></head><body><p>F\xfc\xdfe &co; go.</p>'
            b"<script><![CDATA[ if (a<b) ]]></script></body></html>",
            "Füße &co; go.",
        ),
        (f"<h1>T</h1><table>{HEADER}{ROWS}</table>".encode(), "value of row 99999"),
        (
            f'<meta property="og:type" content="article"><p>{SENTENCE}</p><table>{ROWS[:2_000_000]}'.encode(),
            "value of row 20000",
        ),
    ],
    ids=[
        *("no tags", "deep", "deep after a heading", "UTF-16 LE", "UTF-16 BE", "not the UTF-8 that it says"),
        *("not UTF-16", "not the charset that it says", "XHTML with a DTD"),
        *("long table", "long table in an article"),
    ],
)
def test_bad_pages_are_read_in_bounded_time(body: bytes, words: str) -> None:
    began = time.process_time()
    assert words in read(body).text
    assert time.process_time() - began < 50


@pytest.mark.parametrize(
    "page", ["<script>draw('all of it')</script>", "<html></html>", "<frameset></frameset>"]
)
def test_a_page_of_only_script_has_no_text(page: str) -> None:
    with pytest.raises(ExtractionError, match="no text"):
        read(f"<html><head><title>App</title></head><body>{page}</body></html>")
