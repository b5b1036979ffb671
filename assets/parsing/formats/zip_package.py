"""Opens ZIP packages (most office formats are such) if their unpacked size is within bounds."""

import io
import zipfile

from assets.parsing.blocks import ExtractionError

MAX_UNPACKED_BYTES = 512 << 20
"""The largest size that a package may unpack to, by its directory."""
MAX_UNPACK_RATIO = 200
"""The largest ratio of unpacked to packed size above 64 MiB; that of office documents is up to thirty."""
MAX_ZIP_PARTS = 20_000
"""The largest number of parts: a larger directory would take much memory before anything is unpacked."""

_RATIO_FROM_BYTES = 64 << 20
OLE_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""The first bytes of OLE compound files: legacy office files, Outlook messages, encrypted packages."""


def exceeds_zip_part_limit(body: bytes) -> bool:
    """Returns whether a ZIP file may have more than `MAX_ZIP_PARTS` parts, without reading its directory."""
    return body.count(b"PK\x01\x02") > MAX_ZIP_PARTS


def unpacked_bytes_limit(packed_bytes: int) -> int:
    """Returns the largest size in bytes that a package or archive of this size may unpack to."""
    return min(MAX_UNPACKED_BYTES, max(_RATIO_FROM_BYTES, MAX_UNPACK_RATIO * packed_bytes))


def open_zip_directory(body: bytes, kind: str) -> zipfile.ZipFile:
    """Opens a ZIP file after checking the sizes in its directory, and unpacks nothing.

    `zipfile` returns no more of a part than the directory says, so the check can not be evaded. It
    may unpack more before it cuts that off, so parts are read in the sandbox.

    Args:
        body: The ZIP file.
        kind: The name of the format in error messages, such as "Word document".

    Raises:
        ExtractionError: `oversize` for a zip bomb; `unreadable` if it is no complete ZIP file.
    """
    if exceeds_zip_part_limit(body):
        raise ExtractionError("oversize", f"The {kind} has more than {MAX_ZIP_PARTS:,} parts.")
    try:
        archive = zipfile.ZipFile(io.BytesIO(body))
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ExtractionError("unreadable", f"The {kind} is damaged: {error}.") from error
    unpacked = sum(part.file_size for part in archive.infolist())
    if unpacked > unpacked_bytes_limit(len(body)):
        raise ExtractionError("oversize", f"The {kind} unpacks to {unpacked >> 20:,} MiB: it is a zip bomb.")
    return archive


def open_zip_package(body: bytes, kind: str) -> zipfile.ZipFile:
    """Opens a ZIP package as `open_zip_directory` does; one that needs a password is an error.

    Raises:
        ExtractionError: As `open_zip_directory`; `encrypted` if it opens only with a password.
    """
    if body.startswith(OLE_SIGNATURE[:4]):
        raise ExtractionError("encrypted", f"The {kind} opens only with a password.")
    archive = open_zip_directory(body, kind)
    if any(part.flag_bits & 1 for part in archive.infolist()):
        raise ExtractionError("encrypted", f"The {kind} opens only with a password.")
    return archive


def read_zip_part(archive: zipfile.ZipFile, name: str, kind: str) -> bytes:
    """Returns the bytes of one part of a package.

    Raises:
        ExtractionError: `unreadable` if the part is missing or damaged.
    """
    try:
        return archive.read(name)
    except KeyError as error:
        raise ExtractionError("unreadable", f"The {kind} has no part {name}.") from error
    except (zipfile.BadZipFile, zipfile.zlib.error, NotImplementedError, EOFError) as error:  # type: ignore[attr-defined]
        raise ExtractionError("unreadable", f"The {kind}'s part {name} is damaged: {error}.") from error
