"""Archives, compressed files and messages are read as the documents inside, and what is not is named."""

import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
import zstandard
from documents import make_docx
from hypothesis import given, reject
from hypothesis import strategies as st
from packed_files import (
    encrypted,
    make_compound,
    make_mail,
    make_stored_zip,
    make_tar,
    make_undeclared_zip,
    make_zip,
)

from assets.parsing import containers
from assets.parsing.blocks import ExtractionError
from assets.parsing.compression import decompress
from assets.parsing.containers import expand_container
from assets.parsing.content_type import DOCX, EML, ZIP, detect_media_type
from assets.parsing.extract import MAX_DOCUMENT_BYTES, extract_document
from assets.parsing.formats.zip_package import MAX_UNPACKED_BYTES
from assets.parsing.sandbox import ParserLimits, sandboxed_parser
from assets.sources.file_contents import source_file_contents
from assets.sources.source_schemas import ListedFile, SourceContent

TEXT = b"Some words about the harbour, and more of them to read.\n"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
CODING = {"gz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "zstd"}
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def contents(name: str, body: bytes) -> dict[str, SourceContent]:
    """The rows of one file, by what follows the file's name."""
    rows = list(source_file_contents(ListedFile(f"file:///{name}", len(body), NOW), body, ParserLimits()))
    found = {row.uri.removeprefix(f"file:///{name}"): row for row in rows}
    assert len(found) == len(rows), "two rows of one address"
    return found


def refused(rows: dict[str, SourceContent]) -> dict[str, str]:
    """The expectation that each row failed; every reason ends with a cure."""
    errors = {place: row.error for place, row in rows.items() if row.error is not None}
    for error in errors.values():
        assert ": " in error.partition(": ")[2] or "holds no files" in error, error
    return {place: error.partition(":")[0] for place, error in errors.items()}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_compressed_file_is_one_document_with_its_bytes_as_they_came(suffix: str) -> None:
    body = COMPRESS[suffix](b"# Harbour\n\n" + TEXT)
    [(place, row)] = contents(f"guide.md.{suffix}", body).items()
    assert (place, row.error, row.body) == ("", None, body)
    assert row.media_type == f"text/markdown; content-coding={CODING[suffix]}"
    found = sandboxed_parser(ParserLimits()).extract_document(body, row.media_type)
    assert (found.title, found.text) == ("Harbour", f"Harbour\n\n{TEXT.decode().strip()}")
    office = COMPRESS[suffix](make_docx())
    assert contents("x", office)[""].media_type == f"{DOCX}; content-coding={CODING[suffix]}"


@pytest.mark.parametrize("suffix", COMPRESS)
def test_streams_after_one_another_are_all_read(suffix: str) -> None:
    body = COMPRESS[suffix](b"one, ") + COMPRESS[suffix](b"two")
    assert decompress(body, CODING[suffix], 100).content == b"one, two"


@pytest.mark.parametrize("suffix", COMPRESS)
def test_what_trails_compressed_data_is_named_and_the_rest_is_read(suffix: str) -> None:
    body = COMPRESS[suffix](TEXT) + b"garbage"
    rows = contents(f"a.txt.{suffix}", body)
    assert refused(rows) == {"#!trailing": "unreadable"}
    assert "7 bytes after" in (rows["#!trailing"].error or "")
    assert rows[""].error is None
    assert extract_document(body, rows[""].media_type or "").text == TEXT.decode().strip()
    assert refused(contents(f"a.txt.{suffix}", COMPRESS[suffix](TEXT) + bytes(512))) == {}  # of a tape


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_data_that_is_cut_off_or_damaged_is_quarantined(suffix: str) -> None:
    body = COMPRESS[suffix](random.Random(1).randbytes(5000))
    assert refused(contents("a.txt", body[:-20])) == {"": "unreadable"}
    broken = bytearray(body)
    for place in range(len(body) // 2, len(body) // 2 + 40):
        broken[place] ^= 0xFF
    assert refused(contents("a.txt", bytes(broken))) == {"": "unreadable"}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_decompression_bomb_is_stopped_soon_after_the_limit(suffix: str) -> None:
    body = COMPRESS[suffix](bytes(5_000_000))
    with pytest.raises(ExtractionError) as caught:
        decompress(body, CODING[suffix], 1_000_000)
    assert caught.value.expectation == "oversize"


def test_four_gigabytes_of_zeros_cost_a_row_in_the_quarantine() -> None:
    zeros = gzip.compress(bytes(1 << 26)) * 64
    for name, body in {"zeros.gz": zeros, "zeros.zip": make_zip({"z.gz": zeros})}.items():
        rows = contents(name, body)
        [(place, expectation)] = refused(rows).items()
        assert (expectation, place) == ("oversize", "" if name == "zeros.gz" else "#z.gz")
        assert set(rows) == {"", place}


def test_an_archive_is_read_as_the_documents_inside() -> None:
    members = {"readme.md": b"# Read me\n\n" + TEXT, "path/in/it.txt": TEXT, "a b #1!.html": b"<p>x</p>"}
    for name, body in {"d.zip": make_zip(members), "d.tar": make_tar(members)}.items():
        rows = contents(name, body)
        assert {place: row.media_type for place, row in rows.items()} == {
            "#readme.md": "text/markdown",
            "#path/in/it.txt": "text/plain",
            "#a%20b%20%231%21.html": "text/html",
            "": "application/zip" if name == "d.zip" else "application/x-tar",
        }
        assert rows["#path/in/it.txt"].body == TEXT
        assert rows[""].body == body
        assert refused(rows) == {}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_compressed_tar_archive_is_an_archive(suffix: str) -> None:
    body = COMPRESS[suffix](make_tar({"./docs//a.txt": TEXT, "docs/b.txt": TEXT}))
    rows = contents(f"d.tar.{suffix}", body)
    assert list(rows) == ["#docs/a.txt", "#docs/b.txt", ""]
    assert rows[""].media_type == f"application/x-tar; content-coding={CODING[suffix]}"
    assert rows[""].body == body
    again = sandboxed_parser(ParserLimits()).container_members(body, rows[""].media_type or "")
    assert [member.name for member in again] == ["", "docs/a.txt", "docs/b.txt"]


def test_names_that_lead_out_links_and_devices_are_quarantined_and_the_rest_is_read() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("good.txt", "../up.txt", "/etc/passwd", "a/../../b.txt", "C:/x.txt"):
            info = tarfile.TarInfo(name)
            info.size = len(TEXT)
            archive.addfile(info, io.BytesIO(TEXT))
        for name, kind in (("sym", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "good.txt"
            archive.addfile(info)
    rows = contents("d.tar", out.getvalue())
    assert refused(rows) == {
        "#../up.txt": "unsafe_name",
        "#/etc/passwd": "unsafe_name",
        "#a/../../b.txt": "unsafe_name",
        "#C%3A/x.txt": "unsafe_name",
        "#sym": "link",
        "#hard": "link",
        "#pipe": "unsupported_media_type",
    }
    assert rows["#good.txt"].body == TEXT
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        link = zipfile.ZipInfo("link.txt")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, "/etc/passwd")
        zipped.writestr("..\\up.txt", TEXT)
        zipped.writestr("good.txt", TEXT)
    assert refused(contents("d.zip", packed.getvalue())) == {"#link.txt": "link", "#../up.txt": "unsafe_name"}


def test_an_encrypted_archive_or_member_is_quarantined() -> None:
    archive = make_zip({"a.txt": TEXT, "b.txt": TEXT})
    rows = contents("d.zip", encrypted(archive))
    assert refused(rows) == {"": "encrypted"}
    assert rows[""].body == encrypted(archive)
    some = contents("d.zip", encrypted(archive, first=1))
    assert refused(some) == {"#b.txt": "encrypted"}
    assert some["#a.txt"].body == TEXT


def test_an_archive_in_an_archive_is_opened_and_one_inside_that_is_named() -> None:
    third = make_zip({"deep.txt": TEXT})
    second = make_zip({"third.zip": third, "b.txt": TEXT, "c.tar.gz": gzip.compress(make_tar({"d": TEXT}))})
    rows = contents("first.zip", make_zip({"second.zip": second, "a.txt.gz": gzip.compress(TEXT)}))
    assert refused(rows) == {
        "#second.zip!/third.zip": "nested_too_deeply",
        "#second.zip!/c.tar.gz": "nested_too_deeply",
    }
    assert {place: row.body for place, row in rows.items() if place and not row.error} == {
        "#second.zip!/b.txt": TEXT,
        "#a.txt.gz": TEXT,
    }
    assert refused(contents("a.gz.gz", gzip.compress(gzip.compress(TEXT)))) == {"": "unsupported_media_type"}


def test_damaged_members_are_named_and_the_others_read() -> None:
    body = bytearray(make_zip({"a.txt": b"a" * 400, "b.txt": TEXT}))
    body[40] ^= 0xFF
    rows = contents("d.zip", bytes(body))
    assert refused(rows) == {"#a.txt": "unreadable"}
    assert rows["#b.txt"].body == TEXT
    # Of an archive that is cut off, what came before the cut is read, and the archive is named.
    tar = make_tar({"a.txt": TEXT, "b.txt": bytes(5000)})
    rows = contents("d.tar", tar[: 512 + 512 + 512 + 2000])
    assert refused(rows) == {"": "unreadable"}
    assert rows["#a.txt"].body == TEXT
    assert refused(contents("d.zip", make_zip({"a": TEXT})[:-10])) == {"": "unreadable"}
    assert refused(contents("d.zip", make_zip({}))) == {"": "empty"}


def test_bombs_are_quarantined_before_anything_of_them_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = bytes(70 << 20)
    zip_bomb = make_zip({"a.txt": TEXT, "z": zeros})
    assert refused(contents("d.zip", zip_bomb)) == {"": "oversize"}
    tar_bomb = gzip.compress(make_tar({"a.txt": TEXT, "z": zeros}))
    assert refused(contents("d.tar.gz", tar_bomb)) == {"": "oversize"}
    # The limit is that of all layers together: four archives of 40 MiB each in one of a few kilobytes.
    layer = make_zip({"z": bytes(40 << 20)})
    rows = contents("d.zip", make_zip({f"{n}.zip": layer for n in range(4)}))
    assert sum(row.size_bytes or 0 for row in rows.values()) < 64 << 20
    assert "oversize" in refused(rows).values()


def test_a_sparse_file_of_a_terabyte_is_named() -> None:
    tar = bytearray(make_tar({"sparse": b""}))
    tar[124:136] = (1 << 40).to_bytes(12, "big")
    tar[124] = 0x80
    info = bytes(tar[:148]) + b" " * 8 + bytes(tar[156:512])
    tar[148:156] = b"%06o\0 " % sum(info)
    assert refused(contents("d.tar", bytes(tar)))["#sparse"] == "oversize"


def test_attachments_of_attached_and_forwarded_messages_arrive() -> None:
    inner = make_mail({"note.txt": TEXT}, "inner")
    archive = make_zip({"a.txt": TEXT})
    rows = contents("m.eml", make_mail({"inner.eml": inner, "docs.zip": archive, "deep.txt.gz": b"x"}))
    assert list(rows) == ["", "#inner.eml", "#inner.eml!/note.txt", "#docs.zip!/a.txt", "#deep.txt.gz"]
    assert rows["#inner.eml"].media_type == EML
    assert rows["#inner.eml!/note.txt"].body == TEXT
    forwarding = b"From: x@y.example\nTo: c@d.example\nSubject: Fwd\nContent-Type: message/rfc822\n\n" + inner
    assert "#note.txt" in contents("f.eml", forwarding)


@pytest.mark.slow
def test_every_one_of_3000_attachments_arrives_or_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    mail = make_mail({f"{number}.txt": b"note %d" % number for number in range(3000)})
    rows = contents("m.eml", mail)
    assert len(rows) == 3001
    assert not refused(rows)
    monkeypatch.setattr(containers, "MAX_MEMBERS", 1000)
    members = list(expand_container(mail, EML, MAX_DOCUMENT_BYTES))
    assert [member.content is None for member in members] == [False] * 1000 + [True] * 1001
    assert {(member.error or "").partition(":")[0] for member in members[1000:]} == {"too_many_members"}
    assert [member.name for member in members[1999:]] == ["1999.txt", "!rest"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hidden_files_and_names_that_occur_again() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("a.txt", "__MACOSX/._a.txt", ".git/config", "docs/", "a.txt"):
            archive.writestr(name, TEXT + name.encode())
    rows = contents("d.zip", out.getvalue())
    assert list(rows) == ["#a.txt", "#a.txt%202", ""]


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("cp932", ["一覧表.txt", "機能.txt"]),
        ("cp932", ["表.txt"]),
        ("cp932", ["報告書/第一表.txt", "報告書/第二表.txt"]),
        ("gb18030", ["财务报表.txt", "说明.txt"]),
        ("big5", ["功能表.txt", "新增資料.txt"]),
        ("cp949", ["보고서.txt", "목록.txt"]),
        ("cp866", ["Отчет.txt", "Смета.txt"]),
        ("cp437", ["Prüfung.txt", "Größe.txt"]),
        ("cp1252", ["ä.txt", "ö.txt"]),
        ("utf-8", ["é.txt", "表.txt"]),
    ],
)
def test_names_in_no_declared_encoding_are_read_in_the_likeliest(encoding: str, names: list[str]) -> None:
    members = {name.encode(encoding): TEXT + name.encode() for name in names}
    archives = {"d.zip": make_undeclared_zip(members)}
    if encoding != "cp437":  # of DOS, which has no TAR
        files = {name: TEXT + name.encode() for name in names}
        archives |= {"d.tar": make_tar(files, encoding), "d.tar.gz": make_tar(files, encoding, True)}
    for archive, body in archives.items():
        rows = contents(archive, body)
        assert [place for place in rows if place] == [f"#{quote(name)}" for name in names]
        assert not refused(rows)


@given(st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=4))
def test_no_member_is_lost_whatever_bytes_its_name_has(starts: list[bytes]) -> None:
    names = {bytes(byte | 0x80 for byte in start) + b"\\.txt" for start in starts}
    with suppress(UnicodeDecodeError):  # in UTF-8 the backslash is one, and what begins with a dot is hidden
        b"".join(names).decode()
        reject()
    body = make_undeclared_zip(dict.fromkeys(sorted(names), TEXT))
    found = list(expand_container(body, ZIP, MAX_DOCUMENT_BYTES))
    assert [member.content for member in found] == [TEXT] * len(names)


def test_the_unicode_path_of_info_zip_and_backslashes_between_folders() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, named, said in (("?.txt", b"?.txt", "表.txt"), ("b.txt", b"its name before", "c.txt")):
            part = zipfile.ZipInfo(name)
            path = struct.pack("<BI", 1, zlib.crc32(named)) + said.encode()
            part.extra = struct.pack("<HH", 0x7075, len(path)) + path
            archive.writestr(part, TEXT + name.encode())
    assert list(contents("d.zip", out.getvalue())) == ["#%E8%A1%A8.txt", "#b.txt", ""]
    windows = {"フォルダ\\表.txt".encode("cp932"): TEXT, "フォルダ\\".encode("cp932"): b""}
    assert list(contents("d.zip", make_undeclared_zip(windows))) == [f"#{quote('フォルダ/表.txt')}", ""]
    unix = {b"docs/a\\b.txt": TEXT, b"..\\c.txt": TEXT + b"c"}
    rows = contents("d.zip", make_undeclared_zip(unix))
    assert list(rows) == ["#docs/a%5Cb.txt", "#../c.txt", ""]
    assert refused(rows) == {"#../c.txt": "unsafe_name"}


def test_many_files_of_one_long_name_take_no_longer_than_of_many_names() -> None:
    """Numbers were tried from the first on: these names would be copied and hashed 12 million times."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for _ in range(5000):
            archive.addfile(tarfile.TarInfo("n" * 4000))
    started = time.process_time()  # of this process: the archive is opened in the sandbox
    assert len(contents("same.tar.gz", out.getvalue())) == 5001
    assert time.process_time() - started < 8


def test_the_type_of_a_package_is_read_within_bounds() -> None:
    """A part of 20 bytes, by its directory, that unpacks to a gigabyte, before the sandbox is asked."""
    pack = bz2.BZ2Compressor()
    bomb = b"".join(pack.compress(bytes(1 << 24)) for _ in range(16)) + pack.flush()
    body = bytearray(make_stored_zip("mimetype", bomb))
    for signature, method, size in ((b"PK\x03\x04", 8, 22), (b"PK\x01\x02", 10, 24)):
        place = body.index(signature)
        struct.pack_into("<H", body, place + method, zipfile.ZIP_BZIP2)
        struct.pack_into("<I", body, place + size, 20)
    tracemalloc.start()
    try:
        assert detect_media_type(bytes(body), "a.zip") == ZIP
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("stream_count", "table_sectors"), [(1, 1_000_000), (40_000, None)])
def test_the_type_of_an_ole_file_is_read_within_bounds(stream_count: int, table_sectors: int | None) -> None:
    """A file of 3 KB held the run's own process up for ever, one of many streams for hours."""
    body = make_compound(stream_count, table_sectors)
    child = "import sys; from assets.parsing.content_type import detect_media_type as of; "
    child += "print(of(sys.stdin.buffer.read()))"
    done = subprocess.run(
        [sys.executable, "-c", child], input=body, capture_output=True, timeout=15, check=True
    )
    assert done.stdout.decode().strip() == "application/x-ole-storage"


def test_the_declared_type_of_a_part_counts_where_its_name_says_nothing() -> None:
    mail = make_mail({"page": b"Tea &amp; biscuits"}).replace(b"application/octet-stream", b"text/html")
    rows = contents("m.eml", mail)
    assert rows["#page"].media_type == "text/html"


@dataclass(frozen=True)
class Hostile:
    name: str
    body: bytes


def hostile() -> Iterator[Hostile]:
    chance = random.Random(3)
    sound = [
        Hostile("d.zip", make_zip({"a.txt": TEXT, "b.html": b"<p>hello</p>"})),
        Hostile("d.tar", make_tar({"a.txt": TEXT, "b": TEXT})),
        Hostile("d.tar.gz", gzip.compress(make_tar({"a.txt": TEXT}))),
        Hostile("m.eml", make_mail({"a.zip": make_zip({"a.txt": TEXT})})),
        *(Hostile(f"a.{suffix}", pack(TEXT * 30)) for suffix, pack in COMPRESS.items()),
    ]
    for each in sound:
        for _ in range(25):
            if chance.random() < 0.3:
                yield Hostile(each.name, each.body[: chance.randrange(1, len(each.body))])
                continue
            body = bytearray(each.body)
            for _ in range(chance.choice([1, 5, 50])):
                body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
            yield Hostile(each.name, bytes(body))


def test_damage_anywhere_costs_rows_and_nothing_else() -> None:
    for each in hostile():
        rows = contents(each.name, each.body)
        assert "" in rows
        assert sum(row.size_bytes or 0 for row in rows.values()) < MAX_UNPACKED_BYTES
        refused(rows)


def test_kinds_inside_are_detected_as_outside() -> None:
    page = b"<!DOCTYPE html><html><body><h1>Hi</h1></body></html>"
    for suffix, pack in COMPRESS.items():
        assert contents(f"page.{suffix}", pack(page))[""].media_type == (
            f"{detect_media_type(page)}; content-coding={CODING[suffix]}"
        )
