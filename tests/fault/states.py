"""State folders for the fault tests: made once, copied and broken per fault, then compared row for row."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from forked_commands import run_forked

from assets.lake.lake import Lake
from assets.lake.tables import RELEASES, TABLES
from orchestration.operations.ask import open_ask_service
from orchestration.settings import Settings, open_configured_lake
from retrieval.store.postgres import Postgres

HERE = Path(__file__).parent
KILLED = -9
WRITTEN_WHEN = {"OpenLineage_RunId", "first_seen_at", "fetched_at", "file_modified_at"}
"""Columns that say when or by which run a row was written."""

_ORPHANS_END_S = 30


def environment(home: Path) -> dict[str, str]:
    return os.environ | {"HEADWATER_HOME": str(home), "PYTHONPATH": str(HERE.parents[1])}


def command(driver: tuple[str, ...], arguments: tuple[str, ...]) -> list[str]:
    program = [str(HERE / "effects.py"), *driver] if driver else ["-m", "orchestration.cli.main"]
    return [sys.executable, *program, *arguments]


def headwater(
    home: Path,
    *arguments: str,
    driver: tuple[str, ...] = (),
    prefix: tuple[str, ...] = (),
    variables: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs the command line on a state folder until it ends or dies; with `driver`, through effects.py.

    The result's `stdout` has both output streams.
    """
    surroundings = environment(home) | (variables or {})
    if not prefix:
        return run_forked([*driver, *arguments], surroundings, together=True, module="fault.effects")
    return subprocess.run(
        [*prefix, *command(driver, arguments)],
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )


def stop(home: Path) -> None:
    Postgres(home, Settings(home=home).postgres).stop()


def remove(home: Path) -> None:
    Postgres(home, Settings(home=home).postgres).remove()
    shutil.rmtree(home, ignore_errors=True)


def copy(home: Path, to: Path) -> Path:
    # With owners and what links lead to: as root, the embedded server runs as another user, and elsewhere.
    subprocess.run(["cp", "-aL", str(home), str(to)], check=True)
    return to


def contents(lake: Lake, name: str) -> list[str]:
    table = lake.delta(name).to_pyarrow_table()
    rows = table.select([c for c in table.column_names if c not in WRITTEN_WHEN]).to_pylist()
    for row in rows:
        if "vector" in row:
            row["vector"] = [round(value, 3) for value in row["vector"]]
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in rows)


def end_of(home: Path) -> dict[str, Any]:
    """Returns everything that a run writes, except when and by which run it was written.

    The numbers of generations are left out too, because a killed build uses one up.
    """
    settings = Settings(home=home)
    lake, service = open_configured_lake(settings), open_ask_service(settings)
    live = service.live_release()
    data = [name for name in TABLES if not name.startswith("ops.") and name != "gold.answers"]
    # Each commit of an asset has a higher fencing token than the one before: there were never two writers.
    doubled = []
    for name in data:
        turns = [commit.lineage.fence for commit in lake.commits(name)]
        if turns != sorted(set(turns), reverse=True):
            doubled.append(name)
    with service.index._postgres.owner() as connection:
        states = connection.execute(
            "SELECT generation, epoch, status FROM headwater.index_state ORDER BY generation"
        ).fetchall()
        parts = connection.execute(
            "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE nspname = 'headwater' AND relkind = 'r' AND relname ~ '_g[0-9]+$' ORDER BY relname"
        ).fetchall()
    wanted = sorted(
        f"{table}_g{number}"
        for number, _, status in states
        for table in ("chunks", "postings", "frequencies")
        if status == "ready"
    )
    decided = lake.delta(RELEASES.name).to_pyarrow_table(columns=["epoch", "decision"]).to_pylist()
    return {
        **{name: contents(lake, name) for name in data},
        "turns": doubled,
        "generations": [[epoch, status] for _, epoch, status in states],
        "partitions of no generation": sorted({name for (name,) in parts} ^ set(wanted)),
        "decisions": sorted([row["epoch"], row["decision"]] for row in decided),
        "live": live.epoch,
        "index": sorted(json.dumps(row) for row in service.index.rows_at(live).to_pylist()),
        "answer": [hit.chunk_id for hit in service.search("who pins the hashes", 5, "hybrid", "default")],
    }


def orphans(home: Path) -> list[str]:
    """Returns the processes that were started for a state folder and still run, 30 s later at most."""

    def now() -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("HEADWATER_HOME") == str(home) and process.status() != "zombie":
                    found.append(f"{process.pid} {process.name()}")
            except psutil.Error:
                continue
        return found

    deadline_s = time.monotonic() + _ORPHANS_END_S
    while (left := now()) and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return left


def differences(home: Path, end: dict[str, Any]) -> list[str]:
    """Returns what differs from the end of an undisturbed run, and the processes that still run."""
    found = end_of(home)
    return [name for name, rows in end.items() if found[name] != rows] + orphans(home)


def write_corpus(corpus: Path) -> Path:
    corpus.mkdir()
    for name in ("bees", "glaciers", "tides", "bread"):
        (corpus / f"{name}.md").write_text(
            f"# About {name}\n\nWhat is written here about {name} will be changed by nobody. " * 8
        )
    (corpus / "copy of bees.md").write_text((corpus / "bees.md").read_text())
    (corpus / "empty.txt").write_bytes(b"")
    return corpus


def change_corpus(corpus: Path) -> None:
    (corpus / "tides.md").write_text(
        "# Tides\n\nThe keeper of the stable pins the hashes on every Tuesday.\n"
    )
    (corpus / "bees.md").unlink()  # its copy is promoted
    (corpus / "volcano.md").write_text("# Volcanoes\n\nLava is rock that melted and was expelled.\n")
    (corpus / "broken.pdf").write_bytes(b"%PDF-1.7\nnot really")


@dataclass
class States:
    """Stopped state folders to copy, made when they are first used.

    Attributes:
        folder: The folder of all of them. State folders that exist there are reused.
    """

    folder: Path
    _copies: list[Path] = field(default_factory=list)

    @cached_property
    def corpus(self) -> Path:
        path = self.folder / "corpus"
        return path if path.is_dir() else write_corpus(path)

    @cached_property
    def first_end(self) -> dict[str, Any]:
        """The end of an undisturbed first run."""
        return self._end("first", lambda home: self._record("first", home, "ingest", str(self.corpus)))

    @cached_property
    def not_indexed(self) -> Path:
        """A first run that was killed inside a MERGE, run again, and killed after all tables were written."""
        return self._made("first-not-indexed", self._kill_first)

    @cached_property
    def behind(self) -> Path:
        """The folder of a finished run whose source has changed since."""
        return self._made("behind", self._ingest_and_change)

    @cached_property
    def changed_end(self) -> dict[str, Any]:
        """The end of an undisturbed run on `behind`."""
        return self._end("changed", lambda home: self._record("changed", copy(self.behind, home), "run"))

    @cached_property
    def index_behind(self) -> Path:
        """The folder `behind` after a run that was killed before it wrote to the index."""
        return self._made("index-behind", self._kill_changed)

    def effects(self, run: str) -> list[str]:
        """Returns the names of the effects of an undisturbed run, `first` or `changed`, in order."""
        _ = self.first_end if run == "first" else self.changed_end
        return (self.folder / f"{run}-effects").read_text().splitlines()

    def copy(self, state: Path, name: str) -> Path:
        """Returns a copy of a state folder to break, which is removed at the end."""
        home = self.folder / f"broken-{os.getpid()}-{len(self._copies)}-{name}"
        self._copies.append(home)
        return copy(state, home) if state.exists() else home

    def sweep(self) -> None:
        for home in self._copies:
            remove(home)

    def _record(self, name: str, home: Path, *arguments: str) -> None:
        effects = self.folder / f"{name}-effects"
        done = headwater(home, *arguments, driver=("record", str(effects)))
        assert done.returncode == 0, done.stdout[-3000:]

    def _kill_first(self, home: Path) -> None:
        for death in (("gold/chunks", "inside"), ("initdb", "before")):
            killed = headwater(home, "ingest", str(self.corpus), driver=("kill", *death))
            assert killed.returncode == KILLED, killed.stdout[-3000:]

    def _ingest_and_change(self, home: Path) -> None:
        corpus = self.folder / "changing-corpus"
        shutil.rmtree(corpus, ignore_errors=True)
        done = headwater(home, "ingest", str(write_corpus(corpus)))
        assert done.returncode == 0, done.stdout[-3000:]
        change_corpus(corpus)

    def _kill_changed(self, home: Path) -> None:
        killed = headwater(copy(self.behind, home), "run", driver=("kill", "sql ", "before"))
        assert killed.returncode == KILLED, killed.stdout[-3000:]

    def _made(self, name: str, make: Callable[[Path], None]) -> Path:
        home, unfinished = self.folder / name, self.folder / f"{name}-unfinished"
        if not home.exists():
            if unfinished.exists():
                remove(unfinished)
            make(unfinished)
            stop(unfinished)
            unfinished.rename(home)
            if server := Postgres(home, Settings(home=home).postgres).server:
                server.settle()
        return home

    def _end(self, name: str, make: Callable[[Path], None]) -> dict[str, Any]:
        kept = self.folder / f"{name}-end.json"
        if not kept.exists():
            home = self._made(name, make)
            end = end_of(home)
            stop(home)
            kept.write_text(json.dumps(end))
        return dict(json.loads(kept.read_text()))
