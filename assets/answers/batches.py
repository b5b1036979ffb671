"""The question sets of a state folder: files of questions, each answered as a batch of `gold.answers`."""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltalake import DeltaTable
from pydantic import TypeAdapter

from assets.answers.journal import AnswerJournal
from common.atomic_files import atomic_file
from inference.batch.answer_batch import BatchOutcome
from inference.batch.question_set import QuestionSet, read_question_set

_OUTCOME = TypeAdapter(BatchOutcome)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class InvalidQuestionSet(ValueError):
    """A name or a file of questions can not be used; the message says why."""


class BatchRunning(RuntimeError):
    """Another process answers the same batch."""


class AnswerBatches:
    """The question sets, each in a folder with the journal of its answers and its last run's outcome.

    Args:
        folder: Where they are, on a local disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Returns the names of all question sets, sorted."""
        return sorted(file.parent.name for file in self._folder.glob("*/questions.jsonl"))

    def add(self, name: str, source: Path) -> QuestionSet:
        """Keeps a copy of a set's questions under a name; one that was there before is replaced.

        Args:
            name: Letters, digits, `_`, `-` and `.`; 64 characters at most.
            source: A file of JSON lines, or the folder of a Delta table with the same columns.

        Raises:
            InvalidQuestionSet: The name is not valid, or the source is missing or holds no question that can
                be asked.
        """
        if not _NAME.fullmatch(name):
            raise InvalidQuestionSet(
                f"{name!r} can not name a batch: use up to 64 letters, digits, '_', '-' and '.'"
            )
        if not source.exists():
            raise InvalidQuestionSet(f"there is no file of questions at {source}")
        target = self._folder / name / "questions.jsonl"
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target) as fresh:
            if source.is_dir():
                with fresh.open("w", encoding="utf-8") as file:
                    file.writelines(_delta_lines(source))
            else:
                shutil.copyfile(source, fresh)
            with fresh.open("rb") as file:
                questions = read_question_set(file)
            if not questions.questions:
                fault = f": {questions.invalid[0].reason}" if questions.invalid else ""
                raise InvalidQuestionSet(
                    f"{source} holds no question that can be asked{fault}; write one in each line, such as "
                    '{"id": "q1", "question": "…"}'
                )
        return questions

    def questions(self, name: str) -> QuestionSet:
        """Returns the questions of a set.

        Raises:
            InvalidQuestionSet: There is no set of this name.
        """
        try:
            with (self._folder / name / "questions.jsonl").open("rb") as file:
                return read_question_set(file)
        except FileNotFoundError:
            known = ", ".join(self.names()) or "none yet"
            raise InvalidQuestionSet(
                f"there is no batch {name!r}: there are {known}; `headwater answers run QUESTIONS.jsonl "
                f"--name {name}` makes one"
            ) from None

    def journal(self, name: str) -> AnswerJournal:
        """Returns the journal of a batch's answers that are not committed yet."""
        return AnswerJournal(self._folder / name)

    def keep_outcome(self, outcome: BatchOutcome) -> None:
        """Keeps what became of a batch in its last run, instead of the run before."""
        with atomic_file(self._folder / outcome.name / "outcome.json") as fresh:
            fresh.write_bytes(_OUTCOME.dump_json(outcome))

    def outcome(self, name: str) -> BatchOutcome | None:
        """Returns what became of a batch in its last run; None if no run has ended."""
        file = self._folder / name / "outcome.json"
        return _OUTCOME.validate_json(file.read_bytes()) if file.exists() else None

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """Holds a batch: no second process answers it meanwhile.

        Raises:
            BatchRunning: Another process holds it.
        """
        file = os.open(self._folder / name / "running", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise BatchRunning(
                f"another process is answering the batch {name!r}: wait until it has ended"
            ) from None
        finally:
            os.close(file)


def _delta_lines(folder: Path) -> Iterator[str]:
    """Yields the rows of a Delta table as JSON lines, without the columns that a row leaves NULL."""
    if not DeltaTable.is_deltatable(str(folder)):
        raise InvalidQuestionSet(f"{folder} is neither a file of JSON lines nor a Delta table")
    for batch in DeltaTable(folder).to_pyarrow_table().to_batches():
        for row in batch.to_pylist():
            present = {name: value for name, value in row.items() if value is not None}
            yield json.dumps(present, ensure_ascii=False, default=str) + "\n"
