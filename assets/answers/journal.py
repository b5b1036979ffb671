"""Stores answers: first in a local journal, then many at a time in one commit of `gold.answers`.

With a commit per answer, the table's log and the work of its readers would grow with every question. An
answer is safe once it is in the journal, a local file. The journal is committed when the service that
answers is closed, when it is full, and whenever anybody opens the lake of the state folder.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import ANSWERS
from common.atomic_files import flush_path
from common.lineage import Lineage
from inference.answering.answer import AnswerRecord
from retrieval.access import encode_access_groups

logger = logging.getLogger(__name__)

JOURNAL_ANSWERS = 100
"""How many answers a service keeps in the journal before it commits them."""

_RECORD = TypeAdapter(AnswerRecord)


class AnswerJournal:
    """The journal of answers that are not yet in `gold.answers`. Several processes may use it at once.

    Args:
        folder: Where it is, on a local disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "journal.jsonl"
        # There while a commit is being made: after a crash, some of the journal may be in the table already.
        self._committing = folder / "committing"
        # The end of the lines that this process has seen, and how many they are.
        self._size = self._count = 0

    def add(self, record: AnswerRecord) -> int:
        """Adds an answer to the journal durably: it survives a crash of this process or the machine.

        Returns:
            How many answers the journal holds now.
        """
        with self._locked():
            with self._file.open("a+b") as file:
                file.seek(max(self._size - 1, 0))
                if self._size and file.read(1) != b"\n":
                    self._size = self._count = 0  # it was committed meanwhile
                is_unknown = not self._size
                file.seek(self._size)
                added = file.read()  # by other processes, since this one looked
                whole = added[: added.rfind(b"\n") + 1]
                file.truncate(self._size + len(whole))  # without a line that a killed process began
                line = _RECORD.dump_json(record) + b"\n"
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            if is_unknown:
                flush_path(self._folder)  # else a power cut can lose a new file
            self._size += len(whole) + len(line)
            self._count += whole.count(b"\n") + 1
        return self._count

    def is_empty(self) -> bool:
        """True if the journal has no answers."""
        return not self._file.exists()

    def commit(self, lake: Lake, run_id: str | None = None) -> None:
        """Moves all answers to `gold.answers`, in one commit per release that was searched.

        Args:
            lake: The lake.
            run_id: The Dagster run that the answers are from, if they are from one.
        """
        if self.is_empty():
            return
        with self._locked():
            records = self._records()
            if self._committing.exists():
                stored = lake.delta(ANSWERS.name).to_pyarrow_table(columns=["answer_id"])["answer_id"]
                known = set(stored.to_pylist())
                records = [record for record in records if record.answer.answer_id not in known]
            self._committing.touch()
            flush_path(self._folder)
            for release_id in dict.fromkeys(record.answer.release for record in records):
                of_release = [record for record in records if record.answer.release == release_id]
                _append(lake, of_release, run_id or of_release[0].answer.answer_id)
            self._file.unlink(missing_ok=True)
            self._committing.unlink()

    def _records(self) -> list[AnswerRecord]:
        """The journal's answers; lines that are none are moved to a file beside it."""
        records, unreadable = [], []
        for line in self._lines():
            try:
                records.append(_RECORD.validate_json(line))
            except ValidationError:
                unreadable.append(line)
        if unreadable:
            aside = self._folder / "unreadable.jsonl"
            with aside.open("ab") as file:
                file.writelines(unreadable)
            logger.warning(
                "%d lines of the journal are no answers: they are kept in %s", len(unreadable), aside
            )
        return records

    def _lines(self) -> list[bytes]:
        """The journal's whole lines."""
        lines = self._file.read_bytes().splitlines(keepends=True) if self._file.exists() else []
        return [line for line in lines if line.endswith(b"\n")]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _append(lake: Lake, records: list[AnswerRecord], run_id: str) -> None:
    """Appends answers from one release to `gold.answers`, in one commit."""
    rows = [
        {
            "answer_id": record.answer.answer_id,
            "tenant": record.tenant,
            "question": record.question,
            "answer": record.answer.answer,
            "refused": record.answer.refused,
            "outcome": record.answer.outcome,
            "engine": record.answer.engine,
            "citations": [asdict(citation) for citation in record.answer.citations],
            "release_id": record.answer.release,
            "model_digest": record.answer.model_digest,
            "retrieved": list(record.retrieved),
            "access_groups": encode_access_groups(record.groups),
            "search_mode": record.search_mode,
            "retrieval_digest": record.retrieval_digest,
            "answered_at": record.answered_at,
            "generator_digest": record.answer.generator_digest,
            "chosen_because": record.answer.because,
            "prompt_tokens": record.answer.usage.prompt_tokens if record.answer.usage else None,
            "completion_tokens": record.answer.usage.completion_tokens if record.answer.usage else None,
            "cost_usd": record.answer.usage.cost_usd if record.answer.usage else None,
            "passages_left_out": record.answer.passages_left_out,
            "generator_adapter": record.answer.generator_adapter,
            "batch": record.place.batch if record.place else None,
            "question_id": record.place.question_id if record.place else None,
        }
        for record in records
    ]
    lineage = Lineage(
        run_id=run_id,
        asset="gold/answers",
        code_version=CODE_VERSION,
        config_digest="",
        inputs=records[0].versions,
    )
    lake.append(ANSWERS, pa.Table.from_pylist(rows, ANSWERS.schema), lineage)
