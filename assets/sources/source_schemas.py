"""What every kind of source returns: a listing of files, then their contents; and the URIs of local files."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow as pa
import pyarrow.compute as pc

SOURCE_LISTING_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("file_size_bytes", pa.int64()),
        pa.field("file_modified_at", pa.timestamp("us", tz="UTC")),
        pa.field("source_version", pa.string()),
    ]
)
"""One row per file, sorted by uri: enough to tell whether the file has to be read again. The version is what
the source itself calls one, where it does: a commit, an ETag, the value of a cursor column."""

SOURCE_CONTENT_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("media_type", pa.string()),
        pa.field("content_sha256", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("body", pa.binary()),
        pa.field("file_size_bytes", pa.int64()),
        pa.field("file_modified_at", pa.timestamp("us", tz="UTC")),
        pa.field("source_version", pa.string()),
        pa.field("error", pa.string()),
    ]
)
"""One row per document. A row with an `error` ("expectation: what happened") has a body only if it is a file
that was read and can not be opened, such as an encrypted archive. An archive without an error is no document;
the files inside are. Size, time and version are those of the listing, so that a file that changed since
then is read again by the next run."""

_BATCH_BYTES = 16 * 1024 * 1024

UNREACHABLE = "unreachable: "
"""How the error of a document begins that its source has and could not give: it is asked for again. Any other
error is a finding about its bytes, and stands as long as they do."""

VANISHED_FILE_ERROR = "unreadable: it went away or access to it was refused"
"""The error of a file on another file system that was listed but could not be read."""
UNREACHABLE_FILE_ERRORS = (
    VANISHED_FILE_ERROR,
    *(
        f"unreadable: {os.strerror(code)}"
        for code in (
            errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ETIMEDOUT,
            errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH,
        )
    ),
)  # fmt: skip
"""Errors of files that could not be reached. They say nothing about what the files hold."""


@dataclass(frozen=True)
class ListedFile:
    """One row of a listing: `SOURCE_LISTING_SCHEMA`."""

    uri: str
    file_size_bytes: int | None
    file_modified_at: datetime | None
    source_version: str | None = None


def listing_of_files(files: Iterable[tuple[str, int, int]]) -> pa.Table:
    """Returns files as a table with the schema `SOURCE_LISTING_SCHEMA`, sorted by uri; none has a version.

    Args:
        files: URI, size in bytes and time of change in µs of each file.
    """
    rows = sorted(files)
    uris, sizes, times = zip(*rows, strict=True) if rows else ((), (), ())
    columns = [uris, sizes, times, [None] * len(rows)]
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, SOURCE_LISTING_SCHEMA, strict=True)
    ]
    return pa.table(arrays, schema=SOURCE_LISTING_SCHEMA)


def source_listing_table(files: Iterable[ListedFile]) -> pa.Table:
    """Returns files as a table with the schema `SOURCE_LISTING_SCHEMA`, sorted by uri."""
    rows = [vars(file) for file in sorted(files, key=lambda file: file.uri)]
    return pa.Table.from_pylist(rows, schema=SOURCE_LISTING_SCHEMA)


@dataclass(frozen=True)
class SourceContent:
    """One document of a source, or the reason why it could not be read: a row of `SOURCE_CONTENT_SCHEMA`."""

    uri: str
    file_size_bytes: int | None
    file_modified_at: datetime | None
    source_version: str | None
    title: str | None = None
    media_type: str | None = None
    content_sha256: str | None = None
    size_bytes: int | None = None
    body: bytes | None = None
    error: str | None = None

    @classmethod
    def of(
        cls,
        file: ListedFile,
        body: bytes,
        media_type: str,
        title: str | None = None,
        uri: str | None = None,
        error: str | None = None,
    ) -> "SourceContent":
        """Returns the row of a document that was read; `uri` is the file's unless given."""
        return cls(
            uri or file.uri,
            file.file_size_bytes,
            file.file_modified_at,
            file.source_version,
            title,
            media_type,
            hashlib.sha256(body).hexdigest(),
            len(body),
            body,
            error,
        )

    @classmethod
    def failed(cls, file: ListedFile, error: str, uri: str | None = None) -> "SourceContent":
        """Returns the row of a document that could not be read; `uri` is the file's unless given."""
        return cls(
            uri or file.uri, file.file_size_bytes, file.file_modified_at, file.source_version, error=error
        )


def source_content_batch(documents: Iterable[SourceContent]) -> pa.RecordBatch:
    """Returns documents as a batch with the schema `SOURCE_CONTENT_SCHEMA`."""
    return pa.RecordBatch.from_pylist(list(map(vars, documents)), schema=SOURCE_CONTENT_SCHEMA)


def source_content_batches(documents: Iterable[SourceContent]) -> Iterator[pa.RecordBatch]:
    """Yields documents as batches of about 16 MiB, so that few of them are held at a time."""
    held, held_bytes = list[SourceContent](), 0
    for document in documents:
        held.append(document)
        held_bytes += document.size_bytes or 0
        if held_bytes >= _BATCH_BYTES:
            yield source_content_batch(held)
            held, held_bytes = [], 0
    if held:
        yield source_content_batch(held)


def source_listing_digest(listing: pa.Table) -> str:
    """Returns the SHA-256 (hex) of a listing, which changes when a file is added, removed or written."""
    columns = [
        listing["uri"],
        listing["file_size_bytes"].cast(pa.string()),
        listing["file_modified_at"].cast(pa.int64()).cast(pa.string()),
        listing["source_version"],
    ]
    lines = pc.binary_join_element_wise(*columns, "\x1f", null_handling="replace").to_pylist()
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def path_to_source_uri(path: str) -> str:
    """Returns the `file://` URI of an absolute path, whose name need not be UTF-8."""
    return "file://" + quote_from_bytes(os.fsencode(path))


def source_uri_to_path(uri: str) -> str:
    """Returns the path of a `file://` URI: the inverse of `path_to_source_uri`."""
    return os.fsdecode(unquote_to_bytes(uri.removeprefix("file://")))
