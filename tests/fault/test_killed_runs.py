"""A run that is killed anywhere and run again ends where an undisturbed one does.

`make test` kills a first run a few times over. `make fault` kills two runs at every point of the lists below,
in turn, on one folder: each run goes on from what the one before it left, and the end is compared. With
HEADWATER_FAULT_EACH set it also kills at each point alone, on a fresh copy: to find which one it was.
"""

import os

import pytest

from fault.report import Report
from fault.states import KILLED, States, differences, headwater, stop

FAULTS = bool(os.environ.get("HEADWATER_FAULT"))
EACH = bool(os.environ.get("HEADWATER_FAULT_EACH"))

# An effect's name, or a part of it, and when: in the order of the path, so that each is still to come. A
# death inside a commit may be too late for it: what follows names the next effect, not the same one again.
FIRST_TABLES = [
    ("append bronze/raw_documents", "before"),
    ("append bronze/raw_documents", "inside"),
    ("silver/quarantine", "before"),
    ("silver/quarantine", "inside"),
    ("silver/documents", "before"),
    ("silver/documents", "inside"),
    ("append ops/audits", "before"),
    ("append ops/audits", "inside"),
    ("silver/signatures", "after"),
    ("silver/duplicates", "inside"),
    ("gold/chunks", "before"),
    ("gold/chunks", "inside"),
    ("append ops/audits", "after"),
    ("gold/embeddings", "inside"),
    ("append ops/drift", "after"),
    ("append ops/audits", "before"),
]
# What makes a generation of the index is one transaction, with others before and after it.
FIRST_INDEX = [
    ("initdb", "before"),
    ("initdb", "inside"),
    ("sql CREATE DATABASE", "inside"),
    ("sql DO $$", "inside"),
    ("sql INSERT INTO headwater.schema_version", "after"),
    ("sql INSERT INTO headwater.index_state", "inside"),
    ("sql INSERT INTO headwater.index_state", "after"),
    ("sql CREATE TABLE headwater.postings", "after"),
    ("copy a piece", "before"),
    ("copy a piece", "inside"),
    ("copy a piece", "after"),
    ("sql INSERT INTO headwater.postings", "inside"),
    ("sql CREATE UNIQUE INDEX", "inside"),
    ("USING hnsw", "before"),
    ("USING hnsw", "inside"),
    ("USING hnsw", "after"),
    ("sql ALTER TABLE headwater.postings ATTACH", "inside"),
    ("sql UPDATE headwater.index_state SET status = 'ready'", "after"),
    ("sql VACUUM", "inside"),
]
# The first rows of the release log that a run adds are the gate's verdict; where that is there, the release.
RELEASE = [
    ("sql INSERT INTO headwater.release_log", "before"),
    ("sql INSERT INTO headwater.release_log", "inside"),
    ("append ops/releases", "before"),
    ("sql INSERT INTO headwater.releases", "before"),
    ("sql INSERT INTO headwater.releases", "inside"),
    ("sql INSERT INTO headwater.release_log", "before"),
    ("sql INSERT INTO headwater.release_log", "inside"),
    ("sql INSERT INTO headwater.release_log", "after"),
    ("sql commit", "inside"),
    ("append ops/releases", "inside"),
    ("sql DELETE FROM headwater.releases", "before"),
    ("sql DELETE FROM headwater.releases", "inside"),
    ("sql DELETE FROM headwater.statistics", "after"),
]
# Spark writes what is too large for the run's own process: its JVM may live a moment longer than the run.
CHANGED_TABLES = [
    ("spark append bronze/raw_documents", "inside"),
    ("silver/quarantine", "after"),
    ("spark merge silver/documents", "inside"),
    ("append ops/audits", "inside"),
    ("silver/signatures", "after"),
    ("silver/duplicates", "inside"),
    ("gold/chunks", "inside"),
    ("gold/embeddings", "inside"),
    ("sql CREATE TEMPORARY TABLE incoming", "before"),
]
CHANGED_INDEX = [
    ("sql CREATE TEMPORARY TABLE incoming", "inside"),
    ("copy a piece", "inside"),
    ("copy a piece", "after"),
    ("sql DELETE FROM incoming", "inside"),
    ("sql WITH now_closed", "inside"),
    ("sql INSERT INTO headwater.postings", "inside"),
    ("sql UPDATE headwater.index_state SET epoch", "after"),
    ("sql commit", "inside"),
]
POINTS = {
    ("first", "index"): FIRST_INDEX + RELEASE,
    ("changed", "index"): CHANGED_INDEX + RELEASE,
    ("first", "tables"): FIRST_TABLES,
    ("changed", "tables"): CHANGED_TABLES,
}


def kill(
    states: States, report: Report, run: str, part: str, points: list[tuple[str, str]], alone: bool = False
) -> None:
    """Kills a run at each of some points in turn, lets one through, and compares its end."""
    kind = f"{run} run, {part}" if alone else f"{run} run, {part}, killed in turn"
    names = [
        (f"killed at `{effect}`", f"{number}. {moment}") for number, (effect, moment) in enumerate(points, 1)
    ]
    if all(report.knows(kind, fault, at) for fault, at in names):
        return
    if run == "first":
        state, end = states.not_indexed if part == "index" else states.folder / "nothing", states.first_end
    else:
        state, end = states.index_behind if part == "index" else states.behind, states.changed_end
    home = states.copy(state, "killed")
    whole = ("run",) if state.exists() else ("ingest", str(states.corpus))
    # The tables are made, and their gates have passed: what is killed need not look at them.
    killed = ("run", "--select", 'key:"serving/index"+') if part == "index" else whole
    for effect, moment in points:
        died = headwater(
            home,
            *killed,
            driver=("kill", effect, moment),
            variables={"EFFECTS_SPARK": "1" if effect.startswith("spark") else ""},
        )
        assert died.returncode == KILLED, f"{effect} {moment}: {died.stdout[-3000:]}"
    again = headwater(home, *whole)
    wrong = differences(home, end) if again.returncode == 0 else [f"failed: {again.stdout[-2000:]}"]
    for fault, at in names:
        report.add(kind, fault, at, wrong)
    assert not wrong
    stop(home)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_first_run_killed_three_times(states: States, report: Report) -> None:
    """Inside a MERGE, before the index, and when a release is live and the lake does not say so yet."""
    home = states.copy(states.not_indexed, "thrice")
    for effect, moment in (("sql INSERT INTO headwater.releases", "before"), ("sql commit", "after")):
        died = headwater(home, "run", driver=("kill", effect, moment))
        assert died.returncode == KILLED, died.stdout[-2000:]
    again = headwater(home, "run")
    assert again.returncode == 0, again.stdout[-3000:]
    wrong = differences(home, states.first_end)
    fault = "killed inside `gold/chunks`, before `initdb`, before `headwater.releases`, and after its commit"
    report.add("first run, killed in turn", fault, "", wrong)
    assert not wrong
    stop(home)


@pytest.mark.slow
@pytest.mark.timeout(10_000)
@pytest.mark.skipif(not FAULTS, reason="`make fault`")
@pytest.mark.parametrize(("run", "part"), POINTS)
def test_killed_at_every_point_in_turn(states: States, report: Report, run: str, part: str) -> None:
    kill(states, report, run, part, POINTS[run, part])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not EACH, reason="HEADWATER_FAULT_EACH")
@pytest.mark.parametrize(
    ("run", "part", "number"), [(*key, n) for key in POINTS for n in range(len(POINTS[key]))]
)
def test_killed_at_one_point(states: States, report: Report, run: str, part: str, number: int) -> None:
    kill(states, report, run, part, POINTS[run, part][number : number + 1], alone=True)
