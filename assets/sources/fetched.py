"""What every kind of source hands over: a listing, then the contents, and their addresses."""

import errno
import hashlib
import os
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import pyarrow as pa
import pyarrow.compute as pc

LISTING = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("file_size_bytes", pa.int64()),
        pa.field("file_modified_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""One row a file, by uri; enough to tell whether a file has to be read again."""

FETCHED = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("media_type", pa.string()),
        pa.field("content_sha256", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("body", pa.binary()),
        pa.field("file_size_bytes", pa.int64()),
        pa.field("file_modified_at", pa.timestamp("us", tz="UTC")),
        pa.field("error", pa.string()),
    ]
)
"""One row a document. Where `error` ("expectation: what happened") is set there is no body; the size and time
are always those of the listing, so a file that changed in between is read again by the next run."""

FETCHED_DDL = (
    "uri string, title string, media_type string, content_sha256 string, size_bytes bigint, body binary, "
    "file_size_bytes bigint, file_modified_at timestamp, error string"
)
"""`FETCHED` in Spark's words."""

WENT_AWAY = "unreadable: it went away or access to it was refused"
"""The error of a file that another file system listed and did not give."""
UNREACHABLE = (
    WENT_AWAY,
    *(
        f"unreadable: {os.strerror(code)}"
        for code in (
            errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ENXIO, errno.ENODEV, errno.ESTALE, errno.ETIMEDOUT,
            errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH,
        )
    ),
)  # fmt: skip
"""The errors of files that were listed a moment ago: they say nothing of what the files hold."""


def fetched_row(
    entry: dict[str, Any],
    body: bytes | None = None,
    *,
    title: str | None = None,
    media_type: str | None = None,
    error: str | None = None,
) -> dict[str, Any]:
    """One row of `FETCHED` from a row of `LISTING` and what was read, or the reason why nothing was."""
    return {
        **entry,
        "title": title,
        "media_type": media_type,
        "content_sha256": None if body is None else hashlib.sha256(body).hexdigest(),
        "size_bytes": None if body is None else len(body),
        "body": body,
        "error": error,
    }


def listing_digest(listing: pa.Table) -> str:
    """SHA-256 (hex) of a listing: a cursor that changes when a file comes, goes or is written."""
    columns = [
        listing["uri"],
        listing["file_size_bytes"].cast(pa.string()),
        listing["file_modified_at"].cast(pa.int64()).cast(pa.string()),
    ]
    lines = pc.binary_join_element_wise(*columns, "\x1f", null_handling="replace").to_pylist()
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def file_uri(path: str) -> str:
    """The `file://` URI of an absolute path; any name survives, also one that is not UTF-8."""
    return "file://" + quote_from_bytes(os.fsencode(path))


def file_path(uri: str) -> str:
    """The path of a `file://` URI: the inverse of `file_uri`."""
    return os.fsdecode(unquote_to_bytes(uri.removeprefix("file://")))
