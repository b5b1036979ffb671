"""The demo's corpus: the texts that come with the software installed beside Headwater.

It has three kinds of documents: the long description of every distribution
(`python-environment://numpy/METADATA`), its licence files (`python-environment://numpy/licenses/LICENSE.txt`,
the path inside its `.dist-info`), and the language reference that the interpreter carries for `help()`
(`python-environment://python/topics/assert`). It is real, needs no network, has many near-duplicates among
its licences, and changes when packages change.
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

from assets.sources.source_config import PYTHON_ENVIRONMENT
from assets.sources.source_schemas import (
    SOURCE_CONTENT_SCHEMA,
    ListedFile,
    SourceContent,
    listing_of_files,
    source_content_batch,
)

MAX_ENVIRONMENT_TEXT_BYTES = 32 * 1024
"""Larger texts are left out, so that the demo embeds the corpus on two cores within minutes. They are
changelogs, bundles of other projects' licences, and reference chapters whose sections are topics of their
own: a third of the bytes, and little that the other texts do not say."""

OWN_DISTRIBUTION = "headwater"
"""It is left out: the description of an editable install changes with every edit of the README."""

_LICENCE = re.compile(r"licenses/.+|(licen[cs]e|copying|notice|authors|copyright)[^/]*", re.IGNORECASE)
_LICENCE_TYPES = {".md": "text/markdown", ".rst": "text/x-rst"}
_TOPICS_FILE = Path(topics.__file__)


@dataclass(frozen=True)
class _Text:
    uri: str
    path: Path
    dist_info: Path | None
    """The folder of the distribution; None for a topic, whose path is the module of all topics."""


def environment_corpus_folders() -> list[Path]:
    """Returns the folders that the running interpreter's own distributions are installed in."""
    return sorted({Path(sysconfig.get_path(scheme)) for scheme in ("purelib", "platlib")})


def list_environment_corpus(folders: Sequence[Path] | None = None) -> pa.Table:
    """Lists the corpus without reading it.

    Args:
        folders: Folders that distributions are installed in; those of the running interpreter by default.

    Returns:
        A table with the schema `SOURCE_LISTING_SCHEMA`, sorted by uri: size and time of the file of each
        text.
    """
    rows = []
    for text in _texts(folders):
        stat = text.path.stat()
        rows.append((text.uri, stat.st_size, stat.st_mtime_ns // 1000))
    return listing_of_files(rows)


def read_environment_corpus(listing: pa.Table, folders: Sequence[Path] | None = None) -> pa.Table:
    """Reads the listed texts.

    The body is the exact bytes of the file, or of the description in a METADATA file; it is empty where a
    distribution has none. A file that can not be read is a row with an error and no body.

    Args:
        listing: Rows of `list_environment_corpus`.
        folders: As for `list_environment_corpus`.

    Returns:
        A table with the schema `SOURCE_CONTENT_SCHEMA`, in the order of the listing.
    """
    texts = {text.uri: text for text in _texts(folders)}
    headers: dict[Path, Message] = {}
    documents = []
    for file in (ListedFile(**row) for row in listing.to_pylist()):
        text = texts.get(file.uri)
        try:
            if text is None:
                raise FileNotFoundError("it is no longer installed")
            title, media_type, body = _read_text(text, headers)
            documents.append(SourceContent.of(file, body, media_type, title))
        except OSError as error:
            documents.append(SourceContent.failed(file, f"unreadable: {error.strerror or error}"))
    return pa.Table.from_batches([source_content_batch(documents)], SOURCE_CONTENT_SCHEMA)


def _texts(folders: Sequence[Path] | None) -> Iterator[_Text]:
    for dist_info in sorted(
        d for folder in folders or environment_corpus_folders() for d in folder.glob("*.dist-info")
    ):
        name = re.sub(r"[-_.]+", "-", dist_info.name.removesuffix(".dist-info").rpartition("-")[0]).lower()
        if name == OWN_DISTRIBUTION:
            continue
        for path in sorted(dist_info.rglob("*")):
            inside = path.relative_to(dist_info).as_posix()
            if inside != "METADATA" and not _LICENCE.fullmatch(inside):
                continue
            if path.is_file() and path.stat().st_size <= MAX_ENVIRONMENT_TEXT_BYTES:
                yield _Text(f"{PYTHON_ENVIRONMENT}://{name}/{quote(inside)}", path, dist_info)
    for topic, text in topics.topics.items():
        if len(text.encode()) <= MAX_ENVIRONMENT_TEXT_BYTES:
            yield _Text(f"{PYTHON_ENVIRONMENT}://python/topics/{quote(topic)}", _TOPICS_FILE, None)


def _read_text(text: _Text, headers: dict[Path, Message]) -> tuple[str, str, bytes]:
    """Returns the title, media type and bytes of one text.

    Titles have no version: most releases of a package leave the text unchanged, and a document with the same
    bytes is not written again, so that a version in its title would go stale.
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
