"""Folders of files, a document each: on this machine through Python, elsewhere through Hadoop's file systems.

Local files don't go through Hadoop because it follows a link to its own folder some forty times, can't open a
name with a colon, loses names in a locale that isn't UTF-8, and can't say why a file was not read.

Either way a file or folder whose name begins with `.` or `_` is hidden, as Spark has it.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from assets.lake.delta import hadoop_literal
from assets.parsing.content_type import EML, MSG, media_type
from assets.parsing.formats.mail import attachments
from assets.sources.fetched import (
    FETCHED,
    FETCHED_DDL,
    LISTING,
    WENT_AWAY,
    fetched_row,
    file_path,
    file_uri,
)
from assets.sources.registry import Source, SourceEmpty, SourceUnreachable, glob_pattern

MAX_FILE_BYTES = 256 * 1024 * 1024
"""A larger file is quarantined unread: Arrow and Spark hold a document as one value, several times over."""

_BATCH_BYTES = 16 * 1024 * 1024
_TASK_BYTES = 128 * 1024 * 1024
_TASK_FILES = 2000


def list_files(spark: SparkSession, source: Source) -> pa.Table:
    """Lists a source's files without opening one.

    Returns:
        A table with the schema `LISTING`, by uri.

    Raises:
        SourceUnreachable: When the root, or a folder under it, is missing or can not be listed.
        SourceEmpty: When there is no file, or none that the glob matches.
    """
    return local_listing(source) if source.local_root else _hadoop_listing(spark, source)


def local_listing(source: Source) -> pa.Table:
    """`list_files` for a source on this machine, without Spark; quick enough for a sensor.

    A link to a folder is followed after all real folders, and only to one that was not listed yet, so every
    file has one address and a loop ends. A link to nothing is listed, to be reported when it is read.
    """
    root = Path(source.location)
    try:
        if not stat.S_ISDIR(root.stat().st_mode):
            return _listing(source, [_entry(source.location, root.stat())], 1)
        matches = glob_pattern(source.glob).fullmatch
        prefix = source.location.rstrip("/") + "/"
        entries, seen = [], 0
        for item in _walk(source.location):
            seen += 1
            if matches(item.path.removeprefix(prefix)):
                entries.append(_entry(item.path, _stat(item)))
    except OSError as error:
        raise SourceUnreachable(
            f"source {source.name}: can not list {error.filename or root} ({error.strerror}): "
            "check that it is there and readable; nothing was changed"
        ) from error
    return _listing(source, entries, seen)


def _walk(root: str) -> Iterator[os.DirEntry[str]]:
    """Every visible file under a folder; each folder once, however many links lead to it."""
    folders, links, seen = deque([root]), deque[str](), set[tuple[int, int]]()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            identity = os.stat(folder)  # noqa: PTH116 - a Path an entry triples the time of a big listing
            if (identity.st_dev, identity.st_ino) in seen:
                continue
            seen.add((identity.st_dev, identity.st_ino))
            with os.scandir(folder) as found:
                items = sorted(found, key=lambda item: item.name)
        except FileNotFoundError:
            if folder == root:
                raise
            continue  # removed since its parent was listed
        for item in items:
            if item.name.startswith((".", "_")):
                continue
            if _is_folder(item):
                (links if item.is_symlink() else folders).append(item.path)
            else:
                yield item


def _is_folder(item: os.DirEntry[str]) -> bool:
    """Whether it is a folder or leads to one; a link to itself does not."""
    try:
        return item.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _stat(item: os.DirEntry[str]) -> os.stat_result:
    """A file's state; a dangling link's own."""
    try:
        return item.stat()
    except OSError:
        return item.stat(follow_symlinks=False)


def _entry(path: str, state: os.stat_result) -> tuple[str, int, int]:
    return file_uri(path), state.st_size, state.st_mtime_ns // 1000


def _listing(source: Source, entries: list[tuple[str, int, int]], seen: int) -> pa.Table:
    if not entries:
        if seen:
            raise SourceEmpty(
                f"source {source.name}: none of the {seen} files in {source.location} matches the glob "
                f"{source.glob!r}: patterns match the whole relative path, such as **/*.md"
            )
        raise SourceEmpty(
            f"source {source.name}: no documents in {source.location} (names that begin with . or _ are "
            f"hidden). To take out what came from it: headwater source remove {source.name}"
        )
    columns = zip(*sorted(entries), strict=True)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, LISTING, strict=True)], schema=LISTING)


def _hadoop_listing(spark: SparkSession, source: Source) -> pa.Table:
    try:
        root = _qualified(spark, source.location)
        # Only `content` makes this reader open a file; the listing itself is one call, and parallel.
        found = _binary_files(spark, root).select("path", "length", "modificationTime").toArrow()
    except (Py4JJavaError, PySparkException) as error:
        reason = str(getattr(error, "java_exception", None) or error).splitlines()[0]
        raise SourceUnreachable(
            f"source {source.name}: can not list {source.location} ({reason}): check the address, the "
            "credentials and that Spark has the file system's jar; nothing was changed"
        ) from error
    matches = glob_pattern(source.glob).fullmatch
    paths = found["path"].to_pylist()
    times = found["modificationTime"].cast(pa.int64()).to_pylist()
    rows = zip(paths, found["length"].to_pylist(), times, strict=True)
    return _listing(
        source,
        [
            (_encoded(path), size, time)
            for path, size, time in rows
            if path == root or matches(path.removeprefix(root).lstrip("/"))
        ],
        len(paths),
    )


def _qualified(spark: SparkSession, location: str) -> str:
    """The location as Hadoop spells it in its listings; fails where nothing is there."""
    jvm = spark.sparkContext._jvm
    assert jvm is not None  # noqa: S101 - only without a running session
    path = jvm.org.apache.hadoop.fs.Path(location)
    system = path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf())
    return str(system.getFileStatus(path).getPath().toString())


def _binary_files(spark: SparkSession, root: str) -> DataFrame:
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", True)
    # A file that goes away or fails while it is read yields no row, which read_files reports.
    reader = reader.option("ignoreMissingFiles", True).option("ignoreCorruptFiles", True)
    return reader.load(hadoop_literal(root))


def _encoded(path: str) -> str:
    """A Hadoop path, which is not percent-encoded, as a URI."""
    scheme, _, rest = path.partition("://")
    authority, slash, inside = rest.partition("/")
    return f"{scheme}://{authority}{slash}{quote(inside)}"


def read_files(spark: SparkSession, source: Source, files: pa.Table) -> DataFrame:
    """Reads files, distributed: bytes, their hash and their content type.

    Args:
        spark: The session.
        source: Where the files are.
        files: The rows of its listing that are to be read.

    Returns:
        A frame with the schema `FETCHED`, one row a file. One that went away, can't be read or is larger
        than `MAX_FILE_BYTES` is a row with an error.
    """
    total = pc.sum(files["file_size_bytes"]).as_py() or 0
    tasks = max(spark.sparkContext.defaultParallelism, total // _TASK_BYTES, files.num_rows // _TASK_FILES)
    wanted = spark.createDataFrame(files).repartition(min(tasks, max(1, files.num_rows)))
    if source.local_root:
        return wanted.mapInArrow(_read_local, FETCHED_DDL)
    # Times narrow what is opened to files as new as the wanted ones; the join then picks. A list of paths
    # would put each of them into the query plan, and fail as a whole where one went away.
    newest, oldest = pc.max(files["file_modified_at"]).as_py(), pc.min(files["file_modified_at"]).as_py()
    contents = (
        _binary_files(spark, _qualified(spark, source.location))
        .where(F.col("modificationTime").between(F.lit(oldest), F.lit(newest)))
        .where(F.col("length") <= MAX_FILE_BYTES)
        .select("path", "content")
    )
    paths = F.expr("url_decode(replace(uri, '+', '%2B'))")
    found = wanted.withColumn("path", paths).join(contents, "path", "left")
    return found.select(*LISTING.names, "content").mapInArrow(_describe, FETCHED_DDL)


def read_local(files: pa.Table) -> pa.Table:
    """`read_files` of files of this machine, in this process."""
    return pa.Table.from_batches(_read_local(files.to_batches()), FETCHED)


def _read_local(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Spark worker: opens each listed file."""
    rows: list[dict[str, Any]] = []
    held = 0
    for batch in batches:
        for entry in batch.to_pylist():
            try:
                body = _content(file_path(entry["uri"]))
                rows += documents_of(entry, body)
                held += len(body)
            except OSError as error:
                rows.append(fetched_row(entry, error=f"unreadable: {error.strerror}"))
            if held >= _BATCH_BYTES:
                yield pa.RecordBatch.from_pylist(rows, schema=FETCHED)
                rows, held = [], 0
    if rows:
        yield pa.RecordBatch.from_pylist(rows, schema=FETCHED)


def documents_of(entry: dict[str, Any], body: bytes) -> Iterator[dict[str, Any]]:
    """A file's row, and one for each file attached to it where it is a message: its uri, "#" and the name."""
    kind = media_type(body, entry["uri"])
    yield fetched_row(entry, body, media_type=kind)
    if kind not in (EML, MSG):
        return
    try:
        for name, content in attachments(body, kind):
            uri = f"{entry['uri']}#{quote(name)}"
            yield fetched_row(entry | {"uri": uri}, content, media_type=media_type(content, name))
    except Exception:  # noqa: S110 - a message that is broken is quarantined, with the reason, where it is parsed
        pass


def _content(path: str) -> bytes:
    """The bytes of a regular file; anything else is an error, and a pipe is not waited for."""
    # What is opened is what is checked: a path could be swapped between a look and an open.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb", closefd=True) as file:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            raise OSError(0, "not a regular file")
        if state.st_size > MAX_FILE_BYTES:
            raise OSError(0, f"{state.st_size} bytes, more than the {MAX_FILE_BYTES} that are read")
        return file.read()


def _describe(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Spark worker: hash and content type of what Hadoop read."""
    for batch in batches:
        rows: list[dict[str, Any]] = []
        for row in batch.to_pylist():
            body = row.pop("content")
            if body is not None:
                rows += documents_of(row, body)
            elif row["file_size_bytes"] > MAX_FILE_BYTES:
                size = row["file_size_bytes"]
                reason = f"{size} bytes, more than the {MAX_FILE_BYTES} that are read"
                rows.append(fetched_row(row, error=f"unreadable: {reason}"))
            else:
                rows.append(fetched_row(row, error=WENT_AWAY))
        yield pa.RecordBatch.from_pylist(rows, schema=FETCHED)
