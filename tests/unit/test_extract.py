import codecs
import contextlib
import gzip
import io
import sys
import tarfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import docx
import pytest
from documents import make_docx, make_epub, make_odt, make_pdf, make_pptx, make_xlsx
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packed_files import make_zip

from assets.parsing import content_type
from assets.parsing.blocks import (
    DocumentBlocks,
    ExtractedDocument,
    ExtractionError,
    TextBlock,
    assemble_blocks,
)
from assets.parsing.content_type import DOCX, detect_media_type
from assets.parsing.extract import MAX_DOCUMENT_BYTES, extract_document
from assets.parsing.formats.office import docx as reader_of_docx
from assets.parsing.formats.zip_package import OLE_SIGNATURE
from assets.text.normalization import normalize_text

KINDS = [
    "text/plain",
    "text/plain; charset=utf-8",
    "text/markdown",
    "text/x-rst",
    "text/html",
    "application/pdf",
    DOCX,
    "text/csv",
    "text/tab-separated-values",
    "application/json",
    "application/x-ndjson",
    content_type.PPTX,
    content_type.XLSX,
    content_type.XLS,
    content_type.ODT,
    content_type.EPUB,
    content_type.RTF,
    content_type.EML,
    content_type.MSG,
    content_type.DOC,
    content_type.XML,
    content_type.IPYNB,
    content_type.ORG,
]
EXPECTATIONS = {"empty", "oversize", "unsupported_media_type", "encrypted", "unreadable", "no_text"}

MARKDOWN = b"""# Widget [![build](https://x/y.svg)](https://x)

<!-- a comment -->
<p align="center"><img src="logo.png"><br>The <b>fast</b> widget</p>

Install it with `pip install widget`, then see
[the guide](https://guide) or <https://widget.dev>. ![shot](a.png)

## Usage

```python
import widget

widget.run()
```

- one
- two
  - nested

| name | size |
|------|------|
| a    | 1    |
"""

RST = b"""
Widget
======

See :ref:`the guide <guide>`, :func:`widget.run` and ``literal``.

.. include:: /etc/passwd

.. raw:: html

   <script>alert(1)</script>

.. versionadded:: 1.2
   The *speed* argument.

.. code-block:: python
   :caption: Example
   :linenos:

   widget.run()

.. py:function:: walk(path)

   Walks a tree of :class:`Node` things.

   .. note:: It is slow.

Usage
-----

:speed: how fast

:doc:`start` here
  Where it begins.
"""

HTML = b"""<!DOCTYPE html><html><head><title>Install - Widget docs</title><style>p {color: red}</style></head>
<body><nav><a href="/">Home</a><a href="/blog">Company blog</a></nav>
<main><h1>Install<a class="headerlink" href="#install">\xc2\xb6</a></h1>
<p>Run the <b>installer</b> and wait until it has finished its work, which takes a minute.</p>
<h2>Next steps</h2><ul><li>Read the manual<ul><li>all of it</li></ul></li><li>Call us</li></ul>
<pre>line one
  line two</pre>
<table><tr><th>name</th><th>size</th></tr><tr><td>a</td><td>1</td></tr></table></main>
<script>track()</script><footer>Copyright Widget Inc. All rights reserved.</footer></body></html>"""


def check_offsets(found: ExtractedDocument) -> None:
    assert normalize_text(found.text) == found.text
    for heading in found.headings:
        assert found.text[heading.char_start :].startswith(heading.title)
        assert heading.char_start == 0 or found.text[heading.char_start - 1] == "\n"
    assert found.pages == sorted(found.pages)
    assert all(0 <= page <= len(found.text) for page in found.pages)


def outcome(body: bytes, kind: str) -> ExtractionError | None:
    """Extracts and checks what came, or the error instead of it."""
    with contextlib.suppress(ExtractionError):
        check_offsets(extract_document(body, kind))
        return None
    error = failure(body, kind)
    assert error.expectation in EXPECTATIONS
    return error


def failure(body: bytes, kind: str, max_size_bytes: int = MAX_DOCUMENT_BYTES) -> ExtractionError:
    with pytest.raises(ExtractionError) as caught:
        extract_document(body, kind, max_size_bytes)
    assert caught.value.reason.endswith(".") or "is damaged" in caught.value.reason
    return caught.value


MAIL = (
    b"Received: from a.example by b.example; Tue, 3 Jun 2025 10:00:00 +0000\nFrom: Ada <ada@a.example>\n"
    b"To: Bob <bob@b.example>\nSubject: Minutes\nMIME-Version: 1.0\nContent-Type: text/plain\n\n"
    b"Dear Bob,\nhere are the minutes of our meeting.\nAda\n"
)


@pytest.mark.parametrize(
    ("name", "body", "kind"),
    [
        ("a.bin", MARKDOWN, "text/markdown"),
        ("a", RST, "text/x-rst"),
        ("page.txt", HTML, "text/html"),
        ("a", make_pdf([["Hello there"]]), "application/pdf"),
        ("a.zip", make_docx(), DOCX),
        ("a.txt", b'{"name": "x", "values": [1, 2, 3], "nested": {"deep": true}}\n' * 1, "application/json"),
        ("data", b"id,name,price\n1,apple,2.50\n2,pear,3.10\n3,fig,0.80\n", "text/csv"),
        ("data", b"id\tname\tprice\n1\tapple\t2.50\n2\tpear\t3.10\n", "text/tab-separated-values"),
        ("notes.txt", "Ein Text über Äpfel.".encode("utf-16"), "text/plain"),
        ("notes.txt", "Plain words, no mark.".encode("utf-16-be"), "text/plain"),
        ("mail.txt", MAIL, "message/rfc822"),
        ("film.txt", b"1\n00:00:01,000 --> 00:00:04,000\nGood evening.\n\n" * 8, "text/srt"),
        ("a.zip", make_pptx(), content_type.PPTX),
        ("a.zip", make_xlsx(), content_type.XLSX),
        ("a.docx", make_odt(), content_type.ODT),
        ("a.zip", make_zip({"mimetype": "text/html", "a": "It says what it is not."}), "application/zip"),
        ("a.zip", make_epub(), content_type.EPUB),
        ("a.doc", b"{\\rtf1\\ansi Not what its name says.\\par}", content_type.RTF),
        ("a.pdf", b"<?xml version='1.0'?>\n<r><c>a</c><c>b</c></r>\n" * 1, content_type.XML),
        ("a.xml", b"<?xml version='1.0'?>\n<!DOCTYPE html>\n" + HTML[HTML.index(b"<html") :], "text/html"),
        ("n.json", b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', content_type.IPYNB),
        ("a.org", b"* Heading\n\nSome words of text.\n", content_type.ORG),
        ("a.xls", OLE_SIGNATURE + b"\x00" * 600, content_type.OLE_COMPOUND),
        ("a.jpg", make_pdf([["A PDF, whatever it is called."]]), "application/pdf"),
        ("a.txt", b"From: home\nTo: work\nDate: Monday\nstops:\n  - the baker's\n", "text/plain"),
        ("a.txt", b"Name: x\nFrom: here\n\nA list of fields is not a message.\n", "text/plain"),
        ("readme.md", b"Only a plain sentence here.", "text/markdown"),
        ("x", b"", "application/x-empty"),
        ("x", b" \n\t\n", "application/x-empty"),
        ("x.txt", bytes(range(256)) * 20, "application/octet-stream"),
        ("x.md", gzip.compress(MARKDOWN, mtime=0), "application/gzip"),
    ],
)
def test_media_type_is_told_by_content(name: str, body: bytes, kind: str) -> None:
    found = detect_media_type(body, name)
    if kind == "application/json":
        assert found in {"application/json", "application/x-ndjson"}
    else:
        assert found == kind


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Füße, naïve façade – “quoted” €5", "utf-8"),
        ("Füße, naïve façade – “quoted” €5", "utf-8-sig"),
        ("Füße, naïve façade", "utf-16"),
        ("Füße, naïve façade", "utf-32"),
        ("A longer plain text without a byte order mark", "utf-16-le"),
        ("A longer plain text without a byte order mark", "utf-16-be"),
        ("Ein schöner Tag, sagte Jürgen, für große Spaziergänge.", "latin-1"),
        ("“Smart” quotes — and a €5 note in an English sentence.", "cp1252"),
        ("Быстрая коричневая лиса перепрыгивает через ленивую собаку. Это проверка кодировки.", "cp1251"),
        ("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。", "shift_jis"),
    ],
)
def test_text_in_any_encoding(text: str, encoding: str) -> None:
    assert extract_document(text.encode(encoding), "text/plain").text == text


def test_a_few_damaged_bytes_do_not_change_the_encoding() -> None:
    body = ("Größe und Straße. " * 50).encode() + b"\xff" + " Ähre".encode()
    text = extract_document(body, "text/plain").text
    assert text.startswith("Größe und Straße.")
    assert text.endswith("\ufffd Ähre")


def test_markdown_keeps_words_and_drops_markup() -> None:
    found = extract_document(MARKDOWN, "text/markdown")
    check_offsets(found)
    assert found.title == "Widget"
    assert [(heading.level, heading.title) for heading in found.headings] == [(1, "Widget"), (2, "Usage")]
    assert found.text == (
        "Widget\n\nThe fast widget\n\n"
        "Install it with pip install widget, then see the guide or https://widget.dev. shot\n\n"
        "Usage\n\n    import widget\n\n    widget.run()\n\n- one\n- two\n  - nested\n\nname | size\na | 1"
    )


def test_markdown_front_matter_gives_the_title() -> None:
    found = extract_document(b"---\ntitle: 'The manual'\ntags: [a]\n---\nBody text.\n", "text/markdown")
    assert (found.title, found.text) == ("The manual", "Body text.")
    assert extract_document(b"---\n\nA rule above.\n\n---\n", "text/markdown").text == "A rule above."


def test_rst_reads_no_file_and_loses_no_text(capfd: pytest.CaptureFixture[str]) -> None:
    found = extract_document(RST, "text/x-rst")
    check_offsets(found)
    assert found.title == "Widget"
    assert [heading.title for heading in found.headings] == ["Widget", "Usage"]
    assert "See the guide, widget.run and literal." in found.text
    assert "Added 1.2\n\nThe speed argument." in found.text
    assert "\n\n    widget.run()\n\n" in found.text
    assert "walk(path)\n\nWalks a tree of Node things." in found.text
    assert "Note: It is slow." in found.text
    assert found.text.endswith("speed: how fast\n\nstart here\n  Where it begins.")
    for absent in ("root:", "alert", "Unknown", "::", "include", "caption"):
        assert absent not in found.text
    assert capfd.readouterr() == ("", "")


def test_rst_does_not_say_the_day_of_parsing() -> None:
    found = extract_document(b"Written on |today|.\n\n.. |today| date::\n", "text/x-rst")
    assert found.text == "Written on (date)."


def test_html_gives_the_main_text() -> None:
    found = extract_document(HTML, "text/html")
    check_offsets(found)
    assert found.title == "Install"
    assert [(heading.level, heading.title) for heading in found.headings] == [
        (1, "Install"),
        (2, "Next steps"),
    ]
    assert "Run the installer and wait" in found.text
    assert "- Read the manual" in found.text
    assert "    line one\n      line two" in found.text
    assert "| name | size |\n| --- | --- |\n| a | 1 |" in found.text
    for absent in ("Company blog", "track()", "All rights reserved", "color"):
        assert absent not in found.text


def test_html_of_boilerplate_only_is_not_lost() -> None:
    assert (
        extract_document(b"<html><body><nav>Only this line</nav></body></html>", "text/html").text
        == "Only this line"
    )


@pytest.mark.parametrize(
    ("declared", "encoding"), [("iso-8859-1", "cp1252"), ("windows-1251", "cp1251"), ("shift_jis", "cp932")]
)
def test_html_says_its_own_encoding(declared: str, encoding: str) -> None:
    word = {"cp1252": "“Größe”", "cp1251": "Привет", "cp932": "こんにちは"}[encoding]
    page = f'<html><head><meta charset="{declared}"></head><body><p>{word}</p></body></html>'
    assert extract_document(page.encode(encoding), "text/html").text == word


def test_html_entity_bomb_is_harmless() -> None:
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE html [<!ENTITY l0 "lol">{levels}]><html><body><p>safe &l9; text</p></body></html>'
    assert len(extract_document(bomb.encode(), "text/html").text) < 10 * len(bomb)


@pytest.mark.parametrize("tag", ["div", "ul><li", "table><tr><td", "b", "h1"])
def test_html_depth_bomb_does_not_end_the_process(tag: str) -> None:
    body = f"<html><body>{f'<{tag}>' * 5000}deep text</body></html>".encode()
    outcome(body, "text/html")


def test_pdf_pages_paragraphs_and_title() -> None:
    first = ["Widgets are small", "and round.", "", "", "They come in boxes."]
    found = extract_document(
        make_pdf([first, [], ["Second page text"]], title="Widget book"), "application/pdf"
    )
    check_offsets(found)
    assert found.title == "Widget book"
    assert found.text == "Widgets are small\nand round.\n\nThey come in boxes.\n\nSecond page text"
    assert found.pages == [0, found.text.index("Second"), found.text.index("Second")]


def test_pdf_that_says_nothing_or_is_locked_or_broken() -> None:
    assert failure(make_pdf([[], []]), "application/pdf").expectation == "no_text"
    assert failure(make_pdf([["secret"]], encrypted=True), "application/pdf").expectation == "encrypted"
    assert failure(b"%PDF-1.4 and no more", "application/pdf").expectation == "unreadable"


def test_docx_headings_tables_and_title() -> None:
    found = extract_document(make_docx(), DOCX)
    check_offsets(found)
    assert found.title == "Quarterly report"
    assert [(heading.level, heading.title) for heading in found.headings] == [
        (1, "Results"),
        (2, "By region"),
    ]
    assert found.text == (
        "Results\n\nRevenue rose in the second quarter.\n\n"
        "By region\n\nRegion | Revenue\nNorth | 12\n\nClosing remarks."
    )


W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
M = "http://schemas.openxmlformats.org/officeDocument/2006/math"


def docx_with_notes() -> bytes:
    """A Word document with two footnotes, one of them deleted, an endnote, and two equations."""

    def xml(inside: str) -> Any:
        return docx.oxml.parse_xml(f'<w:x xmlns:w="{W}" xmlns:m="{M}">{inside}</w:x>')

    def notes(kind: str, texts: dict[str, str]) -> bytes:
        each = "".join(
            f'<w:{kind} w:id="{number}"><w:p><w:r><w:{kind}Ref/></w:r>'
            f"<w:r><w:t>{text}</w:t></w:r></w:p></w:{kind}>"
            for number, text in texts.items()
        )
        line = f'<w:{kind} w:type="separator" w:id="-1"><w:p><w:r><w:t>no</w:t></w:r></w:p></w:{kind}>'
        return f'<w:{kind}s xmlns:w="{W}">{line}{each}</w:{kind}s>'.encode()

    def text(of: str) -> str:
        return f"<m:e><m:r><m:t>{of}</m:t></m:r></m:e>"

    document = docx.Document()
    for kind, texts in (
        ("footnote", {"1": "By the harbour office.", "2": "Struck out.", "3": "Without a place."}),
        ("endnote", {"1": "Counted in May."}),
    ):
        part = Part(
            PackURI(f"/word/{kind}s.xml"), "application/xml", notes(kind, texts), document.part.package
        )
        document.part.relate_to(
            part, f"http://schemas.openxmlformats.org/officeDocument/2006/relationships/{kind}s"
        )
    first = document.add_paragraph("Ships are counted")._p
    first.extend(
        xml(
            '<w:r><w:footnoteReference w:id="1"/></w:r><w:r><w:t> each day</w:t></w:r>'
            '<w:del><w:r><w:footnoteReference w:id="2"/></w:r></w:del><w:r><w:t>.</w:t></w:r>'
        )
    )
    cell = document.add_table(rows=1, cols=1).cell(0, 0).paragraphs[0]
    cell.add_run("Ships: 12")
    cell._p.extend(xml('<w:r><w:endnoteReference w:id="1"/></w:r>'))
    last = document.add_paragraph("The load is ")._p
    last.extend(
        xml(
            f"<m:oMath><m:r><m:t>E=m</m:t></m:r><m:sSup>{text('c')}"
            "<m:sup><m:r><m:t>2</m:t></m:r></m:sup></m:sSup>"
            "</m:oMath><w:r><w:t>, and so on:</w:t></w:r><m:oMathPara><m:oMath><m:f>"
            "<m:num><m:r><m:t>mass</m:t></m:r></m:num><m:den><m:r><m:t>volume</m:t></m:r></m:den></m:f></m:oMath></m:oMathPara>"
        )
    )
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def test_notes_and_equations_of_a_word_document_arrive_and_count(monkeypatch: pytest.MonkeyPatch) -> None:
    found = extract_document(docx_with_notes(), DOCX)
    check_offsets(found)
    assert found.text == (
        "Ships are counted [By the harbour office.] each day.\n\nShips: 12 [Counted in May.]\n\n"
        "The load is E=m c^2, and so on:\nmass/volume\n\nWithout a place."
    )
    assert found.text_coverage == 1
    monkeypatch.setattr(reader_of_docx, "_place_notes", lambda body, notes: [])
    monkeypatch.setattr(reader_of_docx, "_equation", lambda element: "")
    lost = extract_document(docx_with_notes(), DOCX).text_coverage
    assert lost is not None
    assert lost < 0.7


def test_zip_that_is_no_docx() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert detect_media_type(out.getvalue(), "report.docx") == "application/zip"
    assert failure(out.getvalue(), DOCX).expectation == "unreadable"
    assert failure(b"PK\x03\x04 torn", DOCX).expectation == "unreadable"
    assert failure(b"\xd0\xcf\x11\xe0 a compound file", DOCX).expectation == "encrypted"


def test_docx_bomb_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assets.parsing.formats.zip_package.MAX_UNPACKED_BYTES", 1000)
    assert failure(make_docx(), DOCX).expectation == "oversize"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimited_rows_name_their_columns(delimiter: str) -> None:
    rows = [["name", "price"], ["apple, green", "2.50"], ["pear", ""]]
    body = "\r\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows).encode()
    assert extract_document(body, "text/csv").text == "name: apple, green\nprice: 2.50\n\nname: pear"


def test_delimited_without_header_or_delimiter() -> None:
    assert extract_document(b"1,2\n3,4\n", "text/csv").text == "1 | 2\n3 | 4"
    assert extract_document(b"just\none\ncolumn\n", "text/csv").text == "just\none\ncolumn"
    assert extract_document(b"Stock list,,\nname,price,note\nfig,3,ripe\n", "text/csv").text == (
        "Stock list\n\nname: fig\nprice: 3\nnote: ripe"
    )


def test_json_leaves_with_their_paths() -> None:
    body = (
        b'{"title": "Fig", "version": 1.10, "tags": ["a", "b"], "parts": [{"n": 1}, {"n": null}], "ok": true}'
    )
    found = extract_document(body, "application/json")
    assert found.title == "Fig"
    assert found.text == "title: Fig\nversion: 1.10\ntags: a, b\nparts[0].n: 1\nok: true"


def test_html_in_json_is_its_text() -> None:
    body = b'[{"id": 7, "body": "<h2>Tides</h2>\\n<p>High &amp; <b>low</b></p>", "note": "<b> or <i>?"}]'
    found = extract_document(body, "application/json")
    assert found.text == "id: 7\nbody:\nTides\nHigh & low\nnote: <b> or <i>?"
    assert extract_document(b'{"a": "<br>", "b": "<p>"}', "application/json").text == "a: <br>\nb: <p>"


def test_json_lines_and_lists_are_a_block_a_record() -> None:
    expected = "a: 1\n\na: 2"
    assert extract_document(b'{"a": 1}\n{"a": 2}\n', "application/x-ndjson").text == expected
    assert extract_document(b'[{"a": 1}, {"a": 2}]', "application/json").text == expected


@pytest.mark.parametrize(
    "body",
    [
        '{\n  // Visit https://aka.ms/tsconfig\n  "compilerOptions": {"target": "es2022", /* all */\n},\n}\n',
        '/* Settings */ {"files.exclude": {"**/*.js": true, "/* no": "a // b, ]"}}',
        '{\n  "a": [1, 2,\n  ],\n}\n',
        '{\n  "a": 1\n}\n{\n  "b": "two"\n}\n',
        "[\n  1\n]\n\n[\n  2\n]",
    ],
)
def test_json_as_people_write_it_for_programs_is_kept_as_text(body: str) -> None:
    for name in ("tsconfig.json", "settings", "a.txt"):
        kind = detect_media_type(body.encode(), name)
        assert extract_document(body.encode(), kind).text == body.strip()
    assert extract_document(body.encode(), "application/json").text == body.strip()


@pytest.mark.parametrize(
    "body",
    [
        *('{\n // note\n "a": 1', '{\n "a": 1,\n "b": "tw', '{"a": 1}\n{\n "b": 2', "[1, 2,", '{"a": 1 /* }'),
        *('["' + '\\"' * 50_000, "[" + "/*" * 50_000, "[]" * 50_000 + "[", "[1" + "," * 50_000),
        *('{"a": 1}\nand words', '{"a": "x // }', "[" * 50_000, "{" * 50_000 + "//", '["' + ", " * 50_000),
    ],
)
def test_torn_json_is_not_kept(body: str) -> None:
    assert failure(body.encode(), "application/json").expectation == "unreadable"


def test_broken_json_names_the_line() -> None:
    assert "line 2" in failure(b'{"a": 1}\n{"a": \n', "application/x-ndjson").reason
    assert "line 3" in failure(b'{\n"a": 1,\n"b" 2\n}\n', "application/json").reason
    assert failure(b"[" * 200_000, "application/json").expectation == "unreadable"


def test_what_is_refused_says_why() -> None:
    assert failure(b"", "text/plain").expectation == "empty"
    assert failure(b"", "text/plain").reason == "The file has no bytes."
    assert failure(b"", content_type.UTF8_TEXT).reason == "The row has no text."  # of a table
    assert failure(b"  \n ", "text/plain").expectation == "no_text"
    assert failure(b"  \n ", "application/x-empty").expectation == "empty"
    assert failure(b"x", "application/octet-stream").expectation == "unsupported_media_type"
    assert failure(b"x", "audio/mpeg").expectation == "unsupported_media_type"
    assert failure(b"x" * 11, "text/plain", max_size_bytes=10).expectation == "oversize"
    assert failure(bytes(range(256)) * 20, "text/plain").expectation == "unreadable"


@given(
    st.lists(
        st.builds(
            TextBlock,
            st.text(max_size=30),
            st.none() | st.integers(1, 6),
            st.none(),
        ),
        max_size=8,
    ),
    st.lists(st.integers(1, 5), max_size=8),
)
def test_assembled_offsets_hold_for_any_blocks(blocks: list[TextBlock], pages: list[int]) -> None:
    paged = [
        TextBlock(block.text, block.level, page) for block, page in zip(blocks, sorted(pages), strict=False)
    ]
    for content in (DocumentBlocks(blocks), DocumentBlocks(paged, page_count=5)):
        if not any(normalize_text(block.text).strip() for block in content.blocks):
            continue
        found = assemble_blocks(content)
        check_offsets(found)
        assert len(found.pages) == content.page_count


SEEDS = {
    "text/markdown": MARKDOWN,
    "text/x-rst": RST,
    "text/html": HTML,
    "application/pdf": make_pdf([["Hello"], ["World"]]),
    DOCX: make_docx(),
    "text/csv": b'a,b\n"1",2\n',
    "application/json": b'{"a": [1, {"b": "c"}]}',
    content_type.PPTX: make_pptx(),
    content_type.XLSX: make_xlsx(),
    content_type.ODT: make_odt(),
    content_type.EPUB: make_epub(),
    content_type.RTF: b"{\\rtf1\\ansi Words\\par\\trowd a\\cell b\\cell\\row}",
    content_type.EML: MAIL,
    content_type.MSG: OLE_SIGNATURE + b"\x00" * 600,
    content_type.DOC: OLE_SIGNATURE + b"\x00" * 600,
    content_type.XLS: OLE_SIGNATURE + b"\x00" * 600,
    content_type.XML: b"<a><title>T</title><b>c</b></a>",
    content_type.IPYNB: b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": ["x"], "outputs": []}]}',
    content_type.ORG: b"#+TITLE: T\n* Head :tag:\n[[a][b]]\n",
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_bytes_raise_anything_else(kind: str, data: st.DataObject) -> None:
    body = data.draw(st.binary(max_size=300))
    if kind in SEEDS and data.draw(st.booleans()):
        seed = SEEDS[kind]
        at = data.draw(st.integers(0, len(seed)))
        body = seed[:at] + body + seed[at + data.draw(st.integers(0, 40)) :]
    outcome(body, kind)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=500), st.sampled_from(["", "a.txt", "b.csv", "file:///c.rst"]))
def test_media_type_is_total_and_deterministic(body: bytes, name: str) -> None:
    assert detect_media_type(body, name) == detect_media_type(body, name)


def test_parsers_are_not_loaded_before_they_are_needed() -> None:
    import subprocess

    heavy = "trafilatura docx pptx python_calamine striprtf oxmsg olefile docutils magika pypdfium2"
    heavy += " markdown_it charset_normalizer py3langid lxml"
    code = f"import assets.parsing.extract, sys; print([m for m in {heavy.split()!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


# What people put among their documents and no text can be had from.
MESSY_REFUSALS = {
    "unsupported_media_type": {"img", "simple.zip"},
    "encrypted": {"pdf/password.pdf"},
    "no_text": {"pdf/single_table.pdf", "picture.pptx"},
    "empty": {"eml/empty.eml"},
}


def test_messy_files_are_read_or_refused(shared_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    read, refused = 0, defaultdict[str, set[str]](set)
    with tarfile.open(shared_data / "messy-docs.tar.gz") as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is None:
                continue
            body, name = file.read(), member.name.removeprefix("messy-docs/")
            if error := outcome(body, detect_media_type(body, name)):
                refused[error.expectation].add("img" if name.startswith("img/") else name)
            else:
                read += 1
    assert refused == MESSY_REFUSALS
    assert read == 110
    assert capfd.readouterr().err == ""


def test_utf16_with_mark_is_its_text() -> None:
    body = codecs.BOM_UTF16_BE + "name,price\nfig,3\n".encode("utf-16-be")
    assert extract_document(body, detect_media_type(body, "a.csv")).text == "name: fig\nprice: 3"


def test_letters_that_are_struck_over_are_read_once() -> None:
    """As nroff writes manual pages to a file: bold, underlined, and bullets of two signs."""
    body = "P\bPo\bos\bst\btf\bfi\bix\bx _\bR_\be_\ba_\bd_\bm_\be\n+\bo item, N\bN\bNaïve\n\ba\b\n"
    for encoded in (body.encode(), body.encode("cp1252")):
        text = extract_document(encoded, "text/plain", 1 << 20).text
        assert text == "Postfix Readme\no item, Naïve"


def test_pictures_in_marked_text_say_what_they_show() -> None:
    badges = "[![Build](b.svg)](https://ci.example) [![PyPI](p.svg)](https://pypi.example)\n\n"
    markdown = f"# Tides\n\n{badges}The chart: ![High water at noon](a.png) of Brest.\n"
    found = extract_document(markdown.encode(), "text/markdown")
    assert found.text == "Tides\n\nThe chart: High water at noon of Brest."
    rst = (
        "Tides\n=====\n\nOf Brest.\n\n.. image:: a.png\n   :alt: High water at noon\n\n"
        ".. image:: b.svg\n   :alt: Build\n   :target: https://ci.example\n\n"
        ".. figure:: c.png\n   :alt: Low water at six\n\n   The caption.\n"
    )
    found = extract_document(rst.encode(), "text/x-rst")
    assert found.text == "Tides\n\nOf Brest.\n\nHigh water at noon\n\nLow water at six\n\nThe caption."


def test_colours_of_a_terminal_are_no_text() -> None:
    coloured = (
        "\x1b[1;31merror\x1b[0m: no \x1b]8;;https://a.example\x1b\\link\x1b]8;;\x1b\\ é\x1b(B here\x1b[K\n"
        * 3
    )
    assert detect_media_type(coloured.encode(), "build.log") == "text/plain"
    text = extract_document(coloured.encode(), "text/plain").text
    assert text == "\n".join(["error: no link é here"] * 3)


def test_html_in_a_feed_is_read_as_html() -> None:
    feed = (
        "<rss version='2.0'><channel><title>Tides</title><item><title>Spring tide</title>"
        "<link>https://a.example/1</link><description>&lt;p&gt;It is &lt;b&gt;high&lt;/b&gt; today.&lt;/p&gt;"
        "&lt;ul&gt;&lt;li&gt;Brest&lt;/li&gt;&lt;/ul&gt;</description></item>"
        "<item><description>5 &lt; 6, and no HTML</description></item></channel></rss>"
    )
    text = extract_document(feed.encode(), "application/xml").text
    assert "It is high today.\n\n- Brest" in text
    assert "5 < 6, and no HTML" in text
