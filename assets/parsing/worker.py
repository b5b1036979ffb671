"""The sandbox's worker process, which parses one document at a time: `python -m assets.parsing.worker`.

Its standard input is a socket. A request is the word `document` or `attachments`, a space, a media type, a
line feed and a body; the reply is a JSON object. It is JSON because a process that has read untrusted bytes
may send data, but no pickled objects. The process ends when the socket closes. Its arguments are its limits:
the address space in bytes, the seconds per document, the bytes per document and the characters of a
document's text; then 1 to run OCR on scans, else 0.
"""

import base64
import contextlib
import json
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection

from assets.parsing.blocks import ExtractionError
from assets.parsing.extract import extract_document
from assets.parsing.formats.mail import mail_attachments

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
    while True:
        try:
            wanted, _, body = pipe.recv_bytes().partition(b"\n")
        except (EOFError, OSError):
            return
        # The parent stops waiting earlier. If it is gone, nobody else would end a reader that hangs: the
        # default action of the signal ends the process even inside native code.
        signal.setitimer(signal.ITIMER_REAL, timeout_s + _GRACE_S)
        task, _, media_type = wanted.decode().partition(" ")
        if task == "attachments":
            answer = _attachments(body, media_type)
        else:
            answer = _answer(body, media_type, max_size_bytes, max_text_chars, ocr)
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            pipe.send_bytes(answer)
        except OSError:
            return
        del body, answer


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


def _answer(body: bytes, media_type: str, max_size_bytes: int, max_text_chars: int, ocr: bool) -> bytes:
    try:
        found = extract_document(body, media_type, max_size_bytes, ocr)
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
        }
        return json.dumps(answer, ensure_ascii=False).encode()
    except ExtractionError as error:
        return json.dumps({"expectation": error.expectation, "reason": error.reason}).encode()
    except MemoryError:
        return b'{"expectation": "out_of_memory"}'


def _attachments(body: bytes, media_type: str) -> bytes:
    try:
        found = [
            (name, base64.b64encode(content).decode()) for name, content in mail_attachments(body, media_type)
        ]
        return json.dumps({"attachments": found}).encode()
    except MemoryError:
        return b'{"expectation": "out_of_memory"}'
    except Exception as error:  # a broken message fails in its readers' many ways
        return json.dumps({"expectation": "unreadable", "reason": str(error)}).encode()


if __name__ == "__main__":
    run_parser_worker(sys.argv[1:])
