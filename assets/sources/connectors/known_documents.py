"""What the lake knows of a source's documents, so that a connector can tell what is new."""

from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from assets.sources.source_schemas import SourceContent

_COLUMNS = (
    *(
        "source_version",
        "file_modified_at",
        "content_sha256",
        "title",
        "media_type",
        "file_size_bytes",
        "error",
    ),
)


@dataclass(frozen=True, slots=True)
class KnownDocument:
    """The newest revision of a document that is there: columns of `bronze.raw_documents`."""

    source_version: str | None
    file_modified_at: datetime | None
    content_sha256: str | None
    title: str | None
    media_type: str | None
    file_size_bytes: int | None
    error: str | None

    def is_same_as(self, content: SourceContent) -> bool:
        """Returns whether what was read is what is known: then there is nothing to write."""
        return all(getattr(self, name) == getattr(content, name) for name in _COLUMNS)


def known_documents(state: pa.Table) -> dict[str, KnownDocument]:
    """Returns the documents of rows of `STATE` by URI, without what is inside of one, as in an archive.

    Args:
        state: The newest revisions of documents that are there.
    """
    uris, columns = state["uri"].to_pylist(), [state[name].to_pylist() for name in _COLUMNS]
    rows = zip(uris, zip(*columns, strict=True), strict=True)
    return {uri: KnownDocument(*values) for uri, values in rows if "#" not in uri}
