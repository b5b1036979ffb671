"""The journal of answers: what an addition reads, and what a killed process leaves in it."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from assets.answers.journal import AnswerJournal
from inference.answering.answer import Answer, AnswerRecord

RECORD = AnswerRecord(
    answer=Answer("0", "Ice. [1]", "answered", (), "release", "digest", "extractive"),
    question="What is a glacier?",
    tenant="acme",
    groups=(),
    retrieved=("a" * 64,) * 10,
    search_mode="hybrid",
    versions={"gold.chunks": 1},
    answered_at=datetime(2026, 1, 1, tzinfo=UTC),
)


def add(journal: AnswerJournal, answer_id: int) -> int:
    return journal.add(replace(RECORD, answer=replace(RECORD.answer, answer_id=str(answer_id))))


def answer_ids(folder: Path) -> list[int]:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return [int(json.loads(line)["answer"]["answer_id"]) for line in lines]


def read_bytes() -> int:
    """How many bytes this process has read so far, of files and of anything else."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"])


@pytest.mark.skipif(not Path("/proc/self/io").is_file(), reason="counts what is read by Linux's /proc")
def test_an_addition_reads_as_little_of_a_long_journal_as_of_a_short_one(tmp_path: Path) -> None:
    journal, read = AnswerJournal(tmp_path), []
    for number in range(500):
        before = read_bytes()
        assert add(journal, number) == number + 1
        read.append(read_bytes() - before)
    assert (tmp_path / "journal.jsonl").stat().st_size > 400_000
    assert max(read[1:]) < 1000  # one line has about as many bytes
    assert answer_ids(tmp_path) == list(range(500))


def test_processes_take_turns_and_each_knows_how_many_answers_there_are(tmp_path: Path) -> None:
    one, other = AnswerJournal(tmp_path), AnswerJournal(tmp_path)
    assert [add(each, number) for number, each in enumerate((one, other, other, one, other))] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert add(AnswerJournal(tmp_path), 5) == 6
    (tmp_path / "journal.jsonl").unlink()  # as a commit does
    assert [add(one, 6), add(other, 7)] == [1, 2]
    assert answer_ids(tmp_path) == [6, 7]


@pytest.mark.parametrize("kept_bytes", [1, 100, 300])
def test_a_line_that_a_killed_process_began_goes_and_no_other_does(tmp_path: Path, kept_bytes: int) -> None:
    journal, file = AnswerJournal(tmp_path), tmp_path / "journal.jsonl"
    add(journal, 0)
    line = file.read_bytes()
    for knows in (journal, AnswerJournal(tmp_path)):
        with file.open("ab") as half:
            half.write(line[:kept_bytes])
        add(knows, 1)
    assert answer_ids(tmp_path) == [0, 1, 1]
    file.write_bytes(line[:-1])  # shorter than what was known, and without a whole line
    assert add(journal, 2) == 1
    assert answer_ids(tmp_path) == [2]
