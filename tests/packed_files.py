"""Archives and messages with files inside."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping


def make_zip(parts: Mapping[str, str | bytes]) -> bytes:
    """Returns a compressed ZIP package of these parts."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def make_stored_zip(name: str, content: bytes) -> bytes:
    """Returns a ZIP archive that holds one part as it is."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(name, content)
    return out.getvalue()


def make_undeclared_zip(members: Mapping[bytes, bytes]) -> bytes:
    """Returns a ZIP archive whose names are these bytes, and that does not say in which encoding they are."""
    places = {str(place).rjust(len(name), "\x1a"): name for place, name in enumerate(members)}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for place, content in zip(places, members.values(), strict=True):
            archive.writestr(place, content)
    body = out.getvalue()
    for place, name in places.items():
        body = body.replace(place.encode(), name)
    return body


def make_tar(members: Mapping[str, bytes], encoding: str = "utf-8", compressed: bool = False) -> bytes:
    """Returns a TAR archive of these members."""
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w:gz" if compressed else "w", encoding=encoding, format=tarfile.GNU_FORMAT
    ) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def make_mail(attachments: dict[str, bytes], subject: str = "s") -> bytes:
    """Returns a message with these files attached."""
    parts = b"".join(
        b"--%s\nContent-Type: application/octet-stream\nContent-Disposition: attachment; filename=%s\n\n%s\n"
        % (subject.encode(), name.encode(), content)
        for name, content in attachments.items()
    )
    return (
        b"From: a@b.example\nTo: c@d.example\nSubject: %s\nMIME-Version: 1.0\n" % subject.encode()
        + b"Content-Type: multipart/mixed; boundary=%s\n\n" % subject.encode()
        + b"--%s\nContent-Type: text/plain\n\nHello\n%s--%s--\n" % (subject.encode(), parts, subject.encode())
    )


def encrypted(body: bytes, first: int = 0) -> bytes:
    """A ZIP archive whose directory says that its parts, from the one of this number on, are encrypted."""
    changed, place = bytearray(body), -1
    for number in range(body.count(b"PK\x01\x02")):
        place = changed.index(b"PK\x01\x02", place + 1)
        if number >= first:
            changed[place + 8] |= 1
    return bytes(changed)


def make_compound(stream_count: int, table_sectors: int | None = None) -> bytes:
    """Returns an OLE file whose directory is a balanced tree of streams.

    Args:
        stream_count: The number of streams.
        table_sectors: Where given, the sectors of the allocation table that the header tells of; the list of
            these sectors is then a ring.
    """
    none, end = 0xFFFFFFFF, 0xFFFFFFFE
    children: dict[int, tuple[int, int]] = {}

    def tree(first: int, last: int) -> int:
        if first > last:
            return none
        middle = (first + last) // 2
        children[middle] = (tree(first, middle - 1), tree(middle + 1, last))
        return middle

    def entry(name: str, kind: int, left: int, right: int, child: int, sector: int, size: int) -> bytes:
        spelt = name.encode("utf-16-le")
        head = struct.pack("<HBBIII", len(spelt) + 2, kind, 1, left, right, child)
        return spelt.ljust(64, b"\0") + head + bytes(36) + struct.pack("<IQ", sector, size)

    root = tree(1, stream_count)
    entries = [entry("Root Entry", 5, none, none, root, end, 0)]
    entries += [entry(f"s{n:07}", 2, *children[n], none, n + 10, 1 << 20) for n in range(1, stream_count + 1)]
    directory = b"".join(entries)
    directory += bytes(-len(directory) % 512)
    fat_count = len(directory) // 512 // 127 + 1
    ring = fat_count + len(directory) // 512
    fat = [0xFFFFFFFD] * fat_count + [*range(fat_count + 1, ring), end]
    fat += [none] * (128 * fat_count - len(fat))
    told = table_sectors or fat_count
    lists = (ring, -(-(told - 109) // 127)) if told > 109 else (end, 0)
    numbers = (0, told, fat_count, 0, 4096, end, 0, *lists)
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    header += struct.pack("<HHHHH6x9I", 0x3E, 3, 0xFFFE, 9, 6, *numbers)
    header += struct.pack("<109I", *([*range(fat_count)] + [none] * (109 - fat_count)))
    rest = struct.pack(f"<{len(fat)}I", *fat) + directory
    return header + rest + struct.pack("<128I", *([0] * 127), ring) + bytes(512)
