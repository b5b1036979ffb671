"""7z archives are read as ZIP archives are: every file inside arrives, or is named with its cure."""

import io
import random
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from packed_files import make_zip
from py7zr import FILTER_BZIP2, FILTER_DEFLATE, FILTER_LZMA, FILTER_PPMD, FILTER_ZSTD, SevenZipFile

from assets.parsing.archives import ContainerMember
from assets.parsing.blocks import ExtractionError
from assets.parsing.containers import expand_container
from assets.parsing.content_type import SEVEN_ZIP, detect_media_type
from assets.parsing.extract import MAX_DOCUMENT_BYTES
from assets.parsing.sandbox import ParserLimits, SandboxedParser

TEXT = b"Some words about the harbour, and more of them to read.\n"


def make_seven_zip(
    files: Mapping[str, bytes], filters: list[dict[str, int]] | None = None, password: str | None = None
) -> bytes:
    out = io.BytesIO()
    with SevenZipFile(out, "w", filters=filters, password=password) as archive:
        for name, content in files.items():
            archive.writestr(content, name)
    return out.getvalue()


def renamed(names: Mapping[str, str]) -> bytes:
    """An archive whose files have other names, of the same length, than py7zr would write."""
    out = io.BytesIO()
    with SevenZipFile(out, "w") as archive:
        archive.set_encoded_header_mode(False)
        for name in names:
            archive.writestr(TEXT, name)
    body = bytearray(out.getvalue())
    for name, other in names.items():
        assert len(name) == len(other)
        body = body.replace(name.encode("utf-16-le"), other.encode("utf-16-le"))
    offset, size = struct.unpack_from("<QQ", body, 12)
    struct.pack_into("<I", body, 28, zlib.crc32(body[32 + offset : 32 + offset + size]))
    struct.pack_into("<I", body, 8, zlib.crc32(body[12:32]))
    return bytes(body)


def members(body: bytes) -> dict[str, ContainerMember]:
    return {member.name: member for member in expand_container(body, SEVEN_ZIP, MAX_DOCUMENT_BYTES)}


def refused(body: bytes) -> str:
    with pytest.raises(ExtractionError) as caught:
        members(body)
    assert ": " in caught.value.reason
    return caught.value.expectation


METHODS = [None, FILTER_LZMA, FILTER_BZIP2, FILTER_DEFLATE, FILTER_ZSTD, FILTER_PPMD]


@pytest.mark.parametrize("method", METHODS)
def test_an_archive_is_read_as_the_documents_inside(method: int | None) -> None:
    files = {"readme.md": TEXT, "path/in/it.txt": TEXT * 9, "empty.txt": b"", ".git/config": TEXT}
    options = {"order": 6, "mem": 24} if method == FILTER_PPMD else {}
    filters = None if method is None else [{"id": method, **options}]
    body = make_seven_zip(files, filters)
    assert detect_media_type(body, "a.zip") == SEVEN_ZIP
    found = members(body)
    assert {name: member.content for name, member in found.items()} == {
        "readme.md": TEXT,
        "path/in/it.txt": TEXT * 9,
        "empty.txt": b"",
    }


def test_archives_inside_are_opened() -> None:
    inside = {"in.zip": make_zip({"a.txt": TEXT}), "in.7z": make_seven_zip({"b": TEXT})}
    found = members(make_seven_zip(inside))
    assert {name: member.content for name, member in found.items()} == {
        "in.zip!/a.txt": TEXT,
        "in.7z!/b": TEXT,
    }


def test_names_that_lead_out_are_named_and_the_rest_is_read() -> None:
    found = members(renamed({"aa/up.txt": "../up.txt", "x/passwd": "/etc/pwd", "good.txt": "good.txt"}))
    errors = {name: (member.error or "").partition(":")[0] for name, member in found.items()}
    assert errors == {"../up.txt": "unsafe_name", "/etc/pwd": "unsafe_name", "good.txt": ""}
    assert found["good.txt"].content == TEXT


def test_a_link_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_bytes(TEXT)
    (tmp_path / "link.txt").symlink_to("good.txt")
    out = io.BytesIO()
    with SevenZipFile(out, "w") as archive:
        archive.write(tmp_path / "good.txt", "good.txt")
        archive.write(tmp_path / "link.txt", "link.txt")
    found = members(out.getvalue())
    assert (found["link.txt"].error or "").startswith("link: ")
    assert found["good.txt"].content == TEXT


def test_an_encrypted_archive_is_named() -> None:
    assert refused(make_seven_zip({"a.txt": TEXT}, password="secret")) == "encrypted"
    out = io.BytesIO()
    with SevenZipFile(out, "w", password="secret", header_encryption=True) as archive:
        archive.writestr(TEXT, "a.txt")
    assert refused(out.getvalue()) == "encrypted"


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    body = make_seven_zip({"a.txt": TEXT, "zeros": bytes(70 << 20)})
    assert len(body) < 1 << 20
    assert refused(body) == "oversize"


def test_of_a_damaged_archive_what_is_before_the_damage_is_read() -> None:
    chance = random.Random(5)
    body = bytearray(make_seven_zip({f"{n}.txt": chance.randbytes(40_000) for n in range(4)}))
    for place in range(100_000, 100_040):
        body[place] ^= 0xFF
    names: list[str] = []
    with pytest.raises(ExtractionError, match="damaged"):  # noqa: PT012
        for member in expand_container(bytes(body), SEVEN_ZIP, MAX_DOCUMENT_BYTES):
            names.append(member.name)  # noqa: PERF401 - those before the error count
    assert names == ["0.txt", "1.txt"]


def test_damage_anywhere_costs_the_archive_and_nothing_else() -> None:
    chance = random.Random(7)
    sound = make_seven_zip({"a.txt": TEXT * 3, "b.txt": TEXT})
    parser = SandboxedParser(ParserLimits())
    try:
        for _ in range(100):
            body = bytearray(sound[: chance.randrange(32, len(sound))] if chance.random() < 0.2 else sound)
            for _ in range(chance.choice([1, 4, 30])):
                body[chance.randrange(6, len(body))] ^= 1 << chance.randrange(8)
            try:
                list(parser.container_members(bytes(body), SEVEN_ZIP))
            except ExtractionError as error:
                assert error.expectation in ("unreadable", "oversize", "encrypted", "out_of_memory")  # noqa: PT017
    finally:
        parser.close()
