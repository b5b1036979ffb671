"""What Headwater reads from, whatever kind it is: list it, then read what is new."""

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession

from assets.sources.environment_corpus import list_environment, read_environment
from assets.sources.files import list_files, local_listing, read_files, read_local
from assets.sources.registry import (
    ENVIRONMENT,
    DuplicateSource,
    Source,
    SourceEmpty,
    SourceError,
    SourceRegistry,
    SourceShrunk,
    SourceUnreachable,
    UnknownSource,
    UnreadableRows,
)
from assets.sources.rows import read_rows

__all__ = [
    "ENVIRONMENT",
    "DuplicateSource",
    "Source",
    "SourceEmpty",
    "SourceError",
    "SourceRegistry",
    "SourceShrunk",
    "SourceUnreachable",
    "UnknownSource",
    "UnreadableRows",
    "list_source",
    "quick_listing",
    "quick_read",
    "read_source",
]

_FEW_FILES = 256
_FEW_BYTES = 64 << 20


def list_source(spark: SparkSession, source: Source) -> pa.Table:
    """Lists the files of a source without opening one.

    Returns:
        uri (string), file_size_bytes (int64) and file_modified_at (UTC, µs), by uri.

    Raises:
        SourceUnreachable: When it can't be listed in full; never an empty listing instead.
        SourceEmpty: When it holds no document.
    """
    return list_environment() if source.kind == ENVIRONMENT else list_files(spark, source)


def quick_listing(source: Source) -> pa.Table | None:
    """`list_source` without Spark, for a sensor; None where the source is on another file system."""
    if source.kind == ENVIRONMENT:
        return list_environment()
    return local_listing(source) if source.local_root else None


def quick_read(source: Source, files: pa.Table) -> pa.Table | None:
    """`read_source` without Spark, of a few files; None where they are many, elsewhere, or files of rows."""
    if source.kind == ENVIRONMENT:
        return read_environment(files)
    few = files.num_rows <= _FEW_FILES and (pc.sum(files["file_size_bytes"]).as_py() or 0) <= _FEW_BYTES
    return read_local(files) if few and source.kind == "files" and source.local_root else None


def read_source(spark: SparkSession, source: Source, files: pa.Table) -> DataFrame:
    """Reads some files of a source's listing.

    Returns:
        A frame with the schema `assets.sources.fetched.FETCHED`: one row a file, or for a source of rows
        one row a row, whose uri is its file's, "#" and its id.

    Raises:
        UnreadableRows: When a file of rows lacks a column that the source names.
    """
    if source.kind == ENVIRONMENT:
        return spark.createDataFrame(read_environment(files))
    return (read_rows if source.kind == "rows" else read_files)(spark, source, files)
