"""ZIP packages, which most office formats are: opened only when what they unpack to is bounded."""

import io
import zipfile

from assets.parsing.blocks import ExtractionError

MAX_UNPACKED_BYTES = 512 << 20
"""The most that a package may say it unpacks to."""
MAX_UNPACK_RATIO = 200
"""The most that a package of more than 64 MiB unpacked may grow; office documents grow up to thirty times."""
MAX_ZIP_PARTS = 20_000
"""The most parts of a package; the directory of more would take memory before anything is unpacked."""

_RATIO_FROM_BYTES = 64 << 20
OLE_SIGNATURE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""What OLE compound files begin with: legacy office files, Outlook messages, encrypted packages."""


def exceeds_zip_part_limit(body: bytes) -> bool:
    """Whether a ZIP file may have more than `MAX_PARTS` parts; quick, and its directory is not read."""
    return body.count(b"PK\x01\x02") > MAX_ZIP_PARTS


def open_zip_package(body: bytes, kind: str) -> zipfile.ZipFile:
    """Opens a ZIP package after a look at its directory; nothing is unpacked yet.

    A part that unpacks to more than the directory says is cut there by `zipfile`, so the look is binding.

    Args:
        body: The package.
        kind: What a person calls it, such as "Word document".

    Raises:
        ExtractionError: `encrypted`, `oversize` for a bomb, `unreadable` when it is no whole ZIP file.
    """
    if body.startswith(OLE_SIGNATURE[:4]):
        raise ExtractionError("encrypted", f"The {kind} opens only with a password.")
    if exceeds_zip_part_limit(body):
        raise ExtractionError("oversize", f"The {kind} has more than {MAX_ZIP_PARTS:,} parts.")
    try:
        archive = zipfile.ZipFile(io.BytesIO(body))
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ExtractionError("unreadable", f"The {kind} is damaged: {error}.") from error
    parts = archive.infolist()
    unpacked = sum(part.file_size for part in parts)
    if unpacked > MAX_UNPACKED_BYTES or unpacked > max(_RATIO_FROM_BYTES, MAX_UNPACK_RATIO * len(body)):
        raise ExtractionError("oversize", f"The {kind} unpacks to {unpacked >> 20:,} MiB, a bomb's size.")
    if any(part.flag_bits & 1 for part in parts):
        raise ExtractionError("encrypted", f"The {kind} opens only with a password.")
    return archive


def read_zip_part(archive: zipfile.ZipFile, name: str, kind: str) -> bytes:
    """The bytes of one part.

    Raises:
        ExtractionError: `unreadable` when it is missing or damaged.
    """
    try:
        return archive.read(name)
    except KeyError as error:
        raise ExtractionError("unreadable", f"The {kind} has no part {name}.") from error
    except (zipfile.BadZipFile, zipfile.zlib.error, NotImplementedError, EOFError) as error:  # type: ignore[attr-defined]
        raise ExtractionError("unreadable", f"The {kind}'s part {name} is damaged: {error}.") from error
