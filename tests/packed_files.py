"""Archives and messages with files inside."""

import io
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


def make_tar(members: Mapping[str, bytes]) -> bytes:
    """Returns a TAR archive of these members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
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
