"""Lists and unpacks 7z archives by py7zr, into memory."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from py7zr import PasswordRequired, SevenZipFile
from py7zr.io import Py7zIO, WriterFactory

from assets.parsing.blocks import ExtractionError


@dataclass(frozen=True, slots=True)
class SevenZipPart:
    """A file in a 7z archive, as its directory describes it."""

    name: str
    size_bytes: int
    is_link: bool


def seven_zip_parts(body: bytes) -> list[SevenZipPart]:
    """Returns the files in an archive, without its folders; nothing but the directory is unpacked.

    Raises:
        ExtractionError: `encrypted`; `unreadable` if the archive is damaged.
    """
    with _opened(body) as archive:
        return [
            SevenZipPart(part.filename, part.uncompressed, part.is_symlink)
            for part in archive.list()
            if not part.is_directory
        ]


def unpacked_parts(body: bytes, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yields the names and contents of files in an archive; of one that is damaged, those before the damage.

    All are held in memory at once: the files of an archive are compressed together. py7zr writes no more of
    a file than the directory says that it has.

    Raises:
        ExtractionError: As `seven_zip_parts`.
    """
    unpacked = _UnpackedFiles()
    damage: ExtractionError | None = None
    try:
        if names:
            with _opened(body) as archive:
                archive.extract(targets=names, factory=unpacked)
    except ExtractionError as error:
        damage = error
        del unpacked.files[-1:]  # the one in which it was found
    yield from ((name, bytes(file.content)) for name, file in unpacked.files)
    if damage is not None:
        raise damage


@contextmanager
def _opened(body: bytes) -> Iterator[SevenZipFile]:
    try:
        with SevenZipFile(io.BytesIO(body)) as archive:
            if archive.needs_password():
                raise PasswordRequired("7z")
            yield archive
    except PasswordRequired as error:
        raise ExtractionError(
            "encrypted", "The 7z archive opens only with a password: unpack it and add the files inside."
        ) from error
    except MemoryError:
        raise
    except Exception as broken:  # each of its decoders has errors of its own
        raise ExtractionError(
            "unreadable",
            f"The 7z archive is damaged ({broken}): get it again, or unpack what is sound of it.",
        ) from broken


class _UnpackedFile(Py7zIO):
    """Where py7zr writes one file to."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, s: bytes | bytearray) -> int:
        self.content += s
        return len(s)

    def read(self, size: int | None = None) -> bytes:
        return bytes(self.content[:size])

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset

    def flush(self) -> None:
        pass

    def size(self) -> int:
        return len(self.content)


class _UnpackedFiles(WriterFactory):
    def __init__(self) -> None:
        self.files: list[tuple[str, _UnpackedFile]] = []

    def create(self, filename: str) -> Py7zIO:
        file = _UnpackedFile()
        self.files.append((filename, file))
        return file
