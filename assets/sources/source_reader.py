"""Lists and reads a source of any kind: in this process if that is quick, else by Spark."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from assets.parsing.sandbox import ParserLimits
from assets.sources.connectors.git_repository import preview_git_repository, read_git_repository
from assets.sources.connectors.reading import ConnectorPreview, ConnectorReading
from assets.sources.connectors.sitemap import preview_sitemap, read_sitemap
from assets.sources.connectors.sql_query import preview_sql_query, read_sql_query
from assets.sources.environment_corpus import list_environment_corpus, read_environment_corpus
from assets.sources.hadoop_files import list_hadoop_files, read_hadoop_files
from assets.sources.local_files import list_local_files, read_local_files
from assets.sources.source_config import CONNECTED_KINDS, PYTHON_ENVIRONMENT, Source, SourceUnreachable
from assets.sources.source_schemas import UNREACHABLE, source_listing_digest
from assets.sources.tabular_files import read_tabular_files

_FEW_FILES = 256
_FEW_BYTES = 64 << 20


def list_local_source(source: Source) -> pa.Table | None:
    """Returns what `list_source` returns, without Spark; None for a source on another file system.

    It is None too for one that a connector reads, which lists and reads at once.
    """
    if source.kind in CONNECTED_KINDS:
        return None
    if source.kind == PYTHON_ENVIRONMENT:
        return list_environment_corpus()
    return list_local_files(source) if source.local_root else None


def source_state_digest(source: Source, listing: pa.Table) -> str:
    """Returns the SHA-256 (hex) of a source's settings and its listing, which changes when either does."""
    return hashlib.sha256(f"{source.digest}={source_listing_digest(listing)}".encode()).hexdigest()


def list_source(spark: SparkSession, source: Source) -> pa.Table:
    """Lists the files of a source without opening one.

    Returns:
        A table with the schema `SOURCE_LISTING_SCHEMA`, sorted by uri.

    Raises:
        SourceUnreachable: The source can not be listed completely.
        SourceEmpty: It has no documents.
    """
    listing = list_local_source(source)
    return list_hadoop_files(spark, source) if listing is None else listing


def read_local_source(source: Source, files: pa.Table, limits: ParserLimits) -> pa.Table | None:
    """Reads a few listed files without Spark; `limits` bound how archives and messages are opened.

    Returns:
        A table with the schema `SOURCE_CONTENT_SCHEMA`; None where `read_source` has to read the files,
        because they are many, large, tabular or on another file system.
    """
    if source.kind == PYTHON_ENVIRONMENT:
        return read_environment_corpus(files)
    few = files.num_rows <= _FEW_FILES and (pc.sum(files["file_size_bytes"]).as_py() or 0) <= _FEW_BYTES
    if few and source.kind == "files" and source.local_root:
        return read_local_files(files, source.location, limits)
    return None


def read_source(spark: SparkSession, source: Source, files: pa.Table, limits: ParserLimits) -> DataFrame:
    """Reads listed files by Spark; `limits` bound how archives and messages are opened.

    `read_local_source` reads those of the Python environment.

    Returns:
        A frame with the schema `SOURCE_CONTENT_SCHEMA`: one row per file, or for a source of rows one per row
        of a file, whose uri is the file's, `#` and the row's id.

    Raises:
        UnreadableTabularFile: A tabular file lacks a column that the source names.
        SourceUnreachable: Spark could not open the files. Most faults only show when the frame is evaluated.
    """
    with spark_errors_of_source(source):
        if source.kind == "rows":
            return read_tabular_files(spark, source, files)
        return read_hadoop_files(spark, source, files, limits)


def read_connected_source(
    source: Source,
    state: pa.Table,
    limits: ParserLimits,
    cache_dir: Path,
    scratch: Path,
    read_all: bool = False,
) -> ConnectorReading:
    """Reads what is new in a source that a connector reads.

    Args:
        source: The source, of a kind in `CONNECTED_KINDS`.
        state: The lake's newest revisions of its documents, with the columns of `STATE`.
        limits: The bounds on opening archives and messages.
        cache_dir: The local folder for cached files.
        scratch: An empty folder for what is read; it is deleted once that is committed.
        read_all: Whether documents that have not changed are read too.

    Raises:
        SourceUnreachable: The source can not be read.
        SourceEmpty: It has no documents.
    """
    standing, failed = _standing(state)
    if source.sql is not None:
        return read_sql_query(source, standing, scratch, read_all)
    if source.sitemap is not None:
        return read_sitemap(source, standing, limits, scratch, read_all)
    return read_git_repository(source, standing, failed, limits, cache_dir, scratch, read_all)


def preview_connected_source(source: Source, state: pa.Table) -> ConnectorPreview:
    """Returns what `read_connected_source` would read, and writes nothing.

    Raises:
        SourceUnreachable: The source can not be read.
        SourceEmpty: It has no documents.
    """
    standing, failed = _standing(state)
    if source.sql is not None:
        return preview_sql_query(source, standing)
    if source.sitemap is not None:
        return preview_sitemap(source, standing)
    return preview_git_repository(source, standing, failed)


def _standing(state: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Returns the documents that are there, and those among them that could not be reached the last time."""
    standing = state.filter(pc.invert(state["deleted"]))
    unreached = pc.starts_with(pc.fill_null(standing["error"], ""), UNREACHABLE)
    return standing, standing.filter(unreached)


@contextlib.contextmanager
def spark_errors_of_source(source: Source) -> Iterator[None]:
    """Raises an error of Spark, while it reads a source, as `SourceUnreachable`."""
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        reason = str(getattr(error, "java_exception", None) or error).splitlines()[0]
        raise SourceUnreachable(
            f"source {source.name}: can not read {source.location} ({reason}); nothing was changed"
        ) from error
