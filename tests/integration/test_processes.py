"""Processes are found again, told from strangers with the same pid, and stopped whole."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from orchestration.services.processes import (
    ServiceError,
    StartedProcess,
    is_port_free,
    port_holder,
    process_group,
    read_pid_file,
    running_process,
    start_process,
    started_since_boot_s,
    stop_process_group,
    wait_until_healthy,
)

# A parent that starts a child and says its pid; neither minds being asked to end, if told so.
FAMILY = """
import signal, subprocess, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def family(folder: Path, *arguments: str) -> tuple[StartedProcess, int]:
    log = folder / "family.log"
    started = start_process(
        [sys.executable, "-c", FAMILY, *arguments], folder / "family.pid", log, os.environ
    )
    wait_until_healthy(lambda: log.read_text().strip() != "", started, log, timeout_s=20)
    return started, int(log.read_text())


def test_stop_takes_the_children_too(tmp_path: Path) -> None:
    started, child = family(tmp_path)
    assert read_pid_file(tmp_path / "family.pid") == started
    assert {process.pid for process in process_group(started)} == {started.pid, child}
    assert stop_process_group(tmp_path / "family.pid")
    assert not process_group(started)
    assert not psutil.pid_exists(child)
    assert not (tmp_path / "family.pid").exists()
    assert not stop_process_group(tmp_path / "family.pid")


def test_children_of_a_killed_leader_are_stopped(tmp_path: Path) -> None:
    started, child = family(tmp_path)
    os.kill(started.pid, signal.SIGKILL)
    os.waitpid(started.pid, 0)
    assert running_process(started) is None
    assert [process.pid for process in process_group(started)] == [child]
    assert stop_process_group(tmp_path / "family.pid")
    assert not process_group(started)


def test_a_copied_pid_file_is_no_process_of_the_copys(tmp_path: Path) -> None:
    original, copy, moved = tmp_path / "original", tmp_path / "copy", tmp_path / "moved"
    started, _ = family(original)
    shutil.copytree(original, copy)
    assert read_pid_file(copy / "family.pid") is None
    assert not stop_process_group(copy / "family.pid")
    assert running_process(started) is not None
    original.rename(moved)
    assert read_pid_file(moved / "family.pid") == started
    assert stop_process_group(moved / "family.pid")
    assert running_process(started) is None


def test_a_pid_file_of_an_older_version_names_its_process(tmp_path: Path) -> None:
    started, _ = family(tmp_path)
    file = tmp_path / "family.pid"
    file.write_text(json.dumps({"pid": started.pid, "born_s": started.born_s}))
    assert stop_process_group(file)
    assert running_process(started) is None


def test_what_does_not_listen_is_killed(tmp_path: Path) -> None:
    started, _ = family(tmp_path, "stubborn")
    assert stop_process_group(tmp_path / "family.pid", grace_s=0.5)
    assert not process_group(started)


def test_a_pid_that_was_given_to_another_is_left_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
    )
    try:
        pid_file = tmp_path / "ours.pid"
        pid_file.write_text(
            json.dumps(
                {"pid": stranger.pid, "born_s": started_since_boot_s(psutil.Process(stranger.pid)) - 1}
            )
        )
        ours = read_pid_file(pid_file)
        assert ours is not None
        assert running_process(ours) is None
        assert process_group(ours) == []
        assert not stop_process_group(pid_file)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": 1, "more": 2}'])
def test_a_pid_file_that_was_cut_off_is_no_process(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.pid").write_text(text)
    assert read_pid_file(tmp_path / "x.pid") is None
    assert not stop_process_group(tmp_path / "x.pid")


def test_one_that_ends_at_once_says_why(tmp_path: Path) -> None:
    log = tmp_path / "short.log"
    log.write_text("an older start\n")
    began_s = time.monotonic()
    command = [sys.executable, "-c", "raise SystemExit('the disk is full')"]
    started = start_process(command, tmp_path / "short.pid", log, os.environ)
    with pytest.raises(
        ServiceError, match=r"short ended before it was ready; [^\n]*\nthe disk is full"
    ) as caught:
        wait_until_healthy(lambda: False, started, log, timeout_s=60, log_from=15)
    assert "an older start" not in str(caught.value)
    assert time.monotonic() - began_s < 30


def test_who_holds_a_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_port_free(port)
        assert f"process {os.getpid()} " in port_holder(port)
    assert is_port_free(port)


def test_a_service_is_found_again_when_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, child = family(tmp_path)
    began = psutil.boot_time()
    monkeypatch.setattr("psutil._psplatform.boot_time", lambda: began - 3600)
    found = running_process(started)
    assert found is not None
    assert found.pid == started.pid
    assert {process.pid for process in process_group(started)} == {started.pid, child}
    assert stop_process_group(tmp_path / "family.pid")
    assert not psutil.pid_exists(child)
