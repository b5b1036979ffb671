"""A run that is killed anywhere and run again ends where an undisturbed one does.

`make test` kills one run and then the next; `make fault` kills at HEADWATER_FAULT points, spread over every
effect of a run and before, during and after it, and writes what came of each to HEADWATER_FAULT_REPORT.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from assets.lake import Lake
from assets.tables import TABLES
from orchestration.answering import Desk
from orchestration.settings import Settings, open_lake
from retrieval.postgres import Postgres

HERE = Path(__file__).parent
MOMENTS = ("before", "during", "after")
POINTS = int(os.environ.get("HEADWATER_FAULT", "0"))
WRITTEN_WHEN = {"OpenLineage_RunId", "first_seen_at", "fetched_at", "file_modified_at"}
"""Columns that say when or by whom a row was written."""


@dataclass(frozen=True)
class State:
    """A state folder that is behind its sources, and what an undisturbed run makes of it.

    Attributes:
        folder: The home to copy, stopped.
        effects: The names of the undisturbed run's effects, in order.
        end: What it ended with.
    """

    folder: Path
    effects: list[str]
    end: dict[str, Any]


def headwater(home: Path, *command: str, driver: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    program = [str(HERE / "effects.py"), *driver] if driver else ["-m", "orchestration.cli"]
    return subprocess.run(
        [sys.executable, *program, *command],
        env=os.environ | {"HEADWATER_HOME": str(home), "PYTHONPATH": str(HERE.parents[1])},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def stop(home: Path) -> None:
    server = Postgres(home, Settings(home=home).postgres)
    server.stop()


def copy(home: Path, to: Path) -> None:
    # With owners: as root, the embedded server runs as another user.
    subprocess.run(["cp", "-a", str(home), str(to)], check=True)


def contents(lake: Lake, name: str) -> list[str]:
    table = lake.delta(name).to_pyarrow_table()
    rows = table.select([c for c in table.column_names if c not in WRITTEN_WHEN]).to_pylist()
    for row in rows:
        if "vector" in row:
            row["vector"] = [round(value, 3) for value in row["vector"]]
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in rows)


def end_of(home: Path) -> dict[str, Any]:
    """Everything that a run leaves behind, but for when and by which run it was written."""
    settings = Settings(home=home)
    lake, desk = open_lake(settings), Desk(settings)
    live = desk.live()
    data = [name for name in TABLES if not name.startswith("ops.") and name != "gold.answers"]
    # Each commit of an asset has its own turn, higher than the one before it: no writer was doubled.
    for name in data:
        turns = [commit.lineage.fence for commit in lake.commits(name)]
        assert turns == sorted(set(turns), reverse=True), name
    return {
        **{name: contents(lake, name) for name in data},
        "live": live.release_id,
        "index": sorted(json.dumps(row) for row in desk.index.snapshot(live).to_pylist()),
        "answer": [hit.chunk_id for hit in desk.search("who pins the hashes", 5, "hybrid", "default")],
    }


def write_corpus(corpus: Path) -> None:
    corpus.mkdir()
    for name in ("bees", "glaciers", "tides", "bread"):
        (corpus / f"{name}.md").write_text(
            f"# About {name}\n\nWhat is written here about {name} will be changed by nobody. " * 8
        )
    (corpus / "copy of bees.md").write_text((corpus / "bees.md").read_text())
    (corpus / "empty.txt").write_bytes(b"")


@pytest.fixture(scope="module")
def state(module_folder: Path) -> Iterator[State]:
    corpus, behind = module_folder / "corpus", module_folder / "behind"
    write_corpus(corpus)
    made = headwater(behind, "ingest", str(corpus))
    assert made.returncode == 0, made.stderr[-3000:]
    (corpus / "tides.md").write_text(
        "# Tides\n\nThe keeper of the stable pins the hashes on every Tuesday.\n"
    )
    (corpus / "bees.md").unlink()  # its copy is promoted
    (corpus / "volcano.md").write_text("# Volcanoes\n\nLava is rock that melted and was expelled.\n")
    (corpus / "broken.pdf").write_bytes(b"%PDF-1.7\nnot really")
    stop(behind)
    home, names = module_folder / "undisturbed", module_folder / "effects"
    copy(behind, home)
    done = headwater(home, "run", driver=("record", str(names)))
    assert done.returncode == 0, done.stderr[-3000:]
    yield State(behind, names.read_text().splitlines(), end_of(home))
    stop(home)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_killed_again(module_folder: Path) -> None:
    """Inside a MERGE, and when the pointer has moved and the lake does not say so yet."""
    corpus, killed, undisturbed = (module_folder / name for name in ("first", "killed", "whole"))
    write_corpus(corpus)
    assert headwater(undisturbed, "ingest", str(corpus)).returncode == 0
    deaths = (("merge gold/chunks", "during"), ("swap_live", "after"))
    for command, death in zip((("ingest", str(corpus)), ("run",)), deaths, strict=True):
        done = headwater(killed, *command, driver=("kill", *death))
        assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    again = headwater(killed, "run")
    assert again.returncode == 0, again.stderr[-3000:]
    ends = [end_of(home) for home in (killed, undisturbed)]
    for home in (killed, undisturbed):
        stop(home)
    assert ends[0] == ends[1]


@pytest.mark.slow
@pytest.mark.timeout(20_000)
@pytest.mark.skipif(not POINTS, reason="a minute a point: `make fault`")
def test_killed_at_every_effect(state: State, module_folder: Path) -> None:
    outcomes = []
    for point in range(POINTS):
        number, moment = point * len(state.effects) // POINTS, MOMENTS[point % len(MOMENTS)]
        home = module_folder / f"killed-{number}-{moment}"
        copy(state.folder, home)
        killed = headwater(home, "run", driver=("kill", str(number), moment))
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
        again = headwater(home, "run")
        wrong = ["the second run failed"]
        if again.returncode == 0:
            end = end_of(home)
            wrong = [name for name, rows in state.end.items() if end[name] != rows]
        outcomes.append((number, state.effects[number], moment, wrong))
        print(*outcomes[-1], again.stderr[-2000:] if again.returncode else "", flush=True)
        if report := os.environ.get("HEADWATER_FAULT_REPORT"):
            Path(report).write_text(table(outcomes))
        stop(home)
        shutil.rmtree(home, ignore_errors=True)
    assert [outcome for outcome in outcomes if outcome[3]] == []


def table(outcomes: list[tuple[int, str, str, list[str]]]) -> str:
    """The outcomes as Markdown."""
    lines = [
        "# Killed runs",
        "",
        f"A run was killed with SIGKILL at {len(outcomes)} points, each on a fresh copy of one state folder, "
        "and run again. Its end is compared row for row with an undisturbed run: every table, the index, "
        "the live release, a search. Made by `make fault`.",
        "",
        "| effect | killed | after the second run |",
        "|---|---|---|",
    ]
    for number, name, moment, wrong in outcomes:
        outcome = "equal" if not wrong else f"differs: {', '.join(wrong)}"
        lines.append(f"| {number} `{name.replace('|', ' ')}` | {moment} | {outcome} |")
    return "\n".join(lines) + "\n"
