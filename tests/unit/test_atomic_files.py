"""What is written whole is never seen in part, and its writers do not stand in each other's way."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from common.atomic_files import atomic_file
from orchestration.services.dagster_home import write_dagster_home


def test_readers_see_one_writers_whole_text(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    texts = {letter: letter * 100_000 for letter in "abcd"}

    def write(letter: str) -> str:
        with atomic_file(path) as fresh:
            fresh.write_text(texts[letter])
        return path.read_text()

    with ThreadPoolExecutor(8) as pool:
        seen = set(pool.map(write, "abcd" * 50))
    assert seen <= set(texts.values())
    assert list(path.parent.iterdir()) == [path]


def test_a_writer_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("before")

    def write() -> None:
        with atomic_file(path) as fresh:
            fresh.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_two_commands_may_write_dagsters_settings_at_once(tmp_path: Path) -> None:
    home = tmp_path / "dagster"
    formats = ["text", "json"] * 100  # in turns, so that each one has something to write
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(partial(write_dagster_home, home), formats))
    assert paths == {home / "dagster.yaml"}
    assert list(home.iterdir()) == [home / "dagster.yaml"]
