"""Files of this machine, one document per file: listed and read by Python.

They do not go through Hadoop, which follows a link to its own folder some forty times, can not open a name
with a colon, loses names in a locale other than UTF-8, and can not say why a file was not read.

Files and folders whose names begin with `.` or `_` are hidden, as in Spark.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from assets.parsing.blocks import ExtractionError
from assets.parsing.sandbox import ParserLimits
from assets.sources.file_contents import source_file_contents
from assets.sources.source_config import (
    SYSTEM_FOLDER_ERROR,
    Source,
    SourceEmpty,
    SourceUnreachable,
    compile_source_glob,
    is_system_source,
)
from assets.sources.source_schemas import (
    SOURCE_CONTENT_SCHEMA,
    ListedFile,
    SourceContent,
    listing_of_files,
    path_to_source_uri,
    source_content_batches,
    source_uri_to_path,
)
from common.counts import counted
from common.progress import Progress

MAX_SOURCE_FILE_BYTES = 256 * 1024 * 1024
"""A larger file is quarantined unread: Arrow and Spark hold a document as one value, in several copies."""

_HELD_BYTES = 256 * 1024 * 1024
_COUNTED_FILES = 16
"""Files between two reports of progress."""


def list_local_files(source: Source) -> pa.Table:
    """Lists the files of a source on this machine without opening one.

    Links to folders are followed after all real folders, and only to folders that were not listed yet. So
    every file has one address, and a loop of links ends. A link that is dangling or leads out of the source's
    folder is listed, and reported when it is read.

    Returns:
        A table with the schema `SOURCE_LISTING_SCHEMA`, sorted by uri.

    Raises:
        SourceUnreachable: The root, or a folder under it, is missing or can not be listed, or the root is the
            system's.
        SourceEmpty: There is no file, or none that the glob matches.
    """
    root = Path(source.location)
    if is_system_source(source.location):
        raise SourceUnreachable(f"source {source.name}: {SYSTEM_FOLDER_ERROR}")
    try:
        if not stat.S_ISDIR(root.stat().st_mode):
            return source_listing(source, [_listed(source.location, root.stat())], 1)
        matches = compile_source_glob(source.glob).fullmatch
        prefix = source.location.rstrip("/") + "/"
        files, seen = [], 0
        for item in _walk(source.location):
            seen += 1
            if matches(item.path.removeprefix(prefix)):
                files.append(_listed(item.path, _stat(item)))
    except OSError as error:
        raise SourceUnreachable(
            f"source {source.name}: can not list {error.filename or root} ({error.strerror}): "
            "check that it is there and readable; nothing was changed"
        ) from error
    return source_listing(source, files, seen)


def _walk(root: str) -> Iterator[os.DirEntry[str]]:
    """Yields every visible file under a folder; enters each folder once, however many links lead to it."""
    folders, links, seen = deque([root]), deque[str](), set[tuple[int, int]]()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        if is_system_source(folder):
            continue  # of a source that is the whole machine
        try:
            identity = os.stat(folder)  # noqa: PTH116 - a Path per entry triples the time of a large listing
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
            if _is_folder(item) and not (item.is_symlink() and leads_outside_source(item.path, root)):
                (links if item.is_symlink() else folders).append(item.path)
            else:
                yield item


def _is_folder(item: os.DirEntry[str]) -> bool:
    """Whether the entry is a folder or a link to one. A link to itself is not."""
    try:
        return item.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _stat(item: os.DirEntry[str]) -> os.stat_result:
    """Returns the state of the file, or of the link itself if it is dangling."""
    try:
        return item.stat()
    except OSError:
        return item.stat(follow_symlinks=False)


def _listed(path: str, state: os.stat_result) -> tuple[str, int, int]:
    return path_to_source_uri(path), state.st_size, state.st_mtime_ns // 1000


def source_listing(source: Source, files: list[tuple[str, int, int]], seen: int) -> pa.Table:
    """Returns files as a table with the schema `SOURCE_LISTING_SCHEMA`, sorted by uri.

    Args:
        source: The source that was listed.
        files: URI, size in bytes and time of change in µs of each file that the glob matches.
        seen: The number of files under the location, whether or not they match.

    Raises:
        SourceEmpty: No file matches.
    """
    if not files:
        if seen:
            raise SourceEmpty(
                f"source {source.name}: of {counted(seen, 'file')} in {source.location} none matches the "
                f"glob {source.glob!r}: patterns match the whole relative path, such as **/*.md"
            )
        raise SourceEmpty(
            f"source {source.name}: no documents in {source.location} (names that begin with . or _ are "
            f"hidden). To remove the documents that came from it: headwater source remove {source.name}"
        )
    return listing_of_files(files)


def leads_outside_source(path: str, root: str) -> bool:
    """Returns whether a path, with links resolved, lies outside a source's root."""
    real, top = os.path.realpath(path), os.path.realpath(root)
    return real != top and not real.startswith(top.rstrip("/") + "/")


def read_local_files(files: pa.Table, root: str, limits: ParserLimits) -> pa.Table | None:
    """Reads listed files of this machine in this process.

    Args:
        files: Rows of a source's listing.
        root: The source's location; a link that leads out of it is not followed.
        limits: The bounds on opening archives, messages and compressed files.

    Returns:
        A table with the schema `SOURCE_CONTENT_SCHEMA`: one row per file, and one per file inside an archive
        or message. A file that vanished, can not be read, is larger than `MAX_SOURCE_FILE_BYTES` or lies
        outside the root is a row with an error. None if archives unpack to more than this process should
        hold.
    """
    batches, held_bytes = list[pa.RecordBatch](), 0
    progress = Progress("files read", files.num_rows)

    def counted() -> Iterator[pa.RecordBatch]:
        for listed in files.to_batches(_COUNTED_FILES):
            yield listed
            progress.advance(listed.num_rows)

    for batch in read_local_file_batches(counted(), root, limits):
        batches.append(batch)
        held_bytes += batch.nbytes
        if held_bytes > _HELD_BYTES:
            return None
    return pa.Table.from_batches(batches, SOURCE_CONTENT_SCHEMA)


def read_local_file_batches(
    batches: Iterable[pa.RecordBatch], root: str, limits: ParserLimits
) -> Iterator[pa.RecordBatch]:
    """`read_local_files` for batches of a listing, for `DataFrame.mapInArrow`."""
    files = (ListedFile(**row) for batch in batches for row in batch.to_pylist())
    return source_content_batches(
        document for file in files for document in _local_contents(file, root, limits)
    )


def _local_contents(file: ListedFile, root: str, limits: ParserLimits) -> Iterator[SourceContent]:
    try:
        body = _read_regular_file(source_uri_to_path(file.uri), root)
    except ExtractionError as refused:
        yield SourceContent.failed(file, f"{refused.expectation}: {refused.reason}")
        return
    except OSError as error:
        yield SourceContent.failed(file, f"unreadable: {error.strerror}")
        return
    yield from source_file_contents(file, body, limits)


def source_too_large_error(size_bytes: int) -> str:
    """Returns the reason why a file above `MAX_SOURCE_FILE_BYTES` was not read."""
    return f"It has {size_bytes:,} bytes, more than the {MAX_SOURCE_FILE_BYTES:,} that are read."


def _read_regular_file(path: str, root: str) -> bytes:
    """Returns the bytes of a regular file; anything else is an error, and a pipe is not waited for."""
    real = os.path.realpath(path)
    if leads_outside_source(real, root):
        raise ExtractionError("link", "It is a link that leads out of the source's folder.")
    # The open file is checked, not the path, which could be replaced between a check and the open.
    handle = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(handle, "rb", closefd=True) as file:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            raise OSError(0, "not a regular file")
        if state.st_size > MAX_SOURCE_FILE_BYTES:
            raise ExtractionError("oversize", source_too_large_error(state.st_size))
        return file.read()
