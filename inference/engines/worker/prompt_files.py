"""The files between a worker and whoever started it: prompts in Parquet, answers in a journal and in Parquet.

It needs pyarrow and nothing else that is not of the standard library.
"""

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from common.atomic_files import atomic_file

logger = logging.getLogger(__name__)

PROMPT_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        # A prompt's forms, the longest first, each as chat messages: the first that fits is the prompt.
        ("forms", pa.list_(pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))),
        # Prompts with equal keys may share what is computed of their beginnings; one with NULL, or where the
        # file has no such column, shares nothing.
        ("sharing_key", pa.string()),
        # OpenAI's response_format, as JSON; where it is NULL or absent, the answer is any text.
        ("response_format", pa.string()),
        # The folder of the adapter that completes it, in PEFT's form; NULL or absent for the base alone.
        ("adapter", pa.string()),
    ]
)
ANSWER_SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        # What the answer is an answer to: prompt, model and parameters. NULL where the prompt is none.
        ("prompt_sha256", pa.string()),
        # Which form was the prompt, from 0.
        ("form", pa.int32()),
        ("text", pa.string()),
        # stop or length (as in OpenAI's API); NULL where it failed.
        ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        # Why there is no answer.
        ("failure", pa.string()),
    ]
)
_READ_ROWS = 256
_FLUSHED_EACH_S = 1.0

Messages = Sequence[Mapping[str, str]]


class InvalidPromptFile(ValueError):
    """A file of prompts, or of answers, can't be read; the message names the file, the fault and the cure."""


@dataclass(frozen=True)
class WorkerPrompt:
    """A row of a file of prompts.

    Attributes:
        prompt_id: Its id, unique in the file.
        forms: The prompt in one or more forms, the longest first, each as chat messages.
        sharing_key: Prompts with equal keys may share what is computed of their beginnings.
        response_format: OpenAI's, as JSON (see `SamplingOptions`).
        adapter: The folder of the adapter that completes it.
    """

    prompt_id: str
    forms: Sequence[Messages]
    sharing_key: str | None = None
    response_format: str | None = None
    adapter: str | None = None

    def fault(self) -> str | None:
        """Returns what is wrong with it, or None."""
        if not self.prompt_id:
            return "prompt_id is empty"
        if not self.forms or not all(self.forms):
            return "forms holds no messages"
        for message in (message for form in self.forms for message in form):
            if not message or not message["role"] or message["content"] is None:
                return "a message has no role or no content"
        return None

    def sha256(self, settings: str) -> str:
        """Returns the hex SHA-256 of the prompt without its id, with the settings of its answer."""
        forms = [[[message["role"], message["content"]] for message in form] for form in self.forms]
        asked = [settings, forms, self.response_format] if self.response_format else [settings, forms]
        key = json.dumps(asked, ensure_ascii=False)
        return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True)
class WorkerAnswer:
    """A row of a file of answers; `ANSWER_SCHEMA` describes its fields."""

    prompt_id: str | None
    prompt_sha256: str | None = None
    form: int | None = None
    text: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    failure: str | None = None


def write_prompts(file: Path, prompts: Sequence[WorkerPrompt]) -> None:
    """Writes a file of prompts, complete or not at all."""
    rows = [asdict(prompt) for prompt in prompts]
    with atomic_file(file) as fresh:
        pq.write_table(pa.Table.from_pylist(rows, PROMPT_SCHEMA), fresh, compression="zstd")


def read_prompts(file: Path) -> Iterator[WorkerPrompt]:
    """Yields the prompts of a file, in order.

    Raises:
        InvalidPromptFile: It is missing, is no Parquet, or lacks a column.
    """
    try:
        with pq.ParquetFile(file) as rows:
            there = rows.schema_arrow.names
            if wrong := [name for name in ("prompt_id", "forms") if name not in there]:
                raise InvalidPromptFile(
                    f"{file} lacks the column {', '.join(wrong)}: write prompt_id (text) and forms (lists of "
                    "chat messages with role and content, the longest form first)"
                )
            schema = pa.schema([field for field in PROMPT_SCHEMA if field.name in there])
            for batch in rows.iter_batches(_READ_ROWS, columns=schema.names):
                for row in pa.Table.from_batches([batch]).cast(schema).to_pylist():
                    yield WorkerPrompt(
                        row["prompt_id"] or "",
                        row["forms"] or (),
                        row.get("sharing_key"),
                        row.get("response_format"),
                        row.get("adapter"),
                    )
    except (pa.ArrowException, OSError) as error:
        raise InvalidPromptFile(f"{file} can not be read as a Parquet file of prompts: {error}") from error


class AnswerFile:
    """The answers of a set of prompts: a journal beside the file while they come, then the Parquet file.

    Args:
        path: The Parquet file.

    Attributes:
        path: The same.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = path.with_name(path.name + ".journal.jsonl")
        self._flushed = 0.0

    def answered(self) -> dict[str, WorkerAnswer]:
        """Returns the answers that there are, by `prompt_sha256`; failures are none, so they are tried again.

        A line that a killed worker had begun is left out.

        Raises:
            InvalidPromptFile: What is at the path is no file of answers.
        """
        answers = self.rows() if self.path.exists() else []
        if self._journal.exists():
            lines = self._journal.read_bytes().splitlines(keepends=True)
            answers += [answer for line in lines if (answer := _parse_line(line)) is not None]
        return {each.prompt_sha256: each for each in answers if each.prompt_sha256 and each.failure is None}

    def rows(self) -> list[WorkerAnswer]:
        """Returns all rows of the Parquet file.

        Raises:
            InvalidPromptFile: It is no file of answers.
        """
        try:
            table = pq.read_table(self.path)
        except (pa.ArrowException, OSError) as error:
            raise InvalidPromptFile(f"{self.path} is there, and can not be read: {error}") from error
        if table.schema.names != ANSWER_SCHEMA.names:
            raise InvalidPromptFile(
                f"{self.path} is there, and is no file of answers: name another, or move it away"
            )
        return [WorkerAnswer(**row) for row in table.cast(ANSWER_SCHEMA).to_pylist()]

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the file for one writer; another waits until this one has ended."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(self.path.name + ".lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("another worker writes %s: waiting until it has ended", self.path)
                fcntl.flock(lock, fcntl.LOCK_EX)
            self._end_torn_line()
            yield

    def add(self, answer: WorkerAnswer) -> None:
        """Adds an answer to the journal. It survives this process at once, the machine within a second."""
        line = json.dumps(asdict(answer), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self._journal.open("ab") as journal:
            journal.write(line)
            journal.flush()
            if time.monotonic() - self._flushed > _FLUSHED_EACH_S:
                os.fsync(journal.fileno())
                self._flushed = time.monotonic()

    def finish(self, answers: Sequence[WorkerAnswer]) -> None:
        """Writes the Parquet file, complete or not at all, in place of the journal."""
        table = pa.Table.from_pylist([asdict(answer) for answer in answers], ANSWER_SCHEMA)
        with atomic_file(self.path) as fresh:
            pq.write_table(table, fresh, compression="zstd")
        self._journal.unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes the file and its journal."""
        for file in (self.path, self._journal):
            file.unlink(missing_ok=True)

    def _end_torn_line(self) -> None:
        """Cuts off a line that a killed worker had begun, so that the next one is a line of its own."""
        if self._journal.exists():
            whole = self._journal.read_bytes().rfind(b"\n") + 1
            os.truncate(self._journal, whole)


def _parse_line(line: bytes) -> WorkerAnswer | None:
    try:
        return WorkerAnswer(**json.loads(line)) if line.endswith(b"\n") else None
    except (ValueError, TypeError):
        return None
