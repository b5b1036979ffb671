"""The media types of tiny and odd files of every kind: by content first, then by name and declared type."""

import bz2
import gzip
import lzma
import struct
import zlib

import pytest
import zstandard
from documents import make_docx, make_epub, make_odt, make_pdf, make_pptx, make_xlsx
from packed_files import make_tar, make_zip

from assets.parsing import content_type as kinds
from assets.parsing.blocks import ExtractionError
from assets.parsing.content_type import detect_media_type
from assets.parsing.extract import extract_document
from assets.parsing.formats.zip_package import OLE_SIGNATURE

HTML, XML, SVG, JSON, LINES = "text/html", "application/xml", "image/svg+xml", kinds.JSON, kinds.JSON_LINES
TEXT, MARKDOWN, RST, ORG, EML = "text/plain", "text/markdown", "text/x-rst", kinds.ORG, kinds.EML
ROFF = kinds.ROFF
CSV, TSV, PDF, RTF, EMPTY = "text/csv", "text/tab-separated-values", kinds.PDF, kinds.RTF, kinds.EMPTY_FILE

PAGE = b"<!DOCTYPE html><html><body><h1>Tide tables</h1><p>High water is at noon.</p></body></html>"
HUGE_PRE = (
    b"<html><body><pre>" + b"make: entering directory\n  cc -c main.c\n" * 12_000 + b"</pre></body></html>"
)
MAIL = b"From: Ada <ada@a.example>\nTo: bob@b.example\nSubject: Minutes\n\nDear Bob,\n"
ROWS = b"id,name\n1,fig\n2,pear\n"
NOTEBOOK = b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
LOG = b"".join(
    b"2026-03-01 08:00:%02d,137 - app.db - INFO - opened %d of 3, in %d ms\n" % (each, each, each * 7)
    for each in range(30)
)
DPKG_LOG = b"2026-02-01 10:00:01 startup archives unpack\n" + b"".join(
    b"2026-02-01 10:00:02 status half-installed libc%d:amd64 2.36-9+deb12u%d\n" % (each, each)
    for each in range(60)
)
MANUAL = b""".\\" $Id: lua.man,v 1.14 2020/05/21 19:31:21 lhf Exp $
.TH LUA 1 "$Date: 2020/05/21 19:31:21 $"
.SH NAME
lua \\- Lua interpreter
.SH SYNOPSIS
.B lua
[
.I options
]
[
.I script
[
.I args
]
]
.SH DESCRIPTION
.B lua
is the standalone Lua interpreter.
It loads and executes Lua programs,
either in textual source form or
in precompiled binary form.
"""
INFO = (
    b"This is zsh.info, produced by makeinfo version 6.8 from zsh.texi.\n\nINFO-DIR-SECTION Shells\n\n\x1f\n"
    b"File: zsh.info,  Node: Top,  Next: Roadmap\n\nThe Z Shell Manual\n******************\n\n* Menu:\n\n"
    b"* Roadmap::\n\n1 Author\n========\n\n   Zsh was written by Paul Falstad.\n"
)
INFO_MASTER = (
    b"This is zsh.info, produced by makeinfo.\n\n\x1f\nIndirect:\nzsh.info-1: 213\nzsh.info-2: 301812\n\x1f\n"
    b"Tag Table:\n(Indirect)\n%s\x1f\nEnd Tag Table\n"
    % b"".join(b"Node: N%d\x7f%d\n" % (each, each * 77) for each in range(400))
)
WORDS = b"The ferry leaves at nine and comes back at five.\n"


def png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bmp() -> bytes:
    return (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 58, 0, 0, 54, 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0) + b"\0" * 4
    )


FRAGMENTS = (
    b"<p>One.</p>\n<p>Two.</p>\n",
    b'<div class="x"><p>One <b>bold</b> word.</p></div>\n<div><p>Two.</p></div>\n',
    b"<h2>Tides</h2>\n<ul>\n<li>High water</li>\n<li>Low water</li>\n</ul>\n",
    b"<table><tr><td>1</td><td>2</td></tr></table>\n<br/>\n<img src='a.png'/>\n",
    b"<!-- a part of a page -->\n<section><p>One.</p></section>\n<section><p>Two.</p></section>\n",
    b"<div><span>One</span> <span>Two</span></div>",
)
# A name, the bytes, and the media type.
KINDS: list[tuple[str, bytes, str]] = [
    # HTML, from 12 bytes on, with and without a name that says so.
    *(
        (name, body, HTML)
        for name in ("page.html", "page", "page.txt", "https://a.example/b?c=d", "page.htm")
        for body in (PAGE, PAGE.lower(), PAGE.upper(), b"\xef\xbb\xbf" + PAGE, b"\n\n  " + PAGE)
    ),
    ("a.html", b"<html></html>", HTML),
    ("a", b"<html lang=en><head><title>x</title></head></html>", HTML),
    ("a", b"<!doctype HTML>", HTML),
    ("a", b"<!DOCTYPE html PUBLIC '-//W3C//DTD XHTML 1.0 Strict//EN' 'x.dtd'>\n<html></html>", HTML),
    ("a", b"<?xml version='1.0'?><!DOCTYPE html><html xmlns='http://www.w3.org/1999/xhtml'/>", HTML),
    ("a.xml", b"<?xml version='1.0' encoding='utf-8'?>\n<html xmlns='http://www.w3.org/1999/xhtml'/>", HTML),
    ("a.xhtml", b"<?xml version='1.0'?>\n<!DOCTYPE html [\n<!ENTITY nbsp '&#160;'>\n]>\n<html/>", HTML),
    ("a.html", b"<!-- made by hand --><html><body>x</body></html>", HTML),
    ("a", b"<!-- a --><!-- b -->\n<!DOCTYPE html><p>x", HTML),
    ("a", b"<p>One paragraph, not closed", HTML),
    ("a", b"<P ALIGN=center>One paragraph", HTML),
    ("a", b"<h1>Heading</h1>\n<p>Words.</p>", HTML),
    ("a", b"<div class='para'>Words.</div>", HTML),
    ("a", b"<table><tr><td>a<td>b</table>", HTML),
    ("a", b"<ul><li>one<li>two</ul>", HTML),
    ("a", b"<article><h2>News</h2></article>", HTML),
    ("a", b"<title>Only a title</title>", HTML),
    ("a", b"<body>Words", HTML),
    ("a", b"<head><meta charset=utf-8></head>", HTML),
    ("a", b"<script>var a = 1</script>", HTML),
    ("a", b"<style>p { color: red }</style><p>x</p>", HTML),
    ("a", b"<br>after a break", HTML),
    ("a", b"<a href='x'>a link</a> and words", HTML),
    ("a", b"<b>bold</b> words", HTML),
    ("a", b"<pre>\n  kept   as it is\n</pre>", HTML),
    ("a.html", HUGE_PRE, HTML),
    ("a", HUGE_PRE, HTML),
    ("a.html", b"Words without a tag &amp; an entity", HTML),
    ("a.htm", b"First line<br>second line", HTML),
    ("a.html", b"<custom-element>Words</custom-element>", XML),
    ("a", b"<html>" + b"<div>" * 5000, HTML),
    ("a.html", PAGE.decode().encode("utf-16"), HTML),
    ("a.html", PAGE.decode().encode("utf-16-le"), HTML),
    ("a", PAGE.decode().encode("utf-16-be"), HTML),
    ("a.html", "<html><p>Füße".encode("cp1252"), HTML),
    ("a.html", '<meta charset="utf-8"><p>Füße und Hände'.encode("latin-1"), HTML),
    ("a.html", '<html><meta charset="shift_jis"><p>日本語の文章'.encode("shift_jis"), HTML),
    ("a.html", ("<html><p>" + "한국어 문서를 읽는다. " * 9).encode("euc_kr"), HTML),
    (
        "a.xml",
        ("<?xml version='1.0' encoding='gb2312'?><a>" + "中文文章的内容。" * 9 + "</a>").encode("gb2312"),
        XML,
    ),
    ("page.csv", PAGE, HTML),
    ("page.md", PAGE, HTML),
    ("page.pdf", PAGE, HTML),
    ("page.docx", PAGE, HTML),
    ("page.json", PAGE, HTML),
    ("page.php", b"<!DOCTYPE html>\n<html><?php echo 1 ?></html>", HTML),
    # Markdown that begins with HTML is Markdown.
    ("readme.md", b"<p align=center><img src=x></p>\n\n# Title\n\nSome *words*.\n", MARKDOWN),
    ("readme.md", b"<!-- badges -->\n# Title\n\nSome words.\n", MARKDOWN),
    ("readme.md", b"<h1 align='center'>Title</h1>\n\nSome words and a [link](x).\n", MARKDOWN),
    ("a.md", b"# Title\n", MARKDOWN),
    ("a.md", b"[a link](x)\n", MARKDOWN),
    ("a.md", b"[1, 2]\n", MARKDOWN),
    ("a.md", b"{a: b}\n", MARKDOWN),
    ("a.md", b"---\ntitle: x\n---\nWords\n", MARKDOWN),
    ("a.md", b"x", MARKDOWN),
    ("a.markdown", WORDS, MARKDOWN),
    ("a.MD", WORDS, MARKDOWN),
    ("a.rst", b"Title\n=====\n\nWords\n", RST),
    ("a.rst", b".. image:: x\n", RST),
    ("a.rst", b":orphan:\n\nTitle\n=====\n", RST),
    ("a.org", b"* Heading\n", ORG),
    # XML.
    ("a.xml", b"<?xml version='1.0'?><a/>", XML),
    ("a", b"<?xml version='1.0'?>\n<!-- c -->\n<a><b>c</b></a>", XML),
    ("a", b"\xef\xbb\xbf<?xml version='1.0'?><a/>", XML),
    ("a", "<?xml version='1.0' encoding='utf-16'?><a>b</a>".encode("utf-16"), XML),
    ("a", b"<note><to>Ada</to></note>", XML),
    ("a.txt", b"<note><to>Ada</to></note>\n", XML),
    # Elements of HTML one after another are no XML, whatever the file is called.
    *(("a.txt", body, HTML) for body in FRAGMENTS),
    *(("a", body, HTML) for body in FRAGMENTS),
    ("a", b"<rss version='2.0'><channel/></rss>", XML),
    ("a", b"<feed xmlns='http://www.w3.org/2005/Atom'><title>x</title></feed>", XML),
    ("a", b"<article xmlns='http://docbook.org/ns/docbook'><title>x</title></article>", XML),
    (
        "a",
        b"<!DOCTYPE book PUBLIC '-//OASIS//DTD DocBook XML V4.5//EN' 'x'>\n<book><title>x</title></book>",
        XML,
    ),
    ("a", b"<!DOCTYPE article [\n<!ENTITY a 'b'>\n]>\n<article><para>x</para></article>", XML),
    ("a", b"<x:y xmlns:x='urn:z'>b</x:y>", XML),
    ("a.pom", b"<?xml version='1.0'?><project><name>x</name></project>", XML),
    ("a", b"<a1 b='c'/>", XML),
    ("page.html", b"<?xml version='1.0'?><a>b</a>", XML),
    ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", SVG),
    ("a", b"<?xml version='1.0'?><!DOCTYPE svg PUBLIC 'x' 'y'><svg><text>x</text></svg>", SVG),
    # JSON.
    ("a.json", b'{"a":1}', JSON),
    ("a", b'{"a":1}', JSON),
    ("a", b"[]", JSON),
    ("a", b'[{"a": 1}, {"a": 2}]', JSON),
    ("a.txt", b'{"a": {"b": [1, 2]}}', JSON),
    ("a", b' \n{"a": "b"}\n', JSON),
    ("a", '{"größe": 1}'.encode("utf-16"), JSON),
    ("a.jsonl", b'{"a":1}\n{"a":2}\n', LINES),
    ("a", b'{"a":1}\n{"a":2}\n', LINES),
    ("a.jsonl", b'{"a":1}\n', LINES),
    ("a.ndjson", b"[1]\n[2]\n", LINES),
    ("a.ipynb", NOTEBOOK, kinds.IPYNB),
    ("a", NOTEBOOK, kinds.IPYNB),
    ("a.ini", b"[section]\nkey = value\n", TEXT),
    ("a.txt", b"{not json} but words\n", TEXT),
    # Text: what has no better reader.
    ("a.txt", b"x", TEXT),
    ("a", b"x", TEXT),
    ("a", b"1", TEXT),
    ("a", WORDS, TEXT),
    ("a.txt", b"a < b and b > c\n", TEXT),
    ("a.txt", b"<not a tag> but words after it\n", TEXT),
    ("a.txt", b"\xef\xbb\xbfWords with a mark\n", TEXT),
    ("a.txt", "Füße".encode("cp1252"), TEXT),
    ("a.txt", "日本語".encode(), TEXT),
    ("a", "Ελληνικά γράμματα σε αρχείο.".encode(), TEXT),
    ("a.txt", "Words in UTF-16".encode("utf-16"), TEXT),
    ("a.txt", "Words in UTF-16 without a mark".encode("utf-16-le"), TEXT),
    ("a.txt", "Words in UTF-32, with a mark".encode("utf-32"), TEXT),
    ("a.txt", "THE QUICK BROWN FOX. JUMPED OVER THE LAZY DOG, AND AGAIN.".encode("cp037"), TEXT),
    ("a.py", b"def f():\n    return 1\n", TEXT),
    ("a.c", b"#include <stdio.h>\nint main(void) { return 0; }\n", TEXT),
    ("a.sh", b"#!/bin/sh\necho x\n", TEXT),
    ("a.yaml", b"key: value\nother: 3\n", TEXT),
    ("a.css", b"p { color: red }\n", TEXT),
    ("a.js", b"var a = 1;\n", TEXT),
    ("a.sql", b"select 1 from t;\n", TEXT),
    ("a.vue", b"<template>\n  <p>x</p>\n</template>\n<script>\nexport default {}\n</script>\n", TEXT),
    ("README", b"Build it with make.\n", TEXT),
    ("LICENSE", b"Permission is hereby granted, free of charge, to any person.\n", TEXT),
    ("a.log", b"12:00:01 started\n12:00:02 stopped\n", TEXT),
    # Tables.
    ("a.csv", ROWS, CSV),
    ("a.csv", b"a\n", CSV),
    ("a.csv", b'"a";"b"\n1;2\n', CSV),
    ("a.csv", "größe,name\n1,x\n".encode("utf-16"), CSV),
    ("a.tsv", b"a\tb\n1\t2\n", TSV),
    ("a.csv", b"<b>,c\n1,2\n", CSV),
    ("data", b"id,name,price\n1,apple,2.50\n2,pear,3.10\n3,fig,0.80\n", CSV),
    ("data", b"name\tcity\tland\nAda\tOslo\tNorway\nBo\tUmea\tSweden\n", TSV),
    ("data", b'"name","born 1"\n"Ada","3"\n"Bo","4"\n"Cy","5"\n', CSV),
    # Lines with commas are no table, unless all of them are plainly rows.
    *((name, LOG, TEXT) for name in ("app.log", "app.log.1", "app.log.2026-03-01", "app", "app.out")),
    *((name, DPKG_LOG, TEXT) for name in ("dpkg.log", "dpkg.log.1", "dpkg")),
    # Manual pages.
    *((name, MANUAL, ROFF) for name in ("lua5.4.1", "lua.1", "lua", "lua.txt", "https://a.example/lua")),
    ("lua.md", MANUAL, MARKDOWN),
    ("a.8", b".Dd $Mdocdate$\n.Dt A 8\n.Sh NAME\n", ROFF),
    ("a", b'\'\\" t\n.\\" by hand\n.TH A 1\n.SH NAME\na \\- b\n', ROFF),
    ("a.3pm", b".de Sp\n.if t .sp\n..\n" + b'.\\" more of it\n' * 400 + b".TH A 3pm\n.SH NAME\n", ROFF),
    ("a.5", b".SH NAME\na \\- without a title\n", ROFF),
    ("b.1", b".so man1/a.1\n", ROFF),
    ("b", b".so man1/a.1\n", TEXT),
    ("notes-1.2", b"Write .TH first\n.TH A 1\n.SH NAME\n", TEXT),
    ("notes.1", b".hidden files are\n.SH left out\n", TEXT),
    ("fig.1", b"The rates of 2026\n.5 percent\n", TEXT),
    *(("zsh.info-1", body, TEXT) for body in (INFO, INFO_MASTER)),
    ("zsh.info", INFO_MASTER, TEXT),
    ("a", b"Flour, 200 g\nButter, 100 g", TEXT),
    ("a", b"Flour, 200 g, sifted\nButter, 100 g, soft\nSugar, 50 g, brown\n", TEXT),
    ("a", b"apples, pears, plums\nbread, butter, jam\ntea, milk, sugar\n", TEXT),
    ("a", b"date,from,to\n2026-03-01,a\n", TEXT),
    # Mail.
    ("a.eml", MAIL, EML),
    ("a", MAIL, EML),
    ("a.txt", MAIL, EML),
    ("a.eml", b"Subject: only this\n\nHello\n", EML),
    ("a.mht", b"MIME-Version: 1.0\nContent-Type: text/html\n\n<p>x</p>\n", EML),
    ("a.eml", MAIL.replace(b"\n", b"\r\n"), EML),
    ("a.txt", b"Name: x\nFrom: here\n\nA list of fields is no message.\n", TEXT),
    # Documents, whatever they are called.
    ("a.pdf", make_pdf([["Hello"]]), PDF),
    ("a.txt", make_pdf([["Hello"]]), PDF),
    ("a", b"\n\n" + make_pdf([["Hello"]]), PDF),
    ("a.pdf", b"%PDF-1.4\n", PDF),
    ("a.docx", make_docx(), kinds.DOCX),
    ("a.zip", make_docx(), kinds.DOCX),
    ("a", make_pptx(), kinds.PPTX),
    ("a.pdf", make_xlsx(), kinds.XLSX),
    ("a", make_odt(), kinds.ODT),
    ("a.html", make_epub(), kinds.EPUB),
    ("a.doc", b"{\\rtf1 x}", RTF),
    ("a.txt", b"{\\rtf1\\ansi x\\par}", RTF),
    ("a.doc", OLE_SIGNATURE + bytes(600), kinds.OLE_COMPOUND),
    # Archives and compressed files.
    ("a.zip", make_zip({"a.txt": "x"}), kinds.ZIP),
    ("a.docx", make_zip({"a.txt": "x"}), kinds.ZIP),
    ("a", make_zip({}), kinds.ZIP),
    ("a.zip", b"PK\x03\x04 torn", kinds.ZIP),
    ("a.tar", make_tar({"a.txt": b"x"}), kinds.TAR),
    ("a.txt", make_tar({"<html>": b"<html>"}), kinds.TAR),
    ("a.md", gzip.compress(b"x"), "application/gzip"),
    ("a.html", bz2.compress(b"<html>"), "application/x-bzip2"),
    ("a", bz2.compress(b""), "application/x-bzip2"),
    ("a", lzma.compress(b"x"), "application/x-xz"),
    ("a", zstandard.compress(b"x"), "application/zstd"),
    ("a.txt", b"BZh is not always bzip2\n", TEXT),
    ("a.rar", b"Rar!\x1a\x07\x01\x00", "application/x-rar-compressed"),
    ("a.7z", b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24), kinds.SEVEN_ZIP),
    # What has no text.
    ("a.png", png(), "image/png"),
    ("a.txt", png(), "image/png"),
    ("a", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;", "image/gif"),
    ("a.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "image/jpeg"),
    ("a", b"RIFF\x24\x00\x00\x00WEBPVP8 ", "image/webp"),
    ("a", b"II*\x00\x08\x00\x00\x00\x00\x00", "image/tiff"),
    ("a", b"MM\x00*\x00\x00\x00\x08\x00\x00", "image/tiff"),
    ("a.bmp", bmp(), "image/bmp"),
    ("a.txt", b"BMW is a maker of motor cars in Munich.\n", TEXT),
    (
        "changelog.Debian",
        b"libmd (1.0.4-2) unstable; urgency=medium\n\n  * Add support.\n\n"
        b" -- Guillem Jover <guillem@debian.org>  Fri, 21 Oct 2022 13:37:42 +0200\n\n" * 3,
        "text/plain",
    ),
    ("takeout.eml", b"From a@b.example Mon Mar  2 09:14:00 2026\nFrom: a@b.example\nTo: c\n\nx\n", kinds.EML),
    ("box", b"From a@b.example Mon Mar  2 09:14:00 2026\nFrom: a@b.example\nTo: c\n\nx\n", kinds.MBOX),
    ("a.heic", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00heicmif1", "image/heic"),
    ("a.ico", b"\x00\x00\x01\x00\x01\x00\x10\x10", "image/x-icon"),
    ("a.wav", b"RIFF\x24\x00\x00\x00WAVEfmt ", "audio/wav"),
    ("a.wav", b"RIFX\x24\x00\x00\x00WAVEfmt ", "audio/wav"),
    ("a.mp3", b"ID3\x03\x00\x00\x00\x00\x00\x00", "audio/mpeg"),
    ("a.txt", b"ID3 tags name the title of a song.\n", TEXT),
    ("a.ogg", b"OggS\x00\x02" + bytes(20), "application/ogg"),
    ("a.mp4", b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00", "video/mp4"),
    ("a.webm", b"\x1aE\xdf\xa3\x01\x00", "video/webm"),
    ("a.woff2", b"wOF2\x00\x01\x00\x00", "font/woff2"),
    ("a.txt", b"wOFF we go, said the pilot.\n", TEXT),
    ("a.ttf", b"\x00\x01\x00\x00\x00\x0a", "font/ttf"),
    ("a.db", b"SQLite format 3\x00" + bytes(84), "application/vnd.sqlite3"),
    ("a.parquet", b"PAR1" + bytes(8) + b"PAR1", "application/vnd.apache.parquet"),
    ("a.txt", b"PAR1 is a beginning of words as well.\n", TEXT),
    ("a.so", b"\x7fELF\x02\x01\x01\x00" + bytes(56), "application/x-executable"),
    ("a.class", b"\xca\xfe\xba\xbe\x00\x00\x004", "application/java-vm"),
    ("a.wasm", b"\x00asm\x01\x00\x00\x00", "application/wasm"),
    ("a.txt", bytes(range(256)) * 20, kinds.UNKNOWN_BYTES),
    ("a.ics", b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nEND:VCALENDAR\r\n", "text/calendar"),
    # Nothing.
    ("a.html", b"", EMPTY),
    ("a", b"", EMPTY),
    ("a.csv", b" \r\n\t\n", EMPTY),
    ("a.json", b"\n", EMPTY),
]

# What a message declares, a name, the bytes, and the media type.
DECLARED: list[tuple[str | None, str, bytes, str]] = [
    ("text/html", "part", b"Tea &amp; biscuits", HTML),
    ("text/html", "part.dat", b"Tea &amp; biscuits", HTML),
    ("text/html", "notes.txt", WORDS, TEXT),
    ("text/plain", "page.html", PAGE, HTML),
    ("text/csv", "export", b"a,b\n1,2\n", CSV),
    ("text/markdown", "notes", b"# Notes\n", MARKDOWN),
    ("application/octet-stream", "notes.md", b"# Notes\n", MARKDOWN),
    ("application/pdf", "plan.pdf", WORDS, TEXT),
    ("text/plain", "plan", make_pdf([["Hello"]]), PDF),
    ("image/png", "picture.png", make_docx(), kinds.DOCX),
    ("message/rfc822", "forwarded", b"Subject: x\n\nHello\n", EML),
    (None, "part", WORDS, TEXT),
]


def test_there_are_enough_of_every_kind() -> None:
    assert len(KINDS) + len(DECLARED) >= 150
    assert len({kind for _, _, kind in KINDS}) >= 45


@pytest.mark.parametrize(
    ("name", "body", "kind"), KINDS, ids=[f"{n}-{name}-{kind}" for n, (name, _, kind) in enumerate(KINDS)]
)
def test_none_is_misread(name: str, body: bytes, kind: str) -> None:
    assert detect_media_type(body, name) == kind


@pytest.mark.parametrize(("declared", "name", "body", "kind"), DECLARED)
def test_what_a_message_declares_counts_where_bytes_and_name_say_nothing(
    declared: str | None, name: str, body: bytes, kind: str
) -> None:
    assert detect_media_type(body, name, declared) == kind


def test_small_pages_are_read_without_their_tags() -> None:
    for body in (PAGE, HUGE_PRE, b"<p>One paragraph, not closed", PAGE.decode().encode("utf-16-le")):
        text = extract_document(body, detect_media_type(body, "a.html")).text
        assert "<" not in text
        assert len(text) > 10


def test_the_table_of_a_divided_manual_in_info_is_text() -> None:
    assert "Node: N399" in extract_document(INFO_MASTER, "text/plain").text
    with pytest.raises(ExtractionError):
        extract_document(bytes(range(256)) * 20 + b"\n\x1f\n", "text/plain")
