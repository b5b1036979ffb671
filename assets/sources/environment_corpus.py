"""The demo's corpus: the texts that come with what is installed beside Headwater.

Three kinds of document: the long description of every distribution
(`python-environment://numpy/METADATA`), its licence files (`python-environment://numpy/licenses/LICENSE.txt`,
the path inside its `.dist-info`), and the language reference that the interpreter carries for `help()`
(`python-environment://python/topics/assert`). It is real, needs no network, has heavy near-duplication in its
licences, and changes when packages do.
"""

import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path
from pydoc_data import topics
from urllib.parse import quote

import pyarrow as pa

from assets.sources.fetched import FETCHED, LISTING, fetched_row
from assets.sources.registry import ENVIRONMENT

MAX_FILE_BYTES = 32 * 1024
"""Larger texts are left out. They are changelogs, bundles of other projects' licences, and reference chapters
whose sections are topics of their own: a third of the bytes, little that the rest does not say, and the demo
has to embed on two cores within minutes."""

OWN_DISTRIBUTION = "headwater"
"""Left out: an editable install's description changes with every edit of the README."""

_LICENCE = re.compile(r"licenses/.+|(licen[cs]e|copying|notice|authors|copyright)[^/]*", re.IGNORECASE)
_LICENCE_TYPES = {".md": "text/markdown", ".rst": "text/x-rst"}
_TOPICS_FILE = Path(topics.__file__)


@dataclass(frozen=True)
class _Text:
    uri: str
    path: Path
    dist_info: Path | None
    """The distribution's folder; None for a topic, whose path is the module that holds them all."""


def site_packages() -> list[Path]:
    """The folders that the running interpreter's own distributions are installed in."""
    return sorted({Path(sysconfig.get_path(scheme)) for scheme in ("purelib", "platlib")})


def list_environment(folders: Sequence[Path] | None = None) -> pa.Table:
    """Lists the corpus without reading it.

    Args:
        folders: Where distributions are looked for; by default those of the running interpreter.

    Returns:
        Columns uri, file_size_bytes and file_modified_at of the file that holds the text, by uri.
    """
    rows = []
    for text in _texts(folders):
        stat = text.path.stat()
        rows.append((text.uri, stat.st_size, stat.st_mtime_ns // 1000))
    rows.sort()
    columns = zip(*rows, strict=True) if rows else ([], [], [])
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, LISTING, strict=True)], schema=LISTING)


def read_environment(listing: pa.Table, folders: Sequence[Path] | None = None) -> pa.Table:
    """Reads the listed texts.

    The body is the exact bytes of the file, or of the description in a METADATA file; it is empty where a
    distribution has none. A file that can't be read is a row with an error and no body.

    Args:
        listing: Rows of `list_environment`.
        folders: As for `list_environment`.

    Returns:
        A table with the schema `FETCHED`, in the order of the listing.
    """
    texts = {text.uri: text for text in _texts(folders)}
    headers: dict[Path, Message] = {}
    rows = []
    for entry in listing.to_pylist():
        text = texts.get(entry["uri"])
        try:
            if text is None:
                raise FileNotFoundError("it is no longer installed")
            title, media_type, body = _read(text, headers)
            rows.append(fetched_row(entry, body, title=title, media_type=media_type))
        except OSError as error:
            rows.append(fetched_row(entry, error=f"unreadable: {error.strerror or error}"))
    return pa.Table.from_pylist(rows, schema=FETCHED)


def _texts(folders: Sequence[Path] | None) -> Iterator[_Text]:
    for dist_info in sorted(d for folder in folders or site_packages() for d in folder.glob("*.dist-info")):
        name = re.sub(r"[-_.]+", "-", dist_info.name.removesuffix(".dist-info").rpartition("-")[0]).lower()
        if name == OWN_DISTRIBUTION:
            continue
        for path in sorted(dist_info.rglob("*")):
            inside = path.relative_to(dist_info).as_posix()
            if inside != "METADATA" and not _LICENCE.fullmatch(inside):
                continue
            if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES:
                yield _Text(f"{ENVIRONMENT}://{name}/{quote(inside)}", path, dist_info)
    for topic, text in topics.topics.items():
        if len(text.encode()) <= MAX_FILE_BYTES:
            yield _Text(f"{ENVIRONMENT}://python/topics/{quote(topic)}", _TOPICS_FILE, None)


def _read(text: _Text, headers: dict[Path, Message]) -> tuple[str, str, bytes]:
    """The title, media type and bytes of one text.

    Titles carry no version: most releases of a package leave the text as it was, and a document whose bytes
    are the same is not written again, so a version in its title would go stale.
    """
    if text.dist_info is None:
        topic = text.uri.rpartition("/")[2]
        return f"Python: {topic}", "text/plain", topics.topics[topic].encode()
    metadata = text.dist_info / "METADATA"
    if text.dist_info not in headers:
        headers[text.dist_info] = BytesHeaderParser().parsebytes(metadata.read_bytes())
    header = headers[text.dist_info]
    if text.path != metadata:
        media_type = _LICENCE_TYPES.get(text.path.suffix.lower(), "text/plain")
        inside = text.path.relative_to(text.dist_info).as_posix().removeprefix("licenses/")
        return f"{header['Name']}: {inside}", media_type, text.path.read_bytes()
    # The headers end at the first empty line; the rest is the description (core metadata 2.1).
    parts = re.split(rb"\r?\n\r?\n", text.path.read_bytes(), maxsplit=1)
    body = parts[1] if len(parts) > 1 else b""
    declared = (header["Description-Content-Type"] or "text/plain").partition(";")[0].strip().lower()
    return header["Name"], declared, body if body.strip() else b""
