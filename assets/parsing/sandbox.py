"""Parses documents in a sandbox: a separate process with bounds on time, memory and the files it can write.

A document that makes its reader hang, use all memory or crash the interpreter is quarantined, and no other
document is affected. The process lives as long as its parent, because starting it takes as long as parsing a
hundred documents. It is never forked: locks and threads of a Spark worker do not survive a fork.
"""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, Field, model_validator

from assets.parsing.archives import ContainerMember
from assets.parsing.blocks import DocumentHeading, ExtractedDocument, ExtractionError
from assets.parsing.content_type import PLAIN_TEXT, UTF8_TEXT
from assets.parsing.extract import MAX_DOCUMENT_BYTES, extract_document
from assets.parsing.worker import PAGE_RECOGNISED
from assets.text.damage import SourceEnd

_CHILD_MODULE = "assets.parsing.worker"
# Decoding can not hang or crash, so that small texts of these types need no round trip to the process.
_TRUSTED = {PLAIN_TEXT, UTF8_TEXT}
_TRUSTED_BYTES = 1 << 20
_ANSWER_BYTES = 1 << 30
_MAX_RECOGNISED_TIMEOUTS = 30
# The environment variables that the process gets. It reads what strangers wrote, so it gets no secrets.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")
# What native code writes to standard error when an allocation fails, before it aborts.
_NO_MEMORY = (b"memory allocation of", b"bad_alloc", b"MemoryError", b"out of memory", b"Out of memory")


class ParserLimits(BaseModel):
    """The bounds on parsing one document."""

    max_size_bytes: int = Field(default=MAX_DOCUMENT_BYTES, ge=1)
    """A larger document is quarantined unparsed."""
    max_text_chars: int = Field(default=20_000_000, ge=1)
    """A document with more text is quarantined: its quality signals, which are computed outside the sandbox,
    would take 64 bytes per character. The default is seven times War and Peace; a table of that size is a
    source of rows."""
    timeout_s: float = Field(default=60, gt=0)
    """The longest time that parsing one document may take; of a scan, that recognising one page may take, and
    thirty times as much for all of its pages."""
    memory_bytes: int = Field(default=2 << 30, ge=1 << 28)
    """The largest address space of the process; macOS does not enforce it."""
    ocr: bool = False
    """Whether to recognise the text of pictures and of scanned pages in PDFs (`make setup EXTRAS=ocr`). A
    page takes seconds."""

    @model_validator(mode="after")
    def _installed(self) -> "ParserLimits":
        if self.ocr and importlib.util.find_spec("rapidocr") is None:
            raise ValueError("ocr is on and RapidOCR is not installed: make setup EXTRAS=ocr")
        return self


class SandboxedParser:
    """Runs `extract_document` in a separate process, and starts a new one after a document has crashed it.

    It is not thread-safe.

    Args:
        limits: The bounds on parsing one document.
    """

    def __init__(self, limits: ParserLimits) -> None:
        self.limits = limits
        self._child: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._pipe: Connection | None = None
        self._parsed = 0
        self._had_parsed = False
        self._expanding = False

    def extract_document(self, body: bytes, media_type: str) -> ExtractedDocument:
        """Returns what `extract_document` returns; plain text of up to 1 MiB is read in this process.

        Raises:
            ExtractionError: With an expectation of `extract_document`, or `timeout`, `out_of_memory` or
                `crashed`.
        """
        if len(body) > self.limits.max_size_bytes or (media_type in _TRUSTED and len(body) <= _TRUSTED_BYTES):
            return extract_document(body, media_type, self.limits.max_size_bytes)
        self._require_no_open_container()
        found = self._ask_twice(body, media_type)
        headings = [DocumentHeading(*heading) for heading in found["headings"]]
        return ExtractedDocument(
            found["title"],
            found["text"],
            headings,
            found["pages"],
            found["text_coverage"],
            found["unread_pages"],
            SourceEnd(found["end"]),
            found["decoding_doubt"],
        )

    def container_members(self, body: bytes, media_type: str) -> Iterator[ContainerMember]:
        """Yields what `expand_container` yields: the files inside an archive, message or compressed file.

        No document can be extracted before the last member is taken or the iterator is closed.

        Raises:
            ExtractionError: As `expand_container`, or `timeout`, `out_of_memory` or `crashed`.
        """
        self._require_no_open_container()
        left_s = self.limits.timeout_s  # of waiting; what the caller does between two members is not counted
        taken, done = 0, False
        self._send("members", body, media_type)
        self._expanding = True
        try:
            while True:
                asked = time.monotonic()
                try:
                    head = self._answer(left_s)
                    if not head:
                        break
                    content = self._receive(left_s) if head["size"] else b""
                except ExtractionError as error:
                    if taken or not self._is_of_an_earlier(error):
                        raise
                    self._send("members", body, media_type)
                    continue
                left_s -= time.monotonic() - asked
                taken += 1
                yield ContainerMember(
                    head["name"],
                    None if head["size"] is None else content,
                    head["media_type"],
                    head["error"],
                )
            done = True
            self._parsed += 1
        except ExtractionError:
            done = True
            raise
        finally:
            self._expanding = False
            if not done:
                self.close()  # the rest of the answer would be taken for the next one

    def close(self) -> None:
        """Ends the process if it was started."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        for end in (self._pipe, self._errors):
            if end is not None:
                end.close()
        self._child = self._pipe = self._errors = None
        self._parsed = 0

    def _require_no_open_container(self) -> None:
        """Raises an error where both ends would wait for ever: each to send while the other one sends."""
        if self._expanding:
            raise RuntimeError("the members of an archive are being read: take the last one, or close them")

    def _ask_twice(self, body: bytes, media_type: str) -> dict[str, Any]:
        try:
            found = self._ask(body, media_type)
        except ExtractionError as error:
            if not self._is_of_an_earlier(error):
                raise
            found = self._ask(body, media_type)
        self._parsed += 1
        return found

    def _ask(self, body: bytes, media_type: str) -> dict[str, Any]:
        """Returns the answer for a document; each of its pages that was recognised gives it more time."""
        self._send("document", body, media_type)
        latest = time.monotonic() + _MAX_RECOGNISED_TIMEOUTS * self.limits.timeout_s
        while True:
            found = self._answer(min(self.limits.timeout_s, latest - time.monotonic()))
            if found != PAGE_RECOGNISED:
                return found

    def _is_of_an_earlier(self, error: ExtractionError) -> bool:
        """Whether an earlier document may have caused an error: it is worth a try in a new process."""
        return self._had_parsed and error.expectation in {"crashed", "out_of_memory"}

    def _send(self, task: str, body: bytes, media_type: str) -> None:
        self._had_parsed = self._parsed > 0
        pipe = self._started()
        try:
            pipe.send_bytes(b"%s %s\n%s" % (task.encode(), media_type.encode(), body))
        except OSError as error:
            raise self._death() from error

    def _receive(self, timeout_s: float) -> bytes:
        assert self._pipe is not None  # noqa: S101 - a process was asked
        try:
            if not self._pipe.poll(max(timeout_s, 0)):
                self.close()
                raise self._timeout()
            return self._pipe.recv_bytes(_ANSWER_BYTES)
        except (EOFError, OSError) as error:
            raise self._death() from error

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        received = self._receive(timeout_s)
        try:
            answer: dict[str, Any] = json.loads(received)
        except ValueError as error:
            raise self._death() from error
        if "expectation" in answer:
            if answer["expectation"] == "out_of_memory":
                self.close()
                raise self._out_of_memory()
            self._parsed += 1
            raise ExtractionError(answer["expectation"], answer["reason"])
        return answer

    def _started(self) -> Connection:
        """Returns the pipe to the process, and starts the process if it does not run."""
        if self._pipe is not None:
            return self._pipe
        self._pipe, theirs = Pipe()
        # A file, because nobody would read a pipe while the process works.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        limits = [
            str(bound)
            for bound in (
                self.limits.memory_bytes,
                self.limits.timeout_s,
                self.limits.max_size_bytes,
                self.limits.max_text_chars,
                int(self.limits.ocr),
            )
        ]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        # The import path of a Spark worker can be set at run time. More threads would only use address space.
        environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-B", "-m", _CHILD_MODULE, *limits],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=environment,
                start_new_session=True,  # the parent handles an interrupt at the terminal
            )
        finally:
            theirs.close()
        return self._pipe

    def _death(self) -> ExtractionError:
        """Cleans up after the process ended, and returns why it did."""
        assert self._child is not None  # noqa: S101 - a process was asked
        assert self._errors is not None  # noqa: S101
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(5)
        status = self._child.poll()
        self._errors.seek(0)
        messages = self._errors.read(1 << 16)
        self.close()
        if status == -signal.SIGKILL or any(words in messages for words in _NO_MEMORY):
            return self._out_of_memory()
        if status == -signal.SIGALRM:
            return self._timeout()
        how = "no valid answer" if status is None else f"exit status {status}"
        if status is not None and status < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-status).name
        return ExtractionError("crashed", f"The parser crashed on the document ({how}).")

    def _timeout(self) -> ExtractionError:
        limit = f"{self.limits.timeout_s:g} s"
        return ExtractionError("timeout", f"The parser had not finished after {limit} and was stopped.")

    def _out_of_memory(self) -> ExtractionError:
        limit = f"{self.limits.memory_bytes >> 20:,} MiB"
        return ExtractionError("out_of_memory", f"The parser needed more memory than the limit of {limit}.")


_parsers: dict[tuple[int, str], SandboxedParser] = {}


def sandboxed_parser(limits: ParserLimits) -> SandboxedParser:
    """Returns the parser with these limits, the same at every call, so that a Spark worker reuses it."""
    key = (os.getpid(), limits.model_dump_json())
    if key not in _parsers:
        # Those of a parent that forked this process: their pipes belong to the parent, and stay open.
        _parsers.clear()
        _parsers[key] = SandboxedParser(limits)
    return _parsers[key]
