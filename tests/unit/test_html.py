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
        '<div>[<a href="a">Top</a>] [<a href="b">Next page</a>] [<a href="c"><img alt="Up"></a>]</div>',
        '<ul><li><a href="t">Table of Contents</a></li><li><a href="p">Previous Chapter</a></li></ul>',
        '<div class="toc"><h4>Contents</h4><p><a href="s.html#s">Sinks of stone</a></p></div><i id="s"></i>',
        '<p hidden>Not shown.</p><p style="display: none">Not shown.</p><noscript>Turn it on</noscript>',
    ],
)
def test_what_stands_around_the_text_is_left_out(around: str) -> None:
    text = f"<h1>Sinks</h1><p>{SENTENCE * 3}</p>"
    expected = f"Sinks\n\n{(SENTENCE * 3).strip()}"
    assert read(f"<html><body>{around}{text}</body></html>").text == expected
    assert read(f"<html><body>{text}{around}</body></html>").text == expected


def test_a_list_of_the_sites_pages_may_hold_a_heading_with_its_name() -> None:
    links = "".join(f'<li><a href="{n}.html">Widget number {n}</a></li>' for n in range(60))
    menu = f'<div class="sidebar"><h1><a href="/">The widgets</a></h1><ul>{links}</ul></div>'
    found = read(f"<html><body>{menu}<div><h1>Sinks</h1><p>{SENTENCE}</p></div></body></html>")
    assert found.text == f"Sinks\n\n{SENTENCE.strip()}"


def test_a_menu_is_found_before_any_first_heading_and_where_it_stands_again() -> None:
    menu = "Chapter: " + " ".join(f'<a href="{n}.html">Number {n}</a>' for n in range(30))
    page = f"<div class='c1'>{menu}</div><h3>Sinks</h3><p>{SENTENCE}</p><div class='c2'>{menu}</div>"
    assert read(f"<html><body>{page}</body></html>").text == f"Sinks\n\n{SENTENCE.strip()}"


def test_contents_of_other_pages_are_what_an_index_says() -> None:
    links = "".join(f'<li><a href="ch{n}.html#s">Chapter {n}</a></li>' for n in range(4))
    found = read(f"<html><body><h1>Book</h1><div class='toc'><ul>{links}</ul></div></body></html>")
    assert found.text == "Book\n\n" + "\n".join(f"- Chapter {n}" for n in range(4))


def test_a_menu_of_texinfo_lists_the_sections_of_a_chapter() -> None:
    rows = "".join(f"<tr><td><a href='s{n}.html'>Section {n}</a></td></tr>" for n in range(6))
    page = f"<h3>Sinks</h3><p>{SENTENCE}</p><table class='menu'>{rows}</table>"
    assert "Section 5" in read(f"<html><body>{page}</body></html>").text


def test_what_is_documented_may_be_named_like_navigation() -> None:
    page = f"<h1>Streams</h1><p>{SENTENCE}</p><div id='skip,Int'><p>Skips an element.</p></div>"
    assert "Skips an element." in read(f"<html><body>{page}</body></html>").text


def test_words_are_counted_as_a_person_sees_them() -> None:
    page = (
        "<p>"
        + "<i>fx</i><sub>1</sub> is <b>em</b>bedded, <a>Adw</a><span class='sep'></span>Row; " * 10
        + "</p>"
    )
    found = read(f"<html><body>{page}</body></html>")
    assert found.text.startswith("fx1 is embedded, Adw Row;")
    assert found.text_coverage == 1


def test_a_section_may_be_called_like_navigation() -> None:
    section = f'<div class="section" id="navigation"><h2>Navigation</h2><p>{SENTENCE}</p></div>'
    found = read(f"<html><body><h1>Manual</h1><p>{SENTENCE * 4}</p>{section}<p>The end.</p></body></html>")
    assert "Navigation\n\nThe gate refuses" in found.text


def test_code_keeps_its_lines_and_indentation() -> None:
    code = "<span class=k>def</span> f(x):\n    <b>if</b> x:<br>        return 1\n\n    return 2"
    expected = "\n\n    def f(x):\n        if x:\n            return 1\n\n        return 2\n\n"
    assert expected in read(f"<h1>T</h1><div class=highlight><pre>{code}\n</pre></div><p>{SENTENCE}</p>").text
    listed = read(f"<ol start=3><li>Do this:<pre>{code}</pre></li><li>Then that.</li></ol>").text
    assert listed.startswith("3. Do this:\n       def f(x):\n           if x:\n               return 1")
    assert listed.endswith("4. Then that.")
    numbered = "<td class=linenos><pre>1\n2</pre></td><td class=code><pre>a = 1\n  b = 2</pre></td>"
    assert read(f"<table><tr>{numbered}</tr></table>").text == "a = 1\n  b = 2"
    doxygen = (
        '<div class="fragment"><div class="line">int f() {</div><div class="line">  return 1; }</div></div>'
    )
    assert "int f() {\n      return 1; }" in read(f"<p>{SENTENCE}</p>{doxygen}").text


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


@pytest.mark.parametrize(
    "lost",
    [
        '<pre class="line-numbers language-js"><code>{}</code></pre>',
        '<div class="content line-numbers"><p>{}</p></div>',
        '<div class="row gutter"><div class="column">{}</div></div>',
        '<p><code class="line-numbers">{}</code></p>',
        '<div class="highlight linenos"><pre>{}</pre></div>',
        '<table><tr class="lineno"><td>{}</td><td>1</td></tr></table>',
        '<h2 class="permalink">{}</h2>',
        '<h2 class="anchor-link">{}</h2>',
        '<h2><a class="permalink" href="#a">{}</a></h2>',
        '<p>One <a class="hash-link" href="#a">{}</a> two</p>',
        '<div class="gutter"><p>{}</p></div>',
        '<div class="copy-button">Copy editors: {}</div>',
        '<p>One <span class="MathJax_Preview">{}</span><script type="math/tex">x</script></p>',
        '<div class="nav-content">{}</div>',
        '<div id="navigation">{}</div>',
        '<p class="pagination-note">{}</p>',
        '<section class="pager">{}</section>',
        '<dl class="navigation"><dt>Gate</dt><dd>{}</dd></dl>',
        '<ul><li class="nav-item">{}</li></ul>',
        '<table><tr><td class="nav">{}</td><td>2</td></tr></table>',
        '<p>One <span class="nav">{}</span> two</p>',
        '<div class="breadcrumb-recipe">{}</div>',
        '<div class="footer">{}</div>',
        "<header>{}</header>",
        "<aside>{}</aside>",
        "<form><p>{0} {0} {0}</p></form>",
        '<div role="complementary">{}</div>',
    ],
)
def test_words_are_not_lost_for_the_class_of_what_holds_them(lost: str) -> None:
    words = "The headline says refuse(digest), and what a lake keeps beside it."
    part = lost.format(words, words)
    for page in (f"<h1>T</h1><p>{SENTENCE * 5}</p>{part}", f"{part}<h1>T</h1><p>{SENTENCE * 5}</p>"):
        found = read(f"<html><body>{page}</body></html>")
        assert found.text.count(words) == part.count(words)
        assert found.text_coverage == 1


@pytest.mark.parametrize(
    "mark",
    [
        '<a class="headerlink" href="#a">¶</a>',
        '<a class="permalink" href="#a">§ 12</a>',
        '<a class="anchor-link" href="#a"><svg><title>Link</title></svg></a>',
        '<div class="gutter">1\n2\n3</div>',
        '<div class="copy-button">Copy to clipboard</div>',
        '<span class="katex-mathml"></span><span class="katex-html">x y</span>',
    ],
)
def test_marks_beside_the_text_are_left_out(mark: str) -> None:
    assert read(f"<html><body><h1>Sinks</h1><div>{mark}</div><p>{SENTENCE}</p></body></html>").text == (
        f"Sinks\n\n{SENTENCE.strip()}"
    )


def test_labels_that_add_up_are_missed() -> None:
    label = (
        '<div class="navbar"><a href="/">Home</a> {} of all the sinks and lakes that this site keeps</div>'
    )
    labels = "".join(label.format(f"Number {n}") for n in range(12))
    coverage = read(f"<html><body><h1>Sinks</h1><p>{SENTENCE * 40}</p>{labels}</body></html>").text_coverage
    assert coverage is not None
    assert 0.5 < coverage < 0.9


def test_a_caption_that_an_article_lost_is_missed() -> None:
    caption = " ".join(f"caption{n}" for n in range(40))
    for lost in (
        f"<figure><img src=a><figcaption>{caption}</figcaption></figure>",
        f"<aside>{caption}</aside>",
    ):
        found = read(ARTICLE.replace("<p>Paragraph 4", f"{lost}<p>Paragraph 4"))
        assert caption in found.text or (found.text_coverage is not None and found.text_coverage < 0.85)
