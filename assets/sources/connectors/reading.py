"""What a connector found: the listing of all that its source has, and the contents of what is new."""

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from assets.lake.lake import Lake
from assets.sources.source_schemas import (
    SOURCE_CONTENT_SCHEMA,
    SOURCE_LISTING_SCHEMA,
    SourceContent,
    source_content_batches,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_FEW_BYTES = 64 << 20
_LEFT_S = 24 * 3600


@contextmanager
def source_scratch_folder(cache_dir: Path) -> Iterator[Path]:
    """Yields an empty folder for what connectors read until it is committed, and deletes it.

    What a killed run left in its own goes too, once it is a day old.
    """
    place = cache_dir / "reading"
    place.mkdir(parents=True, exist_ok=True)
    for left in place.iterdir():
        if time.time() - left.stat().st_mtime > _LEFT_S:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class ContentSpool:
    """Contents of a source on their way to the lake: on disk, for they may be more than memory holds.

    Args:
        folder: An empty folder, which the caller deletes once the contents are committed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "contents.parquet"
        self.rows = self.size_bytes = 0

    def write(self, documents: Iterable[SourceContent]) -> None:
        """Writes all documents, a few at a time; called once.

        Raises:
            OSError: The disk is full.
        """
        with pq.ParquetWriter(self._file, SOURCE_CONTENT_SCHEMA, compression="zstd") as writer:
            for batch in source_content_batches(documents):
                writer.write_batch(batch)
                self.rows += batch.num_rows
                self.size_bytes += batch.nbytes

    def read(self, lake: Lake) -> "pa.Table | DataFrame | None":
        """Returns what was written: in memory if it is small, else as a Spark frame; None if nothing was."""
        if not self.rows:
            return None
        if self.size_bytes <= _FEW_BYTES:
            return pq.read_table(self._file, schema=SOURCE_CONTENT_SCHEMA, memory_map=False)
        return lake.spark.read.parquet(str(self._file))


@dataclass(frozen=True)
class ConnectorReading:
    """What a connector found.

    Attributes:
        listing: All documents that the source has, with the schema `SOURCE_LISTING_SCHEMA`; those that could
            not be reached this time are among them.
        contents: Those that were read.
        read_uris: The URIs of those that were read, without the parts inside of them.
        earlier: What documents were between the last reading and now, oldest first, with the schema
            `SOURCE_CONTENT_SCHEMA`.
        warnings: What could not be reached, a sentence each; its documents stay as they are.
    """

    listing: pa.Table
    contents: ContentSpool
    read_uris: list[str]
    earlier: pa.Table = field(default_factory=SOURCE_CONTENT_SCHEMA.empty_table)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ConnectorPreview:
    """What a connector would read, found without writing anything.

    Attributes:
        listing: As of `ConnectorReading`.
        read: The rows of the listing that would be read; their size is NULL where it is not known before.
    """

    listing: pa.Table = field(default_factory=SOURCE_LISTING_SCHEMA.empty_table)
    read: pa.Table = field(default_factory=SOURCE_LISTING_SCHEMA.empty_table)
