"""Progress: what is said of long work, how often, and how a terminal shows it."""

import logging
import os
import pty
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.progress import Progress, polled_progress, progress_line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("texts", 1200, 4000, 30.0), "texts: 1,200 of 4,000 (30%), 40/s, about 1 min 10 s left"),
        (("texts", 3, 12183, 3.0), "texts: 3 of 12,183 (0%), 1/s, about 3 h 23 min left"),
        (("texts", 5, None, 10.0), "texts: 5, 0.5/s"),
        (("sources", 1, 2, 30.0), "sources: 1 of 2 (50%), 2 per minute, about 30 s left"),
        (("texts", 0, 9, 10.0), "texts: 0 of 9 (0%)"),
        (("texts", 0, 0, 10.0), "texts: 0"),
        (("texts", 9, 9, 3.0), "texts: 9 of 9 (100%), 3/s"),
        (("texts", 9, 9, 0.0), "texts: 9 of 9 (100%)"),
    ],
)
def test_a_line_says_count_rate_and_time_left(
    arguments: tuple[str, int, int | None, float], line: str
) -> None:
    assert progress_line(*arguments) == line


def test_the_time_left_is_by_what_was_done_since_this_process_began() -> None:
    line = progress_line("steps", 110, 210, 10.0, before=100)
    assert line == "steps: 110 of 210 (52%), 1/s, about 1 min 40 s left"


@given(st.integers(0, 10**12), st.none() | st.integers(0, 10**12), st.floats(0, 1e9, allow_subnormal=False))
def test_a_line_is_one_whatever_the_numbers(done: int, total: int | None, seconds: float) -> None:
    line = progress_line("rows", done, total, seconds)
    assert line.startswith(f"rows: {done:,}")
    assert "\n" not in line
    assert "-" not in line.replace("e-", "e")


def test_a_count_that_stands_still_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    caplog.set_level(logging.INFO, "common.progress")
    progress = Progress("tasks", 6)
    for second in range(60):
        clock[0] = float(second)
        progress.reach(0 if second < 40 else 3)
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        "tasks: 0 of 6",
        "tasks: 3 of 6",
    ]


def test_short_work_says_nothing_and_long_work_says_little(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    caplog.set_level(logging.INFO, "common.progress")
    progress = Progress("rows", 10_000)
    for step in range(10_000):
        clock[0] = step / 100
        progress.advance()
        assert step > 199 or not caplog.records
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 20  # of 100 seconds: at 2, 7, 12 …
    assert lines[0] == "rows: 201 of 10,000 (2%), 100/s, about 1 min 38 s left"
    clock[0] = 200
    progress.reach(20_000)
    assert caplog.records[-1].getMessage().startswith("rows: 10,000 of 10,000 (100%)")


def test_work_elsewhere_is_asked_until_it_ends_and_its_faults_are_not_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("common.progress._POLLED_EACH_S", 0.001)
    asked: list[float] = []

    def poll() -> None:
        asked.append(0)
        raise ConnectionError("it has ended")

    with polled_progress(poll):
        while len(asked) < 3:
            time.sleep(0.001)
    seen = len(asked)
    time.sleep(0.01)
    assert len(asked) == seen


_COMMAND = """
import time
from orchestration.cli.terminal import print_progress, quiet_terminal
from common import progress
progress._FIRST_S = progress._INTERVAL_S = 0
with quiet_terminal():
    print_progress("silver …")
    counted = progress.Progress("documents parsed", 3)
    for _ in range(3):
        counted.advance()
    time.sleep(0.3)
    print_progress("silver done")
print('{"a": 1}')
"""


def test_a_pipe_gets_plain_lines_and_nothing_beside_the_result() -> None:
    done = subprocess.run([sys.executable, "-c", _COMMAND], capture_output=True, text=True, check=True)
    assert done.stdout == '{"a": 1}\n'
    lines = done.stderr.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "silver …",
        "documents parsed: 1 of 3 (33%)",
        "documents parsed: 2 of 3 (67%)",
        "documents parsed: 3 of 3 (100%)",
        "silver done",
    ]


# As Dagster does while a step runs: a file stands where standard error was.
_CAPTURED = _COMMAND.replace(
    "    counted", "    import os\n    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)\n    counted", 1
)


@pytest.mark.parametrize("command", [_COMMAND, _CAPTURED], ids=["", "captured"])
def test_a_terminal_gets_one_line_that_is_taken_away_again(command: str) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=theirs, env=environment
    )
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # Linux ends a terminal so
        pass
    out, _ = child.communicate(timeout=30)
    os.close(ours)
    assert out == b'{"a": 1}\n'
    text = seen.decode()
    assert "documents parsed: 3 of 3 (100%)" in text
    shown, _, rest = text.partition("silver done")
    assert rest.strip()
    assert shown.endswith("\x1b[2K\x1b[2m")  # the line was taken away before the next that stays
    assert "documents parsed" not in rest
