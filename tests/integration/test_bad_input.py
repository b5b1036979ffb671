"""Sources that go away while they are read, very many files, odd names, and state folders that can't be."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from assets.engine.spark_relations import SparkRelations
from assets.parsing.sandbox import ParserLimits
from assets.sources.local_files import list_local_files
from assets.sources.revisions import define_revisions
from assets.sources.source_config import Source, SourceShrunk
from assets.sources.source_reader import list_source, read_source
from common.ids import doc_id
from inference.answering.answer import MAX_QUESTION_CHARS, InvalidQuestion, validate_question

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HEADWATER = str(Path(sys.executable).parent / "headwater")


def known_as(rows: list[dict[str, object]], source: Source) -> pa.Table:
    """Rows of bronze as the lake's state has them."""
    return pa.Table.from_pylist(
        [{name: value for name, value in row.items() if name != "body"} for row in rows],
        schema=STATE_SCHEMA,
    )


STATE_SCHEMA = pa.schema(
    [
        ("doc_id", pa.string()), ("revision", pa.int64()), ("tenant", pa.string()), ("source", pa.string()),
        ("uri", pa.string()), ("title", pa.string()), ("media_type", pa.string()),
        ("content_sha256", pa.string()), ("size_bytes", pa.int64()), ("file_size_bytes", pa.int64()),
        ("file_modified_at", pa.timestamp("us", tz="UTC")), ("source_version", pa.string()),
        ("error", pa.string()),
        ("first_seen_at", pa.timestamp("us", tz="UTC")), ("fetched_at", pa.timestamp("us", tz="UTC")),
        ("deleted", pa.bool_()),
    ]
)  # fmt: skip


def appended(
    spark: SparkSession, source: Source, listing: pa.Table, known: pa.Table | None = None, **flags: bool
) -> dict[str, dict[str, object]]:
    read = read_source(spark, source, listing, ParserLimits())
    state = STATE_SCHEMA.empty_table() if known is None else known
    with SparkRelations(spark) as on:
        on.add("read", read)
        define_revisions(on, "revisions", state, source, NOW, **flags)
        rows = on.arrow("revisions").to_pylist()
    return {str(row["uri"]).rpartition("/")[2]: row for row in rows}


MAIL = b"""From: a@b.example
To: c@d.example
Subject: s
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain

Hello
--b
Content-Type: text/plain
Content-Disposition: attachment; filename=note.txt

attached
--b--
"""


def test_files_that_vanish_after_they_were_listed_keep_their_documents(
    spark: SparkSession, tmp_path: Path
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name in ("kept.md", "lost.md"):
        (folder / name).write_text("Words of it.")
    (folder / "mail.eml").write_bytes(MAIL)
    source = Source(name="docs", location=str(folder))
    first = appended(spark, source, list_local_files(source))
    assert first.keys() == {"kept.md", "lost.md", "mail.eml", "mail.eml#note.txt"}
    for name in ("kept.md", "lost.md", "mail.eml"):
        with (folder / name).open("ab") as file:
            file.write(b" And more.")
    (folder / "new.md").write_text("Never seen.")
    listing = list_local_files(source)
    for name in ("lost.md", "mail.eml", "new.md"):
        (folder / name).unlink()
    told = appended(spark, source, listing, known_as(list(first.values()), source))
    # The one that is there has a new revision, the one that nobody saw is reported, of the others nothing.
    assert told.keys() == {"kept.md", "new.md"}
    assert (told["kept.md"]["revision"], told["kept.md"]["body"]) == (2, b"Words of it. And more.")
    assert told["new.md"]["error"] == "unreadable: No such file or directory"


def test_a_file_of_rows_that_vanishes_after_it_was_listed_is_refused(
    spark: SparkSession, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"id": str(n), "text": f"Row {n}"}) + "\n" for n in range(3)))
    source = Source(name="rows", location=str(tmp_path), text_column="text", id_column="id")
    first = appended(spark, source, list_source(spark, source))
    assert len(first) == 3
    known = known_as(list(first.values()), source)
    file.write_text("")
    listing = list_source(spark, source)
    with pytest.raises(SourceShrunk, match=r"source rows: .*rows.jsonl held documents .*--accept-shrink"):
        appended(spark, source, listing, known)
    told = appended(spark, source, listing, known, accept_loss=True)
    assert sum(bool(row["deleted"]) for row in told.values()) == 3


def test_a_folder_of_many_files_is_listed_in_time_and_memory_that_grow_with_it(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"note-{number:05}.txt").touch()
    calls = []
    sys.setprofile(lambda frame, event, _: calls.append(1) if event == "call" else None)
    try:
        listing = list_local_files(Source(name="many", location=str(tmp_path)))
    finally:
        sys.setprofile(None)
    assert listing.num_rows == 2000
    assert len(calls) < 40 * 2000  # each file a few, however many there are


def test_thousands_of_empty_files_are_read_each_as_empty(spark: SparkSession, tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number}.txt").touch()
    source = Source(name="many", location=str(tmp_path))
    read = read_source(spark, source, list_local_files(source), ParserLimits())
    found = read.groupBy("size_bytes", "media_type", "error").count().toArrow().to_pylist()
    assert found == [{"size_bytes": 0, "media_type": "application/x-empty", "error": None, "count": 2000}]


def test_names_of_255_bytes_with_anything_in_them(spark: SparkSession, tmp_path: Path) -> None:
    names = [b"x" * 251 + b".txt", "ü".encode() * 125 + b"\n.txt"[:5], b"\xff\xfe'\"\\ \n\t$(rm).txt"]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("Words in it.")
    source = Source(name="odd", location=str(tmp_path))
    rows = read_source(spark, source, list_local_files(source), ParserLimits()).toArrow().to_pylist()
    assert [row["body"] for row in rows] == [b"Words in it."] * 3
    assert len({doc_id("t", "s", row["uri"]) for row in rows}) == 3


@pytest.mark.parametrize("question", ["x" * 100_000, "why? " * 20_000])
def test_a_question_of_100_000_characters_is_refused_by_its_length(question: str) -> None:
    with pytest.raises(
        InvalidQuestion, match=rf"the question has [\d,]+ characters; the most is {MAX_QUESTION_CHARS}"
    ):
        validate_question(question)


def headwater(home: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """The command with this state folder, after a line of shell."""
    return subprocess.run(
        ["/bin/sh", "-c", f'{before}\nexec "$0" "$@"', HEADWATER, *arguments],
        env=os.environ | {"HEADWATER_HOME": str(home), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode not in (0, -9), done.stdout
    assert "Traceback" not in done.stderr
    for words in said:
        assert words in done.stderr, done.stderr[-2000:]


def test_a_state_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    refused(headwater(tmp_path / "a file" / "state", "source", "list"), "a file")
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(headwater(tmp_path / "locked" / "state", "source", "list"), "locked", "Permission denied")


def test_a_state_folder_that_is_full_is_named_and_keeps_what_it_had(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("A document.")
    home = tmp_path / "state"
    add = ("source", "add", "docs", str(tmp_path / "docs"))
    assert headwater(home, *add).returncode == 0
    kept = (home / "sources.json").read_bytes()
    # No file may grow: what a full disk does, wherever the folder is.
    full = headwater(
        home, "source", "add", "more", str(tmp_path / "docs"), before="trap '' XFSZ; ulimit -f 0"
    )
    refused(full, "state folder", str(home), "make room")
    assert (home / "sources.json").read_bytes() == kept


def test_a_state_folder_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "Ordner für später"
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("A document.")
    assert headwater(home, "source", "add", "docs", str(tmp_path / "docs")).returncode == 0
    (home / "state.json").write_text('{"version": 999}')
    refused(headwater(home, "run"), "999", "Ordner für später", "update Headwater")
    assert not (home / "lake").exists()
