"""Lists and reads a source of any kind: in this process if that is quick, else by Spark."""

import contextlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from assets.parsing.sandbox import ParserLimits
from assets.sources.environment_corpus import list_environment_corpus, read_environment_corpus
from assets.sources.hadoop_files import list_hadoop_files, read_hadoop_files
from assets.sources.local_files import list_local_files, read_local_files
from assets.sources.source_config import PYTHON_ENVIRONMENT, Source, SourceUnreachable
from assets.sources.tabular_files import read_tabular_files

_FEW_FILES = 256
_FEW_BYTES = 64 << 20


def list_local_source(source: Source) -> pa.Table | None:
    """Returns what `list_source` returns, without Spark; None for a source on another file system."""
    if source.kind == PYTHON_ENVIRONMENT:
        return list_environment_corpus()
    return list_local_files(source) if source.local_root else None


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
