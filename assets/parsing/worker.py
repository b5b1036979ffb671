"""The sandbox's worker process, which parses one document at a time: `python -m assets.parsing.worker`.

Its standard input is a socket. A request is the word `document` or `members`, a space, a media type, a line
feed and a body. The reply to `document` is a JSON object, after a `PAGE_RECOGNISED` for each page of a scan.
The reply to `members` is a JSON object for each file inside, followed by its bytes where it has any, and at
last an empty object. It is JSON because a process that has read untrusted bytes may send data, but no pickled
objects. The process ends when the socket closes.
Its arguments are its limits: the address space in bytes, the seconds per document, the bytes per document and
the characters of a document's text; then 1 to run OCR on scans, else 0.
"""

import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from assets.parsing.blocks import ExtractionError
from assets.parsing.containers import expand_container
from assets.parsing.extract import extract_document

PAGE_RECOGNISED = {"page": "recognised"}
"""What is said between two pages of a scan, so that nobody takes the process for one that hangs."""
_GRACE_S = 5.0
_MAX_WRITTEN_BYTES = 1 << 20


def run_parser_worker(arguments: list[str]) -> None:
    """Runs the worker: answers requests until the socket closes."""
    memory_bytes, max_size_bytes, max_text_chars = (int(arguments[index]) for index in (0, 2, 3))
    timeout_s, ocr = float(arguments[1]), arguments[4] == "1"
    _confine(memory_bytes)
    # Standard input becomes the null device, so that no reader reads from the socket.
    pipe = Connection(os.dup(0))
    with open(os.devnull) as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), 0)

    def say_page() -> None:
        pipe.send_bytes(json.dumps(PAGE_RECOGNISED).encode())
        signal.setitimer(signal.ITIMER_REAL, timeout_s + _GRACE_S)

    while True:
        try:
            wanted, _, body = pipe.recv_bytes().partition(b"\n")
        except (EOFError, OSError):
            return
        task, _, media_type = wanted.decode().partition(" ")
        # The parent stops waiting earlier. If it is gone, nobody else would end a reader that hangs: the
        # default action of the signal ends the process even inside native code.
        signal.setitimer(signal.ITIMER_REAL, timeout_s + _GRACE_S)
        if task == "members":
            answers = _members(body, media_type, max_size_bytes)
        else:
            answers = iter([_answer(body, media_type, max_size_bytes, max_text_chars, ocr, say_page)])
        try:
            for answer in answers:
                signal.setitimer(signal.ITIMER_REAL, 0)  # the parent may take its time between two members
                pipe.send_bytes(answer)
                signal.setitimer(signal.ITIMER_REAL, timeout_s + _GRACE_S)
        except OSError:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        del body, answers, answer


def _confine(memory_bytes: int) -> None:
    """Bounds the memory and what can be written: no core dumps, no files larger than a few messages."""
    bounds = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: _MAX_WRITTEN_BYTES,
    }
    for kind, bound in bounds.items():
        with contextlib.suppress(ValueError, OSError):  # macOS has no bound on address space
            resource.setrlimit(kind, (bound, bound))


def _answer(
    body: bytes,
    media_type: str,
    max_size_bytes: int,
    max_text_chars: int,
    ocr: bool,
    on_page: Callable[[], None],
) -> bytes:
    try:
        found = extract_document(body, media_type, max_size_bytes, ocr, on_page)
        if len(found.text) > max_text_chars:
            reason = (
                f"The document's text has {len(found.text):,} characters; the limit is {max_text_chars:,}."
            )
            raise ExtractionError("oversize", reason)
        headings = [(heading.char_start, heading.level, heading.title) for heading in found.headings]
        answer = {
            "title": found.title,
            "text": found.text,
            "headings": headings,
            "pages": found.pages,
            "text_coverage": found.text_coverage,
            "unread_pages": found.unread_pages,
            "end": found.end,
            "decoding_doubt": found.decoding_doubt,
        }
        return json.dumps(answer, ensure_ascii=False).encode()
    except ExtractionError as error:
        return json.dumps({"expectation": error.expectation, "reason": error.reason}).encode()
    except MemoryError:
        return b'{"expectation": "out_of_memory"}'


def _members(body: bytes, media_type: str, max_size_bytes: int) -> Iterator[bytes]:
    try:
        for member in expand_container(body, media_type, max_size_bytes):
            content = member.content
            size = None if content is None else len(content)
            fields = {
                "name": member.name,
                "media_type": member.media_type,
                "error": member.error,
                "size": size,
            }
            yield json.dumps(fields).encode()
            if content:
                yield content
        yield b"{}"
    except ExtractionError as error:
        yield json.dumps({"expectation": error.expectation, "reason": error.reason}).encode()
    except MemoryError:
        yield b'{"expectation": "out_of_memory"}'
    except Exception as error:  # the libraries do not document which errors broken files cause
        reason = f"What is inside can not be read: {type(error).__name__}: {str(error)[:200]}"
        yield json.dumps({"expectation": "unreadable", "reason": reason}).encode()


if __name__ == "__main__":
    run_parser_worker(sys.argv[1:])
