"""Makes documents of a file's bytes: the file itself, or what is inside an archive or a message."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from assets.parsing.archives import ContainerMember
from assets.parsing.blocks import ExtractionError
from assets.parsing.compression import DecompressingReader
from assets.parsing.containers import CONTAINERS, MAIL
from assets.parsing.content_type import (
    CONTENT_CODINGS,
    UNKNOWN_BYTES,
    detect_media_type,
    with_content_coding,
)
from assets.parsing.formats.zip_package import MAX_UNPACK_RATIO
from assets.parsing.sandbox import ParserLimits, sandboxed_parser
from assets.sources.source_schemas import ListedFile, SourceContent
from common.counts import counted

_MIN_LIMIT_BYTES = 64 << 20
_COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")


def source_file_contents(
    file: ListedFile, body: bytes, limits: ParserLimits, declared: str | None = None
) -> Iterator[SourceContent]:
    """Yields the documents of a file, each with an address of its own.

    A compressed file is one document, at the file's uri and with its bytes as they came. Each file inside an
    archive or attached to a message is a document at the file's uri, `#` and its name inside; `!/` leads into
    an archive inside an archive. An archive itself comes last: it is no document, but its bytes are kept.
    What can not be read inside a file is a row with an error.

    Args:
        file: The file.
        body: Its bytes.
        limits: The bounds on opening archives and messages.
        declared: The media type that its server gives for it.
    """
    media_type = detect_media_type(body, file.uri, declared)
    if media_type not in CONTAINERS:
        yield SourceContent.of(file, body, media_type)
        return
    coding = CONTENT_CODINGS[media_type][1] if media_type in CONTENT_CODINGS else None
    is_document = media_type in MAIL
    if is_document:
        yield SourceContent.of(file, body, media_type)
    names, error = dict[str, int](), None
    try:
        for member in sandboxed_parser(limits).container_members(body, media_type):
            if not member.name:
                media_type = with_content_coding(_member_media_type(member, file.uri), coding)
                if member.content is not None:
                    is_document = True
                    yield SourceContent.of(file, body, media_type)
                continue
            uri = f"{file.uri}#{_unused(member.name, names)}"
            if member.content is None:
                yield SourceContent.failed(file, member.error or "unreadable: It can not be read.", uri)
            else:
                yield SourceContent.of(file, member.content, _member_media_type(member, member.name), uri=uri)
    except ExtractionError as failed:
        error = f"{failed.expectation}: {failed.reason}"
    if not is_document:
        if error is None and not names:
            error = "empty: The archive holds no files."
        yield SourceContent.of(file, body, media_type, error=error)
    elif error is not None:
        yield SourceContent.failed(file, error, f"{file.uri}#!attachments")


def compressed_file_error(path: Path, coding: str) -> str | None:
    """Returns why a compressed file of rows can not be read whole, as "expectation: reason"; None if it can.

    It is decompressed once, and none of it is held. Spark would leave out the rows after a damage, and say
    nothing.
    """
    try:
        with path.open("rb") as file:
            limit_bytes = max(_MIN_LIMIT_BYTES, MAX_UNPACK_RATIO * path.stat().st_size)
            reader = DecompressingReader(file, coding)
            if reader.count(limit_bytes) > limit_bytes:
                return (
                    f"oversize: It decompresses to more than {MAX_UNPACK_RATIO} times its size: if it is no "
                    "bomb, decompress it and add that."
                )
    except ExtractionError as error:
        return f"{error.expectation}: {error.reason}"
    except OSError as error:
        return f"unreadable: {error.strerror}"
    if reader.trailing_bytes:
        return (
            f"unreadable: {counted(reader.trailing_bytes, 'byte')} after the {coding} data can not be "
            "decompressed: get the file again, or cut them off."
        )
    return None


def _member_media_type(member: ContainerMember, name: str) -> str:
    if member.content is None:
        return member.media_type or UNKNOWN_BYTES
    path = PurePosixPath(name)
    compressed = path.suffix.lower() in _COMPRESSED_SUFFIXES
    return detect_media_type(member.content, path.stem if compressed else name, member.media_type)


def _unused(name: str, seen: dict[str, int]) -> str:
    """Returns a name, with a number added where an earlier file has it, and remembers both.

    Args:
        name: The name.
        seen: The names so far, each with the last number added to it: many files of one name take no longer
            than as many of different names.
    """
    found, number = name, seen.get(name, 1)
    while found in seen:
        number += 1
        found = f"{name}%20{number}"
    seen[name] = number
    seen.setdefault(found, 1)
    return found
