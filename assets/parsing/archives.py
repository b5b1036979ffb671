"""Reads the files inside ZIP and TAR archives, of which nothing is ever written to a disk."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

from assets.parsing.blocks import ExtractionError
from assets.parsing.compression import DecompressingReader
from assets.parsing.content_type import TAR, ZIP
from assets.parsing.formats.zip_package import open_zip_directory

_DEFLATED_AND_SUCH = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


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
        media_type: `ZIP` or `TAR`.
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
    raise ExtractionError(
        "unsupported_media_type", f"Archives of type {media_type} are not read: add the files inside."
    )


def _zip_members(body: bytes, max_member_bytes: int, limit_bytes: int) -> Iterator[ContainerMember]:
    with open_zip_directory(body, "ZIP archive") as archive:
        parts = [part for part in archive.infolist() if not part.is_dir()]
        _check_total(sum(part.file_size for part in parts), limit_bytes)
        if parts and all(part.flag_bits & 1 for part in parts):
            raise ExtractionError(
                "encrypted", "The ZIP archive opens only with a password: unpack it and add the files inside."
            )
        for part in parts:
            name = part.filename.replace("\\", "/")
            if _is_hidden(name):
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
            for part in archive:
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
        return tarfile.open(fileobj=io.BytesIO(body), mode="r:")
    return tarfile.open(fileobj=DecompressingReader(io.BytesIO(body), coding), mode="r|")


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
    if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
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
