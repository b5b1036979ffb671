"""Divides a mailbox (mbox, RFC 4155) into its messages."""

import email.parser
import email.policy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

# The line between two messages comes after an empty line and has an address and a date; a sentence that
# begins with "From" has no time of day and no year, and no header comes after it.
_SEPARATOR = re.compile(
    rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\n]{0,200}\d\d?:\d\d[^\n]{0,60}\d{4}[^\n]{0,60}\n"
    rb"(?=>?[\w-]{1,60}:|>?From )"
)
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
_DIGEST_CHARS = 16


@dataclass(frozen=True, slots=True)
class MailboxMessage:
    """A message of a mailbox.

    Attributes:
        name: Its Message-ID without the angle brackets, or the beginning of its digest where it has none: the
            name stays when other messages come and go.
        content: The message, without the line that begins it in the mailbox.
    """

    name: str
    content: bytes


def is_mailbox(body: bytes) -> bool:
    """Returns whether a file begins as a mailbox does: with a separator, and then a header."""
    return _SEPARATOR.match(body) is not None


def mailbox_messages(body: bytes) -> Iterator[MailboxMessage]:
    """Yields the messages of a mailbox in their order; what was quoted as ">From " is "From " again."""
    places = [(found.start(), found.end()) for found in _SEPARATOR.finditer(body)]
    ends = [start for start, _ in places[1:]] + [len(body)]
    for (_, start), end in zip(places, ends, strict=True):
        content = _QUOTED_FROM.sub(rb"\1", body[start:end]).rstrip(b"\r\n") + b"\n"
        yield MailboxMessage(_name(content), content)


def _name(content: bytes) -> str:
    # compat32: the newer policy raises errors on many headers of real messages.
    headers = email.parser.BytesHeaderParser(policy=email.policy.compat32).parsebytes(content)
    name = "".join(str(headers.get("Message-ID") or "").split()).strip("<>")
    return name or sha256(content).hexdigest()[:_DIGEST_CHARS]
