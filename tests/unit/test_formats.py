import io
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import docx
import pytest
from documents import make_epub, make_odt, make_pptx, make_xlsx
from packed_files import make_zip
from test_extract import check_offsets, failure, outcome

from assets.parsing import content_type
from assets.parsing.content_type import detect_media_type
from assets.parsing.extract import ExtractedDocument, extract_document
from assets.parsing.formats import zip_package
from assets.parsing.formats.office.doc import split_doc_paragraphs
from assets.parsing.sandbox import ParserLimits
from assets.sources.file_contents import source_file_contents
from assets.sources.source_schemas import ListedFile


def read(body: bytes, kind: str) -> ExtractedDocument:
    found = extract_document(body, kind)
    check_offsets(found)
    return found


def headings(found: ExtractedDocument) -> list[tuple[int, str]]:
    return [(heading.level, heading.title) for heading in found.headings]


def test_slides_are_pages_with_titles_lists_tables_and_notes() -> None:
    found = read(make_pptx(), content_type.PPTX)
    assert found.title == "The plan"
    assert headings(found) == [(1, "Plans")]
    assert found.text == (
        "Plans\n\n- Grow\n  - in the north\n\nRegion | Revenue\nNorth | 12\n\nThank you\n\n"
        "Notes: Wait for questions."
    )
    assert found.pages == [0, found.text.index("Thank")]


def test_sheets_are_pages_of_records() -> None:
    found = read(make_xlsx(), content_type.XLSX)
    assert headings(found) == [(1, "Prices"), (1, "Notes")]
    assert found.text == (
        "Prices\n\nfruit: fig\nprice: 2.5\nsince: 2026-01-02\nsum: 5\n\nNotes\n\nPrices are by weight."
    )
    assert found.pages == [0, found.text.index("Notes")]


def test_opendocument_structure() -> None:
    found = read(make_odt(), content_type.ODT)
    assert found.title == "Report"
    assert headings(found) == [(2, "Results")]
    assert found.text == (
        "Results\n\nRevenue  rose\nagain [Unaudited.].\n\n- north\n  - far north\n\nRegion\nNorth | 12"
    )


def test_book_is_read_in_the_order_of_its_spine() -> None:
    found = read(make_epub(), content_type.EPUB)
    assert found.title == "The Book"
    assert found.text == "One\n\nIt begins.\n\nTwo\n\nThe end."
    assert headings(found) == [(1, "One"), (1, "Two")]
    locked = '<encryption><CipherReference URI="OEBPS/text/one.xhtml"/></encryption>'
    assert failure(make_epub(encryption=locked), content_type.EPUB).expectation == "encrypted"
    font = '<encryption><CipherReference URI="OEBPS/font.otf"/></encryption>'
    assert read(make_epub(encryption=font), content_type.EPUB).title == "The Book"


def test_rtf_paragraphs_and_tables() -> None:
    body = (
        rb"{\rtf1\ansi\ansicpg1252{\info{\title Minutes}}{\pard Gr\'fc\'dfe \u8364?5\par}"
        rb"{\trowd a\cell b\cell\row c\cell d\cell\row}{\pard The end\par}}"
    )
    found = read(body, content_type.RTF)
    assert found.title == "Minutes"
    assert found.text == "Grüße €5\n\na | b\nc | d\n\nThe end"


MAIL = """From: =?utf-8?q?J=C3=BCrgen?= <j@a.example>
To: b@b.example
Subject: =?utf-8?b?R3LDvMOfZQ==?=
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=outer

--outer
Content-Type: multipart/alternative; boundary=inner

--inner
Content-Type: text/html; charset=utf-8

<p>Dear <b>Bob</b>, as a page</p>
--inner
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Dear Bob, sch=F6ne Gr=FC=DFe
--inner--
--outer
Content-Type: application/pdf
Content-Disposition: attachment; filename="plan.pdf"

%PDF-1.7
--outer
Content-Type: application/pgp-signature; name=signature.asc
Content-Disposition: attachment; filename=signature.asc

x
--outer--
"""


def test_mail_headers_plain_body_and_attachment_names() -> None:
    found = read(MAIL.encode(), content_type.EML)
    assert found.title == "Grüße"
    assert found.text == (
        "From: Jürgen <j@a.example>\nTo: b@b.example\nSubject: Grüße\n\n"
        "Dear Bob, schöne Grüße\n\nAttachments: plan.pdf"
    )
    assert detect_media_type(MAIL.encode(), "a.txt") == content_type.EML
    without_plain = MAIL.replace("sch=F6ne Gr=FC=DFe", "").replace("Dear Bob, ", "")
    assert "Dear Bob, as a page" in read(without_plain.encode(), content_type.EML).text


def test_attached_files_are_documents_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_text(MAIL)
    twice = MAIL.replace("Content-Type: application/pgp-signature; name=signature.asc\n", "").replace(
        "signature.asc", "plan.pdf"
    )
    (tmp_path / "b c.eml").write_text(twice)
    now = datetime.now(UTC)
    documents = {
        document.uri: document
        for file in sorted(tmp_path.iterdir())
        for document in source_file_contents(
            ListedFile(file.as_uri(), 1, now), file.read_bytes(), ParserLimits()
        )
    }
    a, b = (tmp_path / "a.eml").as_uri(), (tmp_path / "b c.eml").as_uri()
    assert list(documents) == [a, f"{a}#plan.pdf", b, f"{b}#plan.pdf", f"{b}#plan.pdf%202"]
    assert documents[f"{a}#plan.pdf"].media_type == "application/pdf"
    assert documents[f"{a}#plan.pdf"].body == b"%PDF-1.7"
    assert documents[f"{b}#plan.pdf%202"].body == b"x"


def test_mail_nested_without_end_is_bounded() -> None:
    parts = "".join(f"Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n" for n in range(2000))
    body = f"From: a@b.example\nTo: c@d.example\nSubject: deep\n{parts}Content-Type: text/plain\n\nbottom\n"
    error = outcome(body.encode(), content_type.EML)
    assert error is None or error.expectation == "unreadable"


def test_xml_fields_prose_and_headings() -> None:
    body = b"""<?xml version="1.0"?><book><title>Guide</title><chapter><title>Start</title>
<para>Press <b>the</b> button.</para><!-- unseen --></chapter>
<part><name>bolt</name><size>3</size></part><part><name>nut</name></part></book>"""
    found = read(body, content_type.XML)
    assert found.title == "Guide"
    assert headings(found) == [(1, "Guide"), (2, "Start")]
    assert found.text == "Guide\n\nStart\n\nPress the button.\n\nname: bolt\nsize: 3\n\nname: nut"


def test_xml_that_declares_entities_is_refused() -> None:
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE x [<!ENTITY l0 "lol">{levels}]><x>&l9;</x>'
    for body in (bomb.encode(), bomb.encode("utf-16")):
        assert "declares entities" in failure(body, content_type.XML).reason
    outside = b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f;</x>'
    assert "declares entities" in failure(outside, content_type.XML).reason
    assert read(b'<!DOCTYPE x SYSTEM "http://h.example/x.dtd"><x>words</x>', content_type.XML).text == "words"


@pytest.mark.parametrize("depth", [100, 5000, 200_000])
def test_xml_depth_is_bounded(depth: int) -> None:
    body = b"<a>" * depth + b"deep" + b"</a>" * depth
    if depth == 100:
        assert read(body, content_type.XML).text == "a: deep"
    else:
        assert failure(body, content_type.XML).expectation == "unreadable"


def test_notebook_cells_and_outputs() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Study\n", "Some *words*."]},
        {
            "cell_type": "code",
            "source": "1 / 0",
            "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["one\n", "two"]},
                {"output_type": "execute_result", "data": {"text/plain": "3", "image/png": "iVBOR"}},
                {
                    "output_type": "error",
                    "ename": "ZeroDivisionError",
                    "evalue": "by zero",
                    "traceback": ["x"],
                },
            ],
        },
    ]
    found = read(json.dumps({"nbformat": 4, "cells": cells}).encode(), content_type.IPYNB)
    assert found.title == "Study"
    assert found.text == "Study\n\nSome words.\n\n    1 / 0\n\none\ntwo\n\n3\n\nZeroDivisionError: by zero"


def test_org_headings_and_links() -> None:
    body = b"#+TITLE: Notes\n* TODO First :tag:\nSee [[https://x.example][the site]].\n** Second\n# no\nEnd\n"
    found = read(body, content_type.ORG)
    assert found.title == "Notes"
    assert headings(found) == [(1, "First"), (2, "Second")]
    assert found.text == "First\n\nSee the site.\n\nSecond\n\nEnd"


def test_binary_word_tables_fields_and_order() -> None:
    text = "Before\ra\x07b\x07\x07c\x07d\x07\x07After \x13HYPERLINK x\x14the site\x15\x0bnext\r"
    blocks = [block.text for block in split_doc_paragraphs(text) if block.text]
    assert blocks == ["Before", "a | b\nc | d", "After the site\nnext"]


PACKAGES = [content_type.DOCX, content_type.PPTX, content_type.XLSX, content_type.ODT, content_type.EPUB]


@pytest.mark.parametrize("kind", PACKAGES)
def test_zip_bombs_are_refused_unread(kind: str) -> None:
    zeros = b"\x00" * (100 << 20)  # grows a thousand times
    bomb = make_zip({"content.xml": zeros, "word/document.xml": b"", "xl/workbook.xml": b""})
    assert len(bomb) < 1 << 20
    error = failure(bomb, kind)
    assert (error.expectation, "bomb" in error.reason) == ("oversize", True)


def test_many_parts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_package, "MAX_ZIP_PARTS", 2)
    assert failure(make_xlsx(), content_type.XLSX).expectation == "oversize"


def test_a_part_that_unpacks_to_more_than_it_says_is_cut() -> None:
    body = bytearray(make_zip({"content.xml": b"<a>" + b"x" * 100_000 + b"</a>"}))
    directory = body.rindex(b"PK\x01\x02")
    body[directory + 24 : directory + 28] = (50).to_bytes(4, "little")
    assert zipfile.ZipFile(io.BytesIO(body)).getinfo("content.xml").file_size == 50
    assert failure(bytes(body), content_type.ODT).expectation == "unreadable"


@pytest.mark.parametrize("kind", PACKAGES)
def test_packages_locked_as_compound_files_are_called_encrypted(kind: str) -> None:
    assert failure(zip_package.OLE_SIGNATURE + b"\x00" * 512, kind).expectation in {"encrypted", "unreadable"}
    assert "password" in failure(b"x", content_type.ENCRYPTED_OFFICE).reason


HEADED = [["Berth", "Ship"], *([f"Berth {n}", f"The ship of the year {n}"] for n in range(60))]


def long_docx() -> bytes:
    document = docx.Document()
    table = document.add_table(rows=0, cols=2)
    for cells in HEADED:
        for cell, text in zip(table.add_row().cells, cells, strict=True):
            cell.text = text
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def long_odt() -> bytes:
    def row(cells: list[str]) -> str:
        shown = "".join(f"<table:table-cell><text:p>{text}</text:p></table:table-cell>" for text in cells)
        return f"<table:table-row>{shown}</table:table-row>"

    head, *rest = map(row, HEADED)
    names = ("office", "text", "table")
    spaces = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in names)
    table = (
        f"<table:table><table:table-header-rows>{head}</table:table-header-rows>{''.join(rest)}</table:table>"
    )
    body = f"<office:body><office:text>{table}</office:text></office:body>"
    content = f"<office:document-content {spaces}>{body}</office:document-content>"
    return make_zip({"mimetype": content_type.ODT, "content.xml": content})


RULE = f"{'=' * 10} {'=' * 25}"
LONG_TABLES = {
    content_type.DOCX: long_docx(),
    content_type.ODT: long_odt(),
    "text/markdown": "\n".join(
        ["| Berth | Ship |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in HEADED[1:])]
    ).encode(),
    "text/x-rst": "\n".join(
        [RULE, f"{HEADED[0][0]:10} {HEADED[0][1]}", RULE, *(f"{a:10} {b}" for a, b in HEADED[1:]), RULE, ""]
    ).encode(),
}


@pytest.mark.parametrize("kind", LONG_TABLES)
def test_a_long_table_repeats_its_header_in_each_part(kind: str) -> None:
    found = extract_document(LONG_TABLES[kind], kind)
    parts = found.text.split("\n\n")
    assert len(parts) > 2
    assert all(part.startswith("| Berth | Ship |\n| --- | --- |\n| Berth ") for part in parts)
    assert all(len(part) < 800 for part in parts)
    assert [f"| Berth {n} | The ship of the year {n} |" for n in range(60)] == [
        line for part in parts for line in part.split("\n")[2:]
    ]


def test_sgml_is_read_without_its_tags_and_broken_xml_is_not() -> None:
    sgml = b"<!doctype debiandoc system>\n<!-- by hand -->\n<book><title>Ports\n<p>Two <em/ropes/ & more.\n"
    found = extract_document(sgml, content_type.XML)
    assert found.text == "Ports\nTwo <em/ropes/ & more."
    assert detect_media_type(sgml, "a.sgml") == content_type.XML
    broken = b"<?xml version='1.0'?><a><b>words</a>"
    assert failure(broken, content_type.XML).expectation == "unreadable"
    bomb = b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;'
    assert failure(bomb, content_type.XML).expectation == "unreadable"


@pytest.mark.parametrize("kind", ["text/calendar", "text/vcard", "text/srt", "text/gettext-translation"])
def test_words_with_marks_between_them_are_text(kind: str) -> None:
    assert extract_document(b"SUMMARY:The crane is let.\n", kind).text == "SUMMARY:The crane is let."


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("image/png", "Pictures are not read"),
        ("audio/mpeg", "Sound recordings are not read"),
        ("video/mp4", "Films are not read"),
        (content_type.PPT, "Legacy PowerPoint presentations"),
        ("application/zip", "ZIP archives are not read"),
        ("application/x-strange", "Files of type application/x-strange"),
    ],
)
def test_what_is_not_read_is_named(kind: str, words: str) -> None:
    error = failure(b"x", kind)
    assert error.expectation == "unsupported_media_type"
    assert error.reason.startswith(words)


def test_ragged_rows_lose_no_cell() -> None:
    body = b"name,price,note\nfig,3,ripe,by weight\npear\nplum,4\n"
    found = read(body, "text/csv")
    assert found.text == "name: fig\nprice: 3\nnote: ripe\nby weight\n\nname: pear\n\nname: plum\nprice: 4"


@pytest.mark.parametrize(
    "kind",
    [*PACKAGES, content_type.RTF, content_type.MSG, content_type.DOC, content_type.XLS, "application/pdf"],
)
def test_a_file_that_is_not_what_its_name_says_is_refused_or_read_as_it_is(kind: str) -> None:
    text = b"Only a plain sentence, whatever the name says.\n"
    assert failure(text, kind).expectation == "unreadable"  # were the media type to come from a name
    assert detect_media_type(text, "report.docx") == "text/plain"


def test_lines_that_are_mostly_one_cell_are_no_table() -> None:
    lines = "Lorem, ipsum\ndolor sit\namet consectetur\nsed, do eiusmod\ntempor incididunt"
    assert read(lines.encode(), "text/csv").text == lines


def test_a_cell_that_is_alone_in_its_row_stands_for_itself() -> None:
    rows = b"<tr><td> </td><td>Start the meeting</td></tr><tr><td>a</td><td>b</td></tr>"
    assert "Start the meeting\na | b" in read(b"<p>Hello</p><table>%s</table>" % rows, "text/html").text


def test_org_marks_of_code_are_no_text() -> None:
    body = b"* Use ~a.py~\nSee =b.c= and ~d e~, not x=1 or y=2, a ~ b, =.\n"
    assert read(body, content_type.ORG).text == "Use a.py\n\nSee b.c and d e, not x=1 or y=2, a ~ b, =."
