"""Reads the files inside ZIP, TAR and 7z archives, of which nothing is ever written to a disk."""

import io
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from assets.parsing.blocks import ExtractionError
from assets.parsing.compression import DecompressingReader
from assets.parsing.content_type import SEVEN_ZIP, TAR, ZIP
from assets.parsing.decoding import EAST_ASIAN, LATIN_ENCODINGS, likely_encodings
from assets.parsing.formats.zip_package import open_zip_directory

_DEFLATED_AND_SUCH = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_SURROGATE = re.compile("[\udc80-\udcff]")
_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075
_DOS_ENCODINGS = ("cp437", "cp850")
"""What ZIP archives of Western Europe are in; their letters are signs elsewhere, and the other way round."""
_TYPOGRAPHY = frozenset("–—‘’“”…°")
_CUT_BY_BACKSLASH = re.compile(r"[^\x00-\x7f]\\[._]")
"""What a second byte 0x5C of an East Asian character becomes in another encoding, before an extension."""


@dataclass(frozen=True, slots=True)
class ContainerMember:
    """A file inside an archive, a message or a compressed file.

    Attributes:
        name: Its path inside, with `/` between folders. What is inside a container inside a container has the
            inner one's name, `!/`, and its own. The empty name is that of a compressed file's content.
        content: Its bytes; None where it could not be read.
        media_type: The media type that a message declares for it, or the type of a compressed file's content.
        error: Why it could not be read, as "expectation: reason"; None where it could.
    """

    name: str
    content: bytes | None = None
    media_type: str | None = None
    error: str | None = None


def archive_members(
    body: bytes, media_type: str, coding: str | None, max_member_bytes: int, limit_bytes: int
) -> Iterator[ContainerMember]:
    """Yields the files of an archive in their order in it, without its folders.

    Hidden files (a name on their path begins with `.` or `_`) are left out, as those of a folder are.

    Args:
        body: The archive.
        media_type: `ZIP`, `TAR` or `SEVEN_ZIP`.
        coding: The content coding of a compressed TAR archive; None without.
        max_member_bytes: A larger member is not read.
        limit_bytes: The most that all members together may unpack to.

    Raises:
        ExtractionError: `oversize` for a bomb, `encrypted`, or `unreadable` where the archive is damaged;
            members before the damage have been yielded then.
    """
    if media_type == ZIP:
        return _zip_members(body, max_member_bytes, limit_bytes)
    if media_type == TAR:
        return _tar_members(body, coding, max_member_bytes, limit_bytes)
    assert media_type == SEVEN_ZIP  # noqa: S101 - the other archives
    return _seven_zip_members(body, max_member_bytes, limit_bytes)


def _zip_members(body: bytes, max_member_bytes: int, limit_bytes: int) -> Iterator[ContainerMember]:
    with open_zip_directory(body, "ZIP archive") as archive:
        parts = [part for part in archive.infolist() if not part.is_dir()]
        _check_total(sum(part.file_size for part in parts), limit_bytes)
        if parts and all(part.flag_bits & 1 for part in parts):
            raise ExtractionError(
                "encrypted", "The ZIP archive opens only with a password: unpack it and add the files inside."
            )
        for part, name in zip(parts, _zip_names(parts), strict=True):
            if _is_hidden(name) or (name.endswith("/") and not part.file_size):  # a folder
                continue
            link = stat.S_ISLNK(part.external_attr >> 16)
            error = _refusal(name, part.file_size, max_member_bytes, link)
            if error is None and part.flag_bits & 1:
                error = "encrypted: It opens only with a password: unpack it and add the file."
            if error is None and part.compress_type not in _DEFLATED_AND_SUCH:
                error = (
                    f"unreadable: Its compression method ({part.compress_type}) is not read: pack the "
                    "archive again with deflate, or add the file itself."
                )
            if error is not None:
                yield ContainerMember(name, error=error)
                continue
            try:
                yield ContainerMember(_plain(name), archive.read(part))
            except (zipfile.BadZipFile, zipfile.zlib.error, EOFError, OSError, ValueError) as broken:  # type: ignore[attr-defined]
                yield ContainerMember(
                    name, error=f"unreadable: It is damaged ({broken}): get the archive again."
                )


def _tar_members(
    body: bytes, coding: str | None, max_member_bytes: int, limit_bytes: int
) -> Iterator[ContainerMember]:
    if coding is not None:
        _check_total(DecompressingReader(io.BytesIO(body), coding).count(limit_bytes), limit_bytes)
    read_bytes = 0
    try:
        with _opened_tar(body, coding) as archive:
            encoding: str | None = None
            for part in archive:
                if not _is_utf8(part.name):
                    encoding = encoding or _tar_encoding(body, coding)
                    part.name = _tar_bytes(part.name).decode(encoding, "replace")
                if part.isdir() or _is_hidden(part.name):
                    continue
                # The size of a sparse file may be any number, whatever the size of the archive.
                error = _refusal(part.name, part.size, max_member_bytes, part.issym() or part.islnk())
                if error is None and not part.isreg():
                    error = "unsupported_media_type: It is no file but a device or a pipe: leave it out."
                file = archive.extractfile(part) if error is None else None
                if file is None:
                    yield ContainerMember(part.name, error=error)
                    if part.size > limit_bytes and not part.issparse():
                        raise EOFError(f"{part.name} should have {part.size:,} bytes")
                    continue
                read_bytes += part.size
                _check_total(read_bytes, limit_bytes)
                yield ContainerMember(_plain(part.name), file.read())
    except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as broken:
        raise ExtractionError(
            "unreadable",
            f"The TAR archive is damaged ({broken}): get it again, or unpack what is sound of it.",
        ) from broken


def _opened_tar(body: bytes, coding: str | None) -> tarfile.TarFile:
    if coding is None:
        return tarfile.open(fileobj=io.BytesIO(body), mode="r:", encoding="utf-8")
    return tarfile.open(fileobj=DecompressingReader(io.BytesIO(body), coding), mode="r|", encoding="utf-8")


def _tar_encoding(body: bytes, coding: str | None) -> str:
    """Returns the encoding of all names of an archive that are no UTF-8; those before any damage count."""
    names = set[bytes]()
    broken = (tarfile.TarError, EOFError, OSError, ValueError, OverflowError)
    with suppress(*broken), _opened_tar(body, coding) as archive:
        names.update(_tar_bytes(part.name) for part in archive if not _is_utf8(part.name))
    return _names_encoding(sorted(names)) or "latin-1"


def _tar_bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _is_utf8(name: str) -> bool:
    """Whether the name in an archive was UTF-8: `tarfile` has its other bytes as surrogates."""
    return not _SURROGATE.search(name)


def _seven_zip_members(body: bytes, max_member_bytes: int, limit_bytes: int) -> Iterator[ContainerMember]:
    """Yields what can not be read first, because the others are unpacked together."""
    from assets.parsing.seven_zip import seven_zip_parts, unpacked_parts

    parts = seven_zip_parts(body)
    _check_total(sum(part.size_bytes for part in parts), limit_bytes)
    wanted = []
    for part in parts:
        if _is_hidden(part.name):
            continue
        error = _refusal(part.name, part.size_bytes, max_member_bytes, part.is_link)
        if error is None:
            wanted.append(part.name)
        else:
            yield ContainerMember(part.name, error=error)
    for name, content in unpacked_parts(body, wanted):
        yield ContainerMember(_plain(name), content)


def _check_total(unpacked_bytes: int, limit_bytes: int) -> None:
    if unpacked_bytes > limit_bytes:
        raise ExtractionError(
            "oversize",
            f"The archive unpacks to more than the limit of {limit_bytes >> 20:,} MiB: if it is no bomb, "
            "unpack it into a folder and add that.",
        )


def _refusal(name: str, size_bytes: int, max_bytes: int, link: bool) -> str | None:
    """Returns why a member is not read, as "expectation: reason"; None where nothing speaks against it."""
    if link:
        return (
            "link: It is a link, and links inside archives are not followed: add the file that it leads to."
        )
    if name.startswith(("/", "\\")) or name[1:2] == ":" or ".." in name.replace("\\", "/").split("/"):
        return (
            "unsafe_name: Its name leads out of the archive (it begins with / or a drive, or has ..): pack "
            "it under a plain name, or add the file itself."
        )
    if size_bytes > max_bytes:
        return (
            f"oversize: It has {size_bytes:,} bytes; the limit is {max_bytes:,}: unpack it, divide it and "
            "add the parts."
        )
    return None


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) and part not in (".", "..") for part in name.split("/"))


def _plain(name: str) -> str:
    """Returns a name without empty parts and `.`, as in `./docs//a.txt`."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _zip_names(parts: Sequence[zipfile.ZipInfo]) -> list[str]:
    r"""Returns the names of an archive's parts, with `/` between folders.

    A name is in UTF-8 where its flag says so or the extra field 0x7075 has it. The others are in one
    encoding: UTF-8 if all are valid in it, else the likeliest in which they look like names, else CP437. A
    backslash divides folders in a name without `/`, but not where the encoding is unknown: it may be half of
    a character.
    """
    names = [part.filename if part.flag_bits & _UTF8_FLAG else _unicode_path(part) for part in parts]
    undeclared = [_raw_name(part) for part, name in zip(parts, names, strict=True) if name is None]
    encoding = _names_encoding(undeclared, _DOS_ENCODINGS)
    decoded = iter(raw.decode(encoding or "cp437") for raw in undeclared)
    unknown = [name is None and encoding is None for name in names]
    found = [next(decoded) if name is None else name for name in names]
    return [
        name if "/" in name or (doubtful and not name.isascii()) else name.replace("\\", "/")
        for name, doubtful in zip(found, unknown, strict=True)
    ]


def _names_encoding(names: Sequence[bytes], preferred: Sequence[str] = ()) -> str | None:
    """Returns the encoding of names that are all in one; None where they look like names in none.

    Args:
        names: Names, without their encoding.
        preferred: Encodings to take before others that are as likely.
    """
    foreign = b"\n".join(name for name in names if not name.isascii())
    if not foreign or _is_text_in(foreign, "utf-8"):
        return "utf-8"
    likely = likely_encodings(foreign)
    candidates = [*(name for name in preferred if name in likely), *likely, "cp932"]
    return next((name for name in candidates if _look_like_names(foreign, name)), None)


def _raw_name(part: zipfile.ZipInfo) -> bytes:
    return part.orig_filename.partition("\0")[0].encode("cp437")


def _unicode_path(part: zipfile.ZipInfo) -> str | None:
    """Returns the name in Info-ZIP's extra field (APPNOTE 4.6.9), if it is that of the name as it is now."""
    extra = part.extra
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == _UNICODE_PATH and len(field) > 5 and field[0] == 1:
            (checksum,) = struct.unpack_from("<I", field, 1)
            if checksum == zlib.crc32(part.orig_filename.encode("cp437")) and _is_text_in(field[5:], "utf-8"):
                return field[5:].decode().partition("\0")[0]
    return None


def _is_text_in(names: bytes, encoding: str) -> bool:
    try:
        names.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _look_like_names(names: bytes, encoding: str) -> bool:
    """Whether names are valid in an encoding and their characters are letters, or signs of East Asia."""
    if not _is_text_in(names, encoding):
        return False
    text = names.decode(encoding)
    if _CUT_BY_BACKSLASH.search(text):
        return False
    foreign = {char for char in text if not char.isascii()}
    if encoding in LATIN_ENCODINGS:
        return all(unicodedata.name(char, "").startswith("LATIN ") or char in _TYPOGRAPHY for char in foreign)
    return all(unicodedata.category(char)[0] in "LMN" or EAST_ASIAN.match(char) for char in foreign)
