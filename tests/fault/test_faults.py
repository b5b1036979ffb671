"""What breaks beside a run, or comes while it runs: another writer, PostgreSQL, Spark, the disk, the clock.

`make test` has one of each on a folder whose tables are made and whose index is not, which needs no Spark;
`make fault` has the others.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest

from fault.report import Report
from fault.states import States, command, copy, differences, environment, headwater, orphans, stop
from orchestration.services.dagster_home import dagster_home_instance
from orchestration.settings import Settings

FAULTS = bool(os.environ.get("HEADWATER_FAULT"))
full_only = pytest.mark.skipif(not FAULTS, reason="`make fault`")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REFUSED = (
    "another run has written since",
    "another build of the index is running",
    "the change was worked out",
    "idle-in-transaction timeout",
)
"""What a run says that was overtaken, or came while another one had its turn."""


def plain(text: str) -> bool:
    """Whether an error was told, and not thrown at the reader."""
    return "error:" in text and "Traceback" not in text


@contextmanager
def begun(home: Path, *arguments: str, driver: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    """The command line in the background; gone at the end, come what may."""
    process = subprocess.Popen(
        command(driver, arguments),
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_standstill(process: subprocess.Popen[str]) -> None:
    deadline_s = time.monotonic() + 300
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def end_its_run(home: Path) -> None:
    """As the reaper does for a run whose process died: only that here its step lives."""
    with dagster_home_instance(Settings(home=home)) as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
            instance.report_run_failed(run, "its process died")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def outlive_its_run_worker(home: Path, effect: str) -> tuple[int, str]:
    """The exit code and output of a run that was suspended at an effect until another had gone through."""
    with begun(home, "run", driver=("stop", effect, "before")) as orphan:
        wait_for_standstill(orphan)
        end_its_run(home)
        other = headwater(home, "run")
        assert other.returncode == 0, other.stdout[-3000:]
        orphan.send_signal(signal.SIGCONT)
        said = orphan.communicate(timeout=300)[0]
    return orphan.returncode, said


def behind(states: States, run: str) -> Path:
    return {"tables made": states.not_indexed, "changed": states.behind, "index behind": states.index_behind}[
        run
    ]


def ends(states: States, run: str) -> dict[str, object]:
    return states.first_end if run == "tables made" else states.changed_end


@pytest.mark.parametrize(
    ("run", "effect"),
    [
        ("tables made", "sql INSERT INTO headwater.release_log"),
        pytest.param("changed", "append bronze/raw_documents", marks=full_only),
        pytest.param("changed", "silver/documents", marks=full_only),
        pytest.param("changed", "gold/embeddings", marks=full_only),
    ],
)
def test_a_step_that_outlives_its_run_worker(states: States, report: Report, run: str, effect: str) -> None:
    """Its run was ended and another one went through; then it wants to write."""
    home = states.copy(behind(states, run), "orphan")
    code, said = outlive_its_run_worker(home, effect)
    wrong = differences(home, ends(states, run))
    refused = any(each in said for each in REFUSED)
    report.add(run, "run worker dead, its step alive until after the next run", f"before `{effect}`", wrong,
               "the step is refused")  # fmt: skip
    assert not wrong
    assert code == 1
    assert refused, said[-3000:]
    assert plain(said), said[-3000:]
    stop(home)


@full_only
def test_a_step_that_outlives_its_run_worker_copies_no_decision_twice(states: States, report: Report) -> None:
    """Its decision is in the log, and the next run has copied it to `ops.releases` before it wakes up."""
    home = states.copy(states.not_indexed, "orphan")
    effect = "append ops/releases"
    code, said = outlive_its_run_worker(home, effect)
    wrong = differences(home, states.first_end)
    cause, remark = "run worker dead, its step alive until after the next run", "the decision is copied once"
    report.add("tables made", cause, f"before `{effect}`", wrong, remark)
    assert not wrong
    assert code == 0 or plain(said), said[-3000:]
    stop(home)


@pytest.mark.parametrize(
    "run",
    ["tables made", pytest.param("changed", marks=full_only)],
)
def test_two_runs_at_once(states: States, report: Report, run: str) -> None:
    home = states.copy(behind(states, run), "two")
    with begun(home, "run") as one, begun(home, "run") as other:
        said = [process.communicate(timeout=600)[0] for process in (one, other)]
    codes = [one.returncode, other.returncode]
    for code, text in zip(codes, said, strict=True):
        assert code == 0 or (any(each in text for each in REFUSED) and plain(text)), text[-3000:]
    assert 0 in codes, said
    wrong = differences(home, ends(states, run))
    remark = "the second waits for the first" if codes == [0, 0] else "one is refused"
    report.add(run, "two runs started at once", "", wrong, remark)
    assert not wrong
    stop(home)


@full_only
def test_two_first_runs_at_once(states: States, report: Report) -> None:
    home = states.copy(states.folder / "nothing", "two")
    with begun(home, "ingest", str(states.corpus)) as one, begun(home, "ingest", str(states.corpus)) as other:
        said = [process.communicate(timeout=600)[0] for process in (one, other)]
    assert any(process.returncode == 0 for process in (one, other)), said
    assert all(
        process.returncode == 0 or plain(text) for process, text in zip((one, other), said, strict=True)
    ), said
    again = headwater(home, "run")
    assert again.returncode == 0, again.stdout[-3000:]
    wrong = differences(home, states.first_end)
    report.add("first", "two first runs started at once", "", wrong)
    assert not wrong
    stop(home)


@pytest.mark.parametrize(
    ("run", "effect", "moment"),
    [
        ("tables made", "copy a piece", "inside"),
        pytest.param("tables made", "USING hnsw", "inside", marks=full_only),
        pytest.param("tables made", "sql INSERT INTO headwater.releases", "inside", marks=full_only),
        pytest.param("index behind", "copy a piece", "inside", marks=full_only),
        pytest.param("index behind", "sql commit", "inside", marks=full_only),
    ],
)
def test_postgres_is_killed(states: States, report: Report, run: str, effect: str, moment: str) -> None:
    """The run itself tries again, on the server that it starts anew."""
    home = states.copy(behind(states, run), "server")
    done = headwater(home, "run", driver=("server", effect, moment))
    assert f"effect: {effect}" in done.stdout or effect in done.stdout, done.stdout[-2000:]
    wrong = differences(home, ends(states, run)) if done.returncode == 0 else [done.stdout[-2000:]]
    report.add(run, "PostgreSQL killed", f"{moment} `{effect}`", wrong, "by the run's own second try")
    assert not wrong
    stop(home)


def test_postgres_is_killed_under_a_query(states: States, report: Report) -> None:
    end = states.first_end
    home = states.copy(states.folder / "first", "query")
    ask = ("search", "what is written about glaciers", "--json")
    whole = headwater(home, *ask)
    assert whole.returncode == 0, whole.stdout
    variables = {"EFFECTS_QUERIES": "1"}
    broken = headwater(home, *ask, driver=("server", "lexeme", "inside"), variables=variables)
    assert broken.returncode in (0, 1)
    if broken.returncode:
        assert plain(broken.stdout), broken.stdout
    again = headwater(home, *ask)
    wrong = [] if again.stdout == whole.stdout else ["the hits"]
    wrong += differences(home, end)
    remark = "that search says so, the next one answers" if broken.returncode else "the search itself answers"
    report.add("search", "PostgreSQL killed", "inside the query", wrong, remark)
    assert not wrong
    stop(home)


@full_only
@pytest.mark.parametrize("effect", ["append bronze/raw_documents", "silver/documents", "gold/chunks"])
def test_the_jvm_is_killed_under_a_step(states: States, report: Report, effect: str) -> None:
    """The step dies, and its run with it."""
    home = states.copy(states.behind, "jvm")
    done = headwater(home, "run", driver=("jvm", effect, "before"), variables={"EFFECTS_SPARK": "1"})
    assert done.returncode == 1
    assert plain(done.stdout), done.stdout[-3000:]
    assert "Spark's JVM has ended" in done.stdout, done.stdout[-3000:]
    again = headwater(home, "run")
    assert again.returncode == 0, again.stdout[-3000:]
    wrong = differences(home, states.changed_end)
    report.add("changed", "step killed: its Spark", f"before `{effect}`", wrong, "that run fails and says so")
    assert not wrong
    stop(home)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[None]:
    """A file system of its own size on a folder, or a skip where this machine lets none be mounted."""
    folder.mkdir()
    options = f"size={size_bytes},mode=755"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "headwater", folder], capture_output=True)
    if made.returncode:
        folder.rmdir()
        pytest.skip("this machine lets no file system be mounted")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.skipif(not shutil.which("mount"), reason="no mount on this machine")
@pytest.mark.parametrize(
    ("run", "effect", "leave"),
    [
        ("tables made", "append ops/releases", 8192),
        pytest.param("tables made", "copy a piece", 0, marks=full_only),
        pytest.param("tables made", "append ops/releases", 0, marks=full_only),
        pytest.param("tables made", "sql INSERT INTO headwater.releases", 0, marks=full_only),
        pytest.param("changed", "append bronze/raw_documents", 0, marks=full_only),
        pytest.param("changed", "silver/documents", 16384, marks=full_only),
        pytest.param("changed", "gold/embeddings", 0, marks=full_only),
    ],
)
def test_the_disk_is_full(states: States, report: Report, run: str, effect: str, leave: int) -> None:
    """The run fails and says so; when there is room again, the next one goes on."""
    state, mount = (
        behind(states, run),
        states.folder / f"disk-{os.getpid()}-{effect.replace('/', '-').replace(' ', '-')}-{leave}",
    )
    size_bytes = sum(path.lstat().st_size for path in state.rglob("*"))
    with small_disk(mount, size_bytes + (400 << 20)):
        home = copy(state, mount / "home")
        # As root the database lies elsewhere; here on this disk too, where the server's user has to get to.
        states.folder.chmod(0o755)
        (home / "postgres").rename(mount / "postgres")
        (home / "postgres").symlink_to(mount / "postgres")
        try:
            full = headwater(
                home, "run", driver=("full", effect, "before"), variables={"EFFECTS_LEAVE": str(leave)}
            )
            (home / "ballast").unlink()
            told = full.returncode == 0 or (
                plain(full.stdout) and f"the disk that holds {home} is full" in full.stdout
            )
            again = headwater(home, "run")
            wrong = [again.stdout[-2000:]]
            if again.returncode == 0:
                wrong = differences(home, ends(states, run))
            remark = "that run fails and says so" if full.returncode else "that run needed no more"
            report.add(run, f"disk full but for {leave} bytes", f"before `{effect}`", wrong, remark)
            assert not wrong
            assert told, full.stdout[-3000:]
        finally:
            stop(home)


@pytest.mark.skipif(not shutil.which("faketime"), reason="no faketime on this machine (Debian: faketime)")
@pytest.mark.parametrize("run", ["tables made", pytest.param("changed", marks=full_only)])
def test_the_clock_is_set_back_an_hour(states: States, report: Report, run: str) -> None:
    """Everything that is there was written by a clock that was an hour ahead."""
    home = states.copy(behind(states, run), "clock")
    clock = ("faketime", "-f", "-1h")
    done = headwater(home, "run", prefix=clock)
    assert done.returncode == 0, done.stdout[-3000:]
    wrong = differences(home, ends(states, run))
    idle = headwater(home, "run", prefix=clock, driver=("record", str(home / "effects")))
    assert idle.returncode == 0, idle.stdout[-3000:]
    written = [
        line for line in (home / "effects").read_text().splitlines() if line.startswith(("append", "merge"))
    ]
    wrong += [f"nothing was new and it wrote {name}" for name in written]
    report.add(run, "clock set back an hour before the run", "", wrong)
    assert not wrong
    assert not orphans(home)
    stop(home)
