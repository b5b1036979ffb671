"""What documents do to parsers: each is read, or refused with a reason that names something."""

import io
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from documents import make_docx, make_epub, make_odt, make_pdf, make_pptx, make_xlsx
from packed_files import make_zip

from assets.parsing.blocks import ExtractedDocument, ExtractionError
from assets.parsing.content_type import detect_media_type
from assets.parsing.sandbox import ParserLimits, SandboxedParser

WORD = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
MAIL = b"From: a@b.example\nTo: c@d.example\nSubject: s\nMIME-Version: 1.0\n"
SENTENCE = "Some words here, and more of them to read."
REASONS = {
    "unreadable",
    "unsupported_media_type",
    "no_text",
    "encrypted",
    "empty",
    "oversize",
    "out_of_memory",
}


@pytest.fixture(scope="module")
def parser() -> Iterator[SandboxedParser]:
    parser = SandboxedParser(ParserLimits(memory_bytes=1 << 30))
    yield parser
    parser.close()


def outcome(parser: SandboxedParser, body: bytes, name: str) -> ExtractedDocument | ExtractionError:
    try:
        found: ExtractedDocument | ExtractionError = parser.extract_document(
            body, detect_media_type(body, name)
        )
    except ExtractionError as error:
        found = error
    if isinstance(found, ExtractedDocument):
        found.text.encode()  # no half of a surrogate pair
    else:
        assert found.expectation in REASONS, found
        assert len(found.reason) > 10
        assert "unknown error" not in found.reason.lower()
    return found


def nested_mail(depth: int) -> bytes:
    body = MAIL + b"\nthe end\n"
    for _ in range(depth):
        body = MAIL + b"Content-Type: message/rfc822\n\n" + body
    return body


def many_parts(count: int) -> bytes:
    parts = b"".join(b"--b\nContent-Type: text/plain\n\npart %d\n" % number for number in range(count))
    return MAIL + b"Content-Type: multipart/mixed; boundary=b\n\n" + parts + b"--b--\n"


def with_part(package: bytes, name: str, content: str) -> bytes:
    whole = zipfile.ZipFile(io.BytesIO(package))
    return make_zip({part: content if part == name else whole.read(part) for part in whole.namelist()})


def document(inside: str) -> bytes:
    body = f"<w:document {WORD}><w:body>{inside}</w:body></w:document>"
    return with_part(make_docx(), "word/document.xml", body)


CELL, CELL_END = "<w:tbl><w:tr><w:tc>", "</w:tc></w:tr></w:tbl>"
RST_LISTS = b"Title\n=====\n\n" + b"".join(b"  " * depth + b"- x\n\n" for depth in range(300))
TABLES = f"{CELL * 60}<w:p><w:r><w:t>{SENTENCE}</w:t></w:r></w:p>{CELL_END * 60}"
LONG_HEADER = MAIL.replace(b": s", b": s" + b" =?utf-8?q?x?=" * 100_000)
FAR_CELLS = (
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    '<row r="1"><c r="A1"><v>1</v></c></row>'
    '<row r="1048576"><c r="XFD1048576"><v>2</v></c></row></sheetData></worksheet>'
)


def far_cells() -> bytes:
    return with_part(make_xlsx(), "xl/worksheets/sheet1.xml", FAR_CELLS)


MACRO = b".de A\n.A\n.A\n..\n.A\n"
HOSTILE: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "lists in JSON": ("a.json", lambda: b"[" * 50_000 + b"]" * 50_000, ""),
    "objects in JSON": ("a.json", lambda: b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "nested too deeply"),
    "elements in XML": ("a.xml", lambda: b"<?xml version='1.0'?>\n<a>\n" + b"<b>\n" * 5000, ""),
    "elements in HTML": ("a.html", lambda: b"<html><body>" + b"<div>" * 50_000 + b"deep", ""),
    "an attribute": ("a.html", lambda: f"<html><p title='{'x' * 12_000_000}'>{SENTENCE}".encode(), SENTENCE),
    "quotes in Markdown": ("a.md", lambda: b"# Title\n\n" + b"> " * 20_000 + b"word", ""),
    "brackets in Markdown": ("a.md", lambda: b"# Title\n\n" + b"[" * 5_000, ""),
    "lists in reStructuredText": ("a.rst", lambda: RST_LISTS, ""),
    "links in Org": ("a.org", lambda: b"* Head\n" + b"[[=a ~b " * 20_000, ""),
    "macros in a manual page": (
        "a.1",
        lambda: b".TH A 1\n.SH B\nwords\n.de A\n.A\n.A\n..\n.A\n" * 50_000,
        "words",
    ),
    "groups in RTF": (
        "a.rtf",
        lambda: b"{\\rtf1 " + b"{" * 100_000 + b"words" + b"}" * 100_001,
        "words",
    ),
    "messages in a message": ("a.eml", lambda: nested_mail(100), "From: a@b.example"),
    "too many messages in a message": ("a.eml", lambda: nested_mail(2000), "nested too deeply"),
    "parts in a message": ("a.eml", lambda: many_parts(10_000), "part 9999"),
    "words in a header": (
        "a.eml",
        lambda: LONG_HEADER + b"\nbody\n",
        "body",
    ),
    "pages in a PDF": ("a.pdf", lambda: make_pdf([["page"]] * 40_000), "40,000 pages"),
    "a field of CSV": ("a.csv", lambda: b'name,text\na,"%s"\n' % (b"long words " * 1_900_000), "20,900,"),
    "quotes of CSV": ("a.csv", lambda: b"name,text\n" + b'a,"b\n' * 100_000, "name: a"),
    "cells far apart": (
        "a.xlsx",
        far_cells,
        "more memory",
    ),
    "controls in Word": ("a.docx", lambda: document("<w:sdt><w:sdtContent>" * 5000), "is damaged"),
    "tables in Word": (
        "a.docx",
        lambda: document(TABLES),
        SENTENCE,
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_too_much_of_it_is_read_or_refused_by_name(parser: SandboxedParser, what: str) -> None:
    name, make, said = HOSTILE[what]
    found = outcome(parser, make(), name)
    assert said in (found.text if isinstance(found, ExtractedDocument) else found.reason)


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "cp037"]
)
def test_text_in_wide_and_mainframe_encodings(parser: SandboxedParser, encoding: str) -> None:
    text = f"{SENTENCE}\n{SENTENCE}"
    found = outcome(parser, text.encode(encoding), "a.txt")
    assert isinstance(found, ExtractedDocument)
    assert found.text == text


def test_addresses_are_no_mainframe_text(parser: SandboxedParser) -> None:
    text = "\n".join(f"user{number}@b{number}.org" for number in range(50))
    found = outcome(parser, text.encode(), "a.txt")
    assert isinstance(found, ExtractedDocument)
    assert found.text == text


def test_a_few_bytes_of_no_encoding_cost_themselves_only(parser: SandboxedParser) -> None:
    body = f"{SENTENCE}\n".encode() * 5 + b"\x81\xf0\x9f\x98\n" + f"{SENTENCE}\n".encode()
    found = outcome(parser, body, "a.txt")
    assert isinstance(found, ExtractedDocument)
    assert found.text.count(SENTENCE) == 6


def damaged(body: bytes, chance: random.Random) -> bytes:
    """Cut off anywhere, or with some bits the other way round."""
    if chance.random() < 0.5:
        return body[: chance.randrange(1, len(body))]
    mutable = bytearray(body)
    for _ in range(chance.choice([1, 5, 50])):
        mutable[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    return bytes(mutable)


SOUND = {
    "a.pdf": make_pdf([["Hello there"], ["World"]], title="T"),
    "a.docx": make_docx(),
    "a.pptx": make_pptx(),
    "a.xlsx": make_xlsx(),
    "a.odt": make_odt(),
    "a.epub": make_epub(),
    "a.eml": many_parts(3),
    "a.rtf": b"{\\rtf1\\ansi Words\\par\\trowd a\\cell b\\cell\\row}",
    "a.html": b"<html><body><h1>T</h1><p>Some words.</p><table><tr><td>a</td></tr></table></body></html>",
    "a.json": b'{"title": "T", "a": [1, {"b": "c"}]}',
    "a.1": b".TH A 1\n.SH NAME\na \\- b\n.TP\n.B \\-x\nIt is.\n.TS\nl l.\na\tb\n.TE\n",
    "a.csv": b'name,price\n"fig, green",2\npear,3\n',
}


@pytest.mark.parametrize("name", SOUND)
def test_damage_anywhere_is_survived(parser: SandboxedParser, name: str) -> None:
    chance = random.Random(name)
    for _ in range(25):
        outcome(parser, damaged(SOUND[name], chance), name)


def test_damaged_messy_files_are_survived(parser: SandboxedParser, shared_data: Path) -> None:
    chance = random.Random(4)
    with tarfile.open(shared_data / "messy-docs.tar.gz") as archive:
        for member in archive:
            if 0 < member.size < 200_000 and (file := archive.extractfile(member)) is not None:
                outcome(parser, damaged(file.read(), chance), member.name)


def test_one_chapter_said_without_end_is_stopped() -> None:
    spine = '<itemref idref="a"/>' * 100_000
    book = with_part(make_epub(), "OEBPS/book.opf", (
        '<package xmlns="http://www.idpf.org/2007/opf"><manifest><item id="a" href="text/one.xhtml"'
        f' media-type="application/xhtml+xml"/></manifest><spine>{spine}</spine></package>'
    ))  # fmt: skip
    parser = SandboxedParser(ParserLimits())
    found = outcome(parser, book, "a.epub")
    parser.close()
    assert isinstance(found, ExtractedDocument)
    assert found.text.count("It begins.") == 1
