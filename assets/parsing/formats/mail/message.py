"""Reads e-mail messages (EML, MSG)."""

import email
import email.policy
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.header import decode_header, make_header
from email.message import Message

from assets.parsing.blocks import DocumentBlocks, ExtractionError, TextBlock
from assets.parsing.content_type import EML
from assets.parsing.decoding import decode_text
from assets.parsing.formats.html.page import visible_html_blocks
from assets.text.normalization import collapse_whitespace

_HEADERS = ("From", "To", "Cc", "Bcc", "Date", "Subject")
_MAX_DEPTH = 20  # of nested parts
_LONGEST_HEADER_CHARS = 100_000
_SIGNATURES = {"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"}


def read_eml(body: bytes) -> DocumentBlocks:
    """Returns an EML message: its main headers as lines, its body, and its attachments' names.

    The body is the plain text if there is any, else the HTML's text. The title is the subject. The messages
    of a digest follow one another.
    """
    # compat32: the newer policy raises errors on many headers of real messages.
    return _message(email.message_from_bytes(_as_ascii_superset(body), policy=email.policy.compat32))


def read_msg(body: bytes) -> DocumentBlocks:
    """Returns an Outlook message (MSG): its main headers as lines, its body, and its attachments' names."""
    from oxmsg import Message as OutlookMessage

    message = OutlookMessage.load(io.BytesIO(body))
    headers = {name.title(): value for name, value in message.message_headers.items()}
    headers.setdefault("From", message.sender or "")
    headers.setdefault("To", ", ".join(f"{each.name} <{each.email_address}>" for each in message.recipients))
    headers.setdefault("Subject", message.subject or "")
    if message.sent_date is not None:
        headers.setdefault("Date", message.sent_date.isoformat(" "))
    body_blocks = [TextBlock(message.body or "")]
    if not _has_text(body_blocks) and message.html_body:
        body_blocks = visible_html_blocks(message.html_body.encode())
    attached = [each.file_name or "unnamed" for each in message.attachments]
    return _content({name: headers.get(name, "") for name in _HEADERS}, body_blocks, attached)


@dataclass(frozen=True, slots=True)
class MailAttachment:
    """An attached file: its name, its bytes, and the media type that the message declares for it."""

    name: str
    content: bytes
    media_type: str | None


def mail_attachments(body: bytes, media_type: str) -> Iterator[MailAttachment]:
    """Yields the attached files of a message; an attached message is one of them, as it is.

    Args:
        body: The message.
        media_type: EML or MSG.

    Raises:
        ExtractionError: `unreadable` if the message is damaged.
    """
    try:
        if media_type == EML:
            message = email.message_from_bytes(_as_ascii_superset(body), policy=email.policy.compat32)
            for name, part in _attached(message, 0, forwarded=True):
                yield MailAttachment(name, _attached_bytes(part), part.get_content_type())
            return
        from oxmsg import Message as OutlookMessage

        for each in OutlookMessage.load(io.BytesIO(body)).attachments:
            yield MailAttachment(each.file_name or "unnamed", each.file_bytes or b"", each.mime_type)
    except (ExtractionError, MemoryError):
        raise
    except Exception as error:  # a broken message fails in its readers' many ways
        raise ExtractionError("unreadable", f"Its attachments can not be read: {str(error)[:200]}") from error


def _attached_bytes(part: Message) -> bytes:
    if part.get_content_type() == "message/rfc822":
        return b"".join(inner.as_bytes() for inner in part.get_payload() if isinstance(inner, Message))
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _content(
    headers: dict[str, str], body_blocks: Iterable[TextBlock], attached: list[str]
) -> DocumentBlocks:
    shown = {name: collapse_whitespace(value) for name, value in headers.items()}
    blocks = [
        TextBlock("\n".join(f"{name}: {value}" for name, value in shown.items() if value)),
        *body_blocks,
    ]
    if attached:
        blocks.append(TextBlock(f"Attachments: {', '.join(map(collapse_whitespace, attached))}"))
    return DocumentBlocks(blocks, shown.get("Subject") or None)


def _message(message: Message) -> DocumentBlocks:
    headers = {name: ", ".join(map(_decoded, message.get_all(name, []))) for name in _HEADERS}
    return _content(headers, _text_blocks(message, 0), [name for name, _ in _attached(message, 0)])


def _as_ascii_superset(body: bytes) -> bytes:
    """Returns UTF-16, which mail programs never send but people save, as UTF-8."""
    return decode_text(body).encode() if b"\x00" in body[:200] else body.lstrip()


def _decoded(header: object) -> str:
    if len(str(header)) > _LONGEST_HEADER_CHARS:
        return str(header)[:_LONGEST_HEADER_CHARS]  # decoding takes quadratic time
    try:
        return str(make_header(decode_header(str(header))))
    except (LookupError, ValueError, UnicodeError):  # an invalid encoded word
        return str(header)


def _is_attached(part: Message) -> bool:
    return part.get_content_disposition() == "attachment" or (
        part.get_filename() is not None and not part.get_content_type().startswith("text/")
    )


def _text_blocks(part: Message, depth: int) -> list[TextBlock]:
    """Returns the text blocks of a part: the plain one of alternatives, and every one of other multiparts."""
    kind = part.get_content_type()
    if depth > _MAX_DEPTH or (depth and _is_attached(part)):
        return []
    if part.is_multipart():
        inner = [each for each in part.get_payload() if isinstance(each, Message)]
        if kind == "message/rfc822":
            return _message(inner[0]).blocks if inner and depth < _MAX_DEPTH else []
        found = [(each.get_content_type(), _text_blocks(each, depth + 1)) for each in inner]
        if kind == "multipart/alternative":
            found.sort(key=lambda each: each[0] != "text/plain")
            return next((blocks for _, blocks in found if _has_text(blocks)), [])
        return [block for _, blocks in found for block in blocks]
    if kind == "text/html":
        return visible_html_blocks(_unicode(part).encode("utf-8", "replace"))
    return [TextBlock(_unicode(part))] if kind in {"text/plain", "text/enriched", "text/markdown"} else []


def _has_text(blocks: list[TextBlock]) -> bool:
    return any(block.text.strip() for block in blocks)


def _unicode(part: Message) -> str:
    payload = part.get_payload(decode=True)
    raw = payload if isinstance(payload, bytes) else b""
    charset = part.get_content_charset()
    if charset and charset not in {"us-ascii", "unknown-8bit", "iso-8859-1"}:
        try:
            return raw.decode(charset)
        except (LookupError, UnicodeDecodeError, ValueError):
            pass
    # Programs that do not know the encoding claim one of these, but send Windows-1252 or UTF-8.
    return decode_text(raw) if raw else ""


def _attached(part: Message, depth: int, forwarded: bool = False) -> Iterator[tuple[str, Message]]:
    """Yields the attached parts with their names; with `forwarded` those of forwarded messages as well."""
    if depth and _is_attached(part):
        if part.get_content_type() not in _SIGNATURES:
            yield _decoded(part.get_filename() or "unnamed"), part
    elif part.is_multipart() and depth <= _MAX_DEPTH:
        if part.get_content_type() == "message/rfc822" and not forwarded:
            return
        for inner in part.get_payload():
            if isinstance(inner, Message):
                yield from _attached(inner, depth + 1, forwarded)
