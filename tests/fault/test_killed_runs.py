"""A run that is killed anywhere and run again ends where an undisturbed one does.

`make test` kills at the points of `SHORT`; `make fault` at every effect of the run, before, during and after
it, and writes what came of each to the file that HEADWATER_FAULT_REPORT names.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
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
ALL = "HEADWATER_FAULT" in os.environ
MOMENTS = ("before", "during", "after")
# Between two commits of one step, inside a MERGE, and when the pointer has moved and nothing says so yet.
SHORT = (("merge silver/documents", "before"), ("merge gold/chunks", "during"), ("swap_live", "after"))

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


@pytest.fixture(scope="module")
def state(module_folder: Path) -> Iterator[State]:
    corpus, behind = module_folder / "corpus", module_folder / "behind"
    corpus.mkdir()
    for name in ("bees", "glaciers", "tides", "bread"):
        (corpus / f"{name}.md").write_text(
            f"# About {name}\n\nWhat is written here about {name} will be changed by nobody. " * 8
        )
    (corpus / "copy of bees.md").write_text((corpus / "bees.md").read_text())
    (corpus / "empty.txt").write_bytes(b"")
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
    shutil.copytree(behind, home, symlinks=True)
    done = headwater(home, "run", driver=("record", str(names)))
    assert done.returncode == 0, done.stderr[-3000:]
    yield State(behind, names.read_text().splitlines(), end_of(home))
    stop(home)


def points(effects: list[str]) -> list[tuple[int, str]]:
    """Which effects to die at, and when."""
    if ALL:
        return [(number, moment) for number in range(len(effects)) for moment in MOMENTS]
    chosen = [
        (number, moment) for name, moment in SHORT for number, effect in enumerate(effects) if name in effect
    ]
    assert len(chosen) == len(SHORT), effects
    return chosen


@pytest.mark.slow
@pytest.mark.timeout(20_000 if ALL else 900)
def test_killed_and_run_again(state: State, module_folder: Path) -> None:
    outcomes = []
    for number, moment in points(state.effects):
        home, began = module_folder / f"killed-{number}-{moment}", time.monotonic()
        shutil.copytree(state.folder, home, symlinks=True)
        killed = headwater(home, "run", driver=("kill", str(number), moment))
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
        again = headwater(home, "run")
        assert again.returncode == 0, f"{moment} {state.effects[number]}\n{again.stderr[-3000:]}"
        end = end_of(home)
        wrong = [name for name, rows in state.end.items() if end[name] != rows]
        outcomes.append((number, state.effects[number], moment, wrong, time.monotonic() - began))
        print(*outcomes[-1], flush=True)
        stop(home)
        shutil.rmtree(home, ignore_errors=True)
    if report := os.environ.get("HEADWATER_FAULT_REPORT"):
        Path(report).write_text(table(outcomes))
    assert [outcome for outcome in outcomes if outcome[3]] == []


def table(outcomes: list[tuple[int, str, str, list[str], float]]) -> str:
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
    for number, name, moment, wrong, _ in outcomes:
        outcome = "equal" if not wrong else f"differs: {', '.join(wrong)}"
        lines.append(f"| {number} `{name.replace('|', ' ')}` | {moment} | {outcome} |")
    return "\n".join(lines) + "\n"
