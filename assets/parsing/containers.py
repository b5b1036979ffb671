"""Finds the documents inside archives, messages and compressed files, however they are nested."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import quote

from assets.parsing.archives import ContainerMember, archive_members
from assets.parsing.blocks import ExtractionError
from assets.parsing.compression import DecompressingReader, decompress
from assets.parsing.content_type import (
    ARCHIVES,
    CONTENT_CODINGS,
    EML,
    MBOX,
    MSG,
    TAR,
    content_coding,
    signature_media_type,
)
from assets.parsing.formats.mail.mailbox import mailbox_messages
from assets.parsing.formats.mail.message import mail_attachments
from assets.parsing.formats.zip_package import unpacked_bytes_limit
from common.counts import counted

MAX_MEMBERS = 10_000
"""The most files inside one file that are read. As many more are named in the quarantine, then their rest."""
MAX_ARCHIVE_DEPTH = 2
"""The most archives inside one another that are opened: an archive in an archive."""
_MAX_MESSAGE_DEPTH = 5
MAIL = (EML, MSG)
CONTAINERS = (*ARCHIVES, *CONTENT_CODINGS, *MAIL)
"""The media types of files that may hold other files."""


@dataclass(slots=True)
class _Budget:
    """What may still be unpacked of one file, in all its layers."""

    bytes_left: int
    max_member_bytes: int


def expand_container(body: bytes, media_type: str, max_member_bytes: int) -> Iterator[ContainerMember]:
    """Yields the files inside a file, those of archives and messages inside it included.

    Their names are percent-encoded, so that `!` is in none but those of what is no file: `!rest`, the files
    beyond all limits, `!trailing`, bytes after compressed data, and `!attachments`, those of a message.

    The content of a compressed file comes under the empty name; a compressed TAR archive or mailbox comes
    first as a member with that name and type, but without content. What can not be read comes as a member
    with an error.

    Args:
        body: The file.
        media_type: One of `CONTAINERS`, or any type with a content coding.
        max_member_bytes: The most bytes of one member.

    Raises:
        ExtractionError: The file can not be opened, or is damaged; members before the damage have been
            yielded then.
    """
    coding = content_coding(media_type)
    kind = next((name for name, (_, of) in CONTENT_CODINGS.items() if of == coding), media_type)
    budget = _Budget(unpacked_bytes_limit(len(body)), max_member_bytes)
    for place, member in enumerate(_expanded(body, kind, "", budget, 1, 1)):
        if place < MAX_MEMBERS:
            yield member
            continue
        if place == 2 * MAX_MEMBERS:
            reason = f"Only {place:,} files inside are read or named: divide it, or unpack it into a folder."
            yield ContainerMember("!rest", error=f"too_many_members: {reason}")
            return
        reason = f"It is not among the first {MAX_MEMBERS:,} files inside: add it as a file of its own."
        yield replace(member, content=None, error=f"too_many_members: {reason}")


def _expanded(
    body: bytes, kind: str, name: str, budget: _Budget, archive_depth: int, message_depth: int
) -> Iterator[ContainerMember]:
    """Yields what is inside a container of this name; the name is empty for the outermost."""
    coding = CONTENT_CODINGS[kind][1] if kind in CONTENT_CODINGS else None
    if coding is not None and _holds_tar(body, coding):
        kind = TAR
        if not name:
            yield ContainerMember("", media_type=TAR)
    elif coding is not None:
        found = decompress(body, coding, min(budget.max_member_bytes, budget.bytes_left))
        kind = signature_media_type(found.content) or ""
        if kind == MBOX:
            if not name:
                yield ContainerMember("", media_type=MBOX)
        elif kind in CONTENT_CODINGS or kind in ARCHIVES:
            raise ExtractionError(
                "unsupported_media_type",
                f"It is compressed twice ({kind} in {coding}): decompress it once and add what is inside.",
            )
        else:
            yield _spent(ContainerMember(name, found.content), budget)
        if found.trailing_bytes:
            reason = (
                f"{counted(found.trailing_bytes, 'byte')} after the {coding} data could not be decompressed; "
                "what comes before was read: cut the rest off, or get the file again."
            )
            yield ContainerMember(f"{name}!trailing", error=f"unreadable: {reason}")
        body, coding = found.content, None
    prefix = f"{name}!/" if name else ""
    if kind in MAIL:
        for file in mail_attachments(body, kind):
            inside = ContainerMember(prefix + _encoded(file.name), file.content, file.media_type)
            yield from _inside(inside, file.content, budget, archive_depth, message_depth + 1)
    elif kind in ARCHIVES:
        if archive_depth > MAX_ARCHIVE_DEPTH:
            raise ExtractionError(
                "nested_too_deeply",
                f"It is an archive inside {MAX_ARCHIVE_DEPTH} others, and no more are opened: unpack it and "
                "add the files inside.",
            )
        limit_bytes = min(unpacked_bytes_limit(len(body)), budget.bytes_left)
        if kind == MBOX:
            for message in mailbox_messages(body):
                inside = ContainerMember(prefix + _encoded(message.name), message.content, EML)
                yield from _inside(inside, message.content, budget, archive_depth + 1, message_depth)
            return
        for member in archive_members(body, kind, coding, budget.max_member_bytes, limit_bytes):
            inside = replace(member, name=prefix + _encoded(member.name))
            if member.content is None:
                yield inside
            else:
                yield from _inside(inside, member.content, budget, archive_depth + 1, message_depth)


def _holds_tar(body: bytes, coding: str) -> bool:
    return signature_media_type(DecompressingReader(io.BytesIO(body), coding).read(1024)) == TAR


def _encoded(name: str) -> str:
    return quote(name, errors="replace")


def _inside(
    member: ContainerMember, content: bytes, budget: _Budget, archive_depth: int, message_depth: int
) -> Iterator[ContainerMember]:
    """Yields a member, or if it is a container itself what is inside it."""
    kind = signature_media_type(content)
    if kind not in CONTAINERS:
        yield _spent(member, budget)
        return
    failed = member.name
    if kind in MAIL:
        yield _spent(member, budget)
        failed = f"{member.name}!/!attachments"
        if message_depth > _MAX_MESSAGE_DEPTH:
            reason = f"Attachments of messages more than {_MAX_MESSAGE_DEPTH} deep are not read: add them."
            yield ContainerMember(failed, error=f"nested_too_deeply: {reason}")
            return
    try:
        yield from _expanded(content, kind, member.name, budget, archive_depth, message_depth)
    except ExtractionError as error:
        yield ContainerMember(failed, error=f"{error.expectation}: {error.reason}")


def _spent(member: ContainerMember, budget: _Budget) -> ContainerMember:
    """Takes a member's size from the budget and returns the member.

    Raises:
        ExtractionError: `oversize` if nothing is left of the budget.
    """
    budget.bytes_left -= len(member.content or b"")
    if budget.bytes_left < 0:
        raise ExtractionError(
            "oversize",
            "With what is nested in it, it unpacks to more than is allowed for its size: if it is no bomb, "
            "unpack it into a folder and add that.",
        )
    return member
