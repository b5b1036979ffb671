"""A run that is killed anywhere and run again ends where an undisturbed one does.

`make test` kills a first run three times over; `make fault` kills at every write to a table and at every
statement that is not like its neighbour, before, inside and after it.
"""

import os

import pytest
from report import Report
from states import KILLED, States, differences, headwater, stop

FAULTS = bool(os.environ.get("HEADWATER_FAULT"))
MOMENTS = ("before", "inside", "after")

# Each is in the effect's name; what makes a generation is one transaction, with others before and after it.
FIRST_INDEX = (
    ("initdb", "inside"),
    ("sql CREATE DATABASE", "inside"),
    ("sql CREATE DATABASE", "after"),
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
    ("ATTACH PARTITION headwater.postings", "inside"),
    ("sql UPDATE headwater.index_state SET status = 'ready'", "inside"),
    ("sql UPDATE headwater.index_state SET status = 'ready'", "after"),
    ("sql VACUUM", "before"),
    ("sql VACUUM", "inside"),
)
INDEX_CHANGE = (
    ("sql CREATE TEMPORARY TABLE incoming", "inside"),
    ("copy a piece", "inside"),
    ("copy a piece", "after"),
    ("sql DELETE FROM incoming", "inside"),
    ("sql WITH now_closed", "inside"),
    ("sql INSERT INTO headwater.postings", "inside"),
    ("sql UPDATE headwater.index_state SET epoch", "after"),
    ("sql commit", "inside"),
    ("sql VACUUM", "before"),
)
RELEASE = (
    ("append ops/releases", "before"),
    ("append ops/releases", "inside"),
    ("append ops/releases", "after"),
    ("sql INSERT INTO headwater.releases", "inside"),
    ("swap_live", "before"),
    ("swap_live", "inside"),
    ("swap_live", "after"),
    ("sql DELETE FROM headwater.releases", "before"),
    ("sql DELETE FROM headwater.releases", "inside"),
    ("sql DELETE FROM headwater.statistics", "after"),
)
SPARK = (
    ("spark append bronze/raw_documents", "inside"),
    ("spark merge silver/documents", "inside"),
    ("spark merge gold/chunks", "inside"),
    ("spark merge gold/embeddings", "after"),
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_first_run_killed_three_times(states: States, report: Report) -> None:
    """Inside a MERGE, before the index, and when the pointer has moved and the lake does not say so yet."""
    home = states.copy(states.not_indexed, "thrice")
    killed = headwater(home, "run", driver=("kill", "swap_live", "after"))
    assert killed.returncode == KILLED, killed.stderr[-2000:]
    again = headwater(home, "run")
    assert again.returncode == 0, again.stderr[-3000:]
    wrong = differences(home, states.first_end)
    report.add("first", "killed inside `merge gold/chunks`, before `initdb` and after `swap_live`", "", wrong)
    assert not wrong
    stop(home)


def kill_at(states: States, report: Report, run: str, effect: str, moment: str, spark: str = "") -> list[str]:
    """Kills a copy of a state folder at an effect, runs it again, and says in what it differs."""
    of_index = not effect.startswith(("append bronze", "append silver", "append gold", "merge", "spark"))
    of_index &= not effect.isdigit()
    state, end = {
        "first": (states.not_indexed if of_index else states.folder / "nothing", states.first_end),
        "changed": (states.index_behind if of_index else states.behind, states.changed_end),
    }[run]
    name = f"{effect} `{states.effects(run)[int(effect)]}`" if effect.isdigit() else f"`{effect}`"
    if report.knows(run, f"killed at {name}", moment):
        return []
    home = states.copy(state, "killed")
    arguments = ("run",) if state.exists() else ("ingest", str(states.corpus))
    killed = headwater(
        home,
        *arguments,
        driver=("kill", effect, moment),
        variables={"EFFECTS_SPARK": spark} if spark else None,
    )
    assert killed.returncode == KILLED, f"{effect} {moment}: {killed.stderr[-2000:]}"
    again = headwater(home, *arguments)
    wrong = differences(home, end) if again.returncode == 0 else [f"failed: {again.stderr[-2000:]}"]
    report.add(run, f"killed at {name}", moment, wrong)
    stop(home)
    return wrong


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not FAULTS, reason="`make fault`")
@pytest.mark.parametrize(("effect", "moment"), FIRST_INDEX + RELEASE)
def test_killed_in_the_first_index_and_release(
    states: States, report: Report, effect: str, moment: str
) -> None:
    assert kill_at(states, report, "first", effect, moment) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not FAULTS, reason="`make fault`")
@pytest.mark.parametrize(("effect", "moment"), INDEX_CHANGE + RELEASE[::2])
def test_killed_in_a_change_of_the_index(states: States, report: Report, effect: str, moment: str) -> None:
    assert kill_at(states, report, "changed", effect, moment) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not FAULTS, reason="`make fault`")
@pytest.mark.parametrize("point", range(12))
def test_killed_at_a_commit_of_the_lake(states: States, report: Report, point: int) -> None:
    commits = [effect for effect in states.effects("changed") if effect.startswith(("append", "merge"))]
    of_tables = [number for number, name in enumerate(commits) if not name.startswith("append ops/releases")]
    number = of_tables[point % len(of_tables)]
    assert kill_at(states, report, "changed", str(number), MOMENTS[(point + 1) % 3]) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not FAULTS, reason="`make fault`")
@pytest.mark.parametrize(("effect", "moment"), SPARK)
def test_killed_while_spark_writes(states: States, report: Report, effect: str, moment: str) -> None:
    """The JVM of a killed run may live a moment longer than it, with a commit in its hands."""
    assert kill_at(states, report, "changed", effect, moment, spark="1") == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not FAULTS, reason="`make fault`")
def test_a_first_run_that_is_killed_at_every_commit_of_every_table(states: States, report: Report) -> None:
    """Before, inside and after each in turn, on one folder: no run of it gets further than one commit."""
    fault, died = "killed at every commit of a table in turn, on one folder", list[str]()
    if report.knows("first", fault, "before, inside, after"):
        return
    home = states.copy(states.folder / "nothing", "march")
    while not died or not died[-1].startswith(("initdb", "sql")):
        moment = MOMENTS[len(died) % 3]
        killed = headwater(home, "ingest", str(states.corpus), driver=("kill", "0", moment))
        assert killed.returncode == KILLED, killed.stderr[-2000:]
        died.append(killed.stderr.partition("effect: ")[2].splitlines()[0])
        print(moment, died[-1], flush=True)
    again = headwater(home, "ingest", str(states.corpus))
    wrong = differences(home, states.first_end) if again.returncode == 0 else ["the last run failed"]
    report.add("first", fault, "before, inside, after", wrong, f"{len(died)} kills")
    assert wrong == [], again.stderr[-2000:]
    stop(home)
