"""Files of any file system that Spark knows, one document per file: listed through Hadoop, read by Spark.

Files of this machine are listed and opened by Python also here, in Spark's workers.
"""

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from assets.lake.delta import delta_hadoop_path
from assets.parsing.sandbox import ParserLimits
from assets.sources.file_contents import source_file_contents
from assets.sources.local_files import (
    MAX_SOURCE_FILE_BYTES,
    read_local_file_batches,
    source_listing,
    source_too_large_error,
)
from assets.sources.source_config import Source, SourceUnreachable, compile_source_glob
from assets.sources.source_schemas import (
    SOURCE_CONTENT_SCHEMA,
    SOURCE_LISTING_SCHEMA,
    VANISHED_FILE_ERROR,
    ListedFile,
    SourceContent,
    source_content_batches,
)

_TASK_BYTES = 128 * 1024 * 1024
_TASK_FILES = 2000


def list_hadoop_files(spark: SparkSession, source: Source) -> pa.Table:
    """Lists the files of a source through Hadoop without opening one.

    Returns:
        A table with the schema `SOURCE_LISTING_SCHEMA`, sorted by uri.

    Raises:
        SourceUnreachable: The root, or a folder under it, is missing or can not be listed.
        SourceEmpty: There is no file, or none that the glob matches.
    """
    try:
        root = _qualified(spark, source.location)
        # This reader opens a file only for its `content`; the listing itself is one call, and parallel.
        found = _binary_files(spark, root).select("path", "length", "modificationTime").toArrow()
    except (Py4JJavaError, PySparkException) as error:
        reason = str(getattr(error, "java_exception", None) or error).splitlines()[0]
        raise SourceUnreachable(
            f"source {source.name}: can not list {source.location} ({reason}): check the address, the "
            "credentials and that Spark has the file system's jar; nothing was changed"
        ) from error
    matches = compile_source_glob(source.glob).fullmatch
    paths = found["path"].to_pylist()
    times_us = found["modificationTime"].cast(pa.int64()).to_pylist()
    rows = zip(paths, found["length"].to_pylist(), times_us, strict=True)
    files = [
        (_encoded(path), size_bytes, time_us)
        for path, size_bytes, time_us in rows
        if path == root or matches(path.removeprefix(root).lstrip("/"))
    ]
    return source_listing(source, files, len(paths))


def _qualified(spark: SparkSession, location: str) -> str:
    """Returns the location as Hadoop spells it in its listings; raises where nothing exists."""
    jvm = spark.sparkContext._jvm
    assert jvm is not None  # noqa: S101 - only without a running session
    path = jvm.org.apache.hadoop.fs.Path(location)
    system = path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf())
    return str(system.getFileStatus(path).getPath().toString())


def _binary_files(spark: SparkSession, root: str) -> DataFrame:
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", True)
    # A file that vanishes or fails while it is read yields no row; `read_hadoop_files` reports it.
    reader = reader.option("ignoreMissingFiles", True).option("ignoreCorruptFiles", True)
    return reader.load(delta_hadoop_path(root))


def _encoded(path: str) -> str:
    """Returns a Hadoop path, which is not percent-encoded, as a URI."""
    scheme, _, rest = path.partition("://")
    authority, slash, inside = rest.partition("/")
    return f"{scheme}://{authority}{slash}{quote(inside)}"


def read_hadoop_files(
    spark: SparkSession, source: Source, files: pa.Table, limits: ParserLimits
) -> DataFrame:
    """Reads listed files in Spark's workers: their bytes, hashes and media types.

    Args:
        spark: The session.
        source: The source that the files are of.
        files: The rows of its listing to read.
        limits: The bounds on taking a message's attachments out of it.

    Returns:
        A frame with the schema `SOURCE_CONTENT_SCHEMA`, with the rows that `read_local_files` returns.
    """
    schema = from_arrow_schema(SOURCE_CONTENT_SCHEMA)
    total_bytes = pc.sum(files["file_size_bytes"]).as_py() or 0
    tasks = max(
        spark.sparkContext.defaultParallelism, total_bytes // _TASK_BYTES, files.num_rows // _TASK_FILES
    )
    listed = spark.createDataFrame(files).repartition(min(tasks, max(1, files.num_rows)))
    if source.local_root:
        root = source.location
        return listed.mapInArrow(lambda batches: read_local_file_batches(batches, root, limits), schema)
    # The filter on times opens no older or newer files than the listed ones, and the join selects among them.
    # A list of paths would put each of them into the query plan, and fail as a whole if one vanished.
    newest, oldest = pc.max(files["file_modified_at"]).as_py(), pc.min(files["file_modified_at"]).as_py()
    contents = (
        _binary_files(spark, _qualified(spark, source.location))
        .where(F.col("modificationTime").between(F.lit(oldest), F.lit(newest)))
        .where(F.col("length") <= MAX_SOURCE_FILE_BYTES)
        .select("path", "content")
    )
    paths = F.expr("url_decode(replace(uri, '+', '%2B'))")
    found = listed.withColumn("path", paths).join(contents, "path", "left")
    return found.select(*SOURCE_LISTING_SCHEMA.names, "content").mapInArrow(
        lambda batches: _content_batches(batches, limits), schema
    )


def _content_batches(batches: Iterable[pa.RecordBatch], limits: ParserLimits) -> Iterator[pa.RecordBatch]:
    """Runs in Spark's workers: makes documents of the bytes that Hadoop read."""
    rows = (row for batch in batches for row in batch.to_pylist())
    return source_content_batches(
        document for row in rows for document in _contents(row.pop("content"), row, limits)
    )


def _contents(body: bytes | None, listed: dict[str, Any], limits: ParserLimits) -> Iterator[SourceContent]:
    file = ListedFile(**listed)
    if body is not None:
        yield from source_file_contents(file, body, limits)
    elif file.file_size_bytes is not None and file.file_size_bytes > MAX_SOURCE_FILE_BYTES:
        yield SourceContent.failed(file, f"oversize: {source_too_large_error(file.file_size_bytes)}")
    else:
        yield SourceContent.failed(file, VANISHED_FILE_ERROR)
