"""Which Java is taken, and what is said where it is missing or wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.environment.java import UnsupportedJava, find_java, parse_java_version, require_java


def fake_java(folder: Path, said: str, status: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "java"
    program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\nexit {status}\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def only_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with a folder of the test's own before the system's shell, and no JAVA_HOME."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "cat"):
        found = next(Path(folder) / name for folder in ("/bin", "/usr/bin") if (Path(folder) / name).exists())
        (tools / name).symlink_to(found)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{tools}")
    return tmp_path / "bin"


@pytest.mark.parametrize(
    ("said", "version", "major"),
    [
        ('java version "1.8.0_402"\nJava(TM) SE Runtime Environment (build 1.8.0_402-b06)', "1.8.0_402", 8),
        ('openjdk version "11.0.22" 2024-01-16', "11.0.22", 11),
        ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime Environment (build 17)', "17.0.15", 17),
        ('Picked up JAVA_TOOL_OPTIONS: -Dversion="9"\nopenjdk version "21" 2023-09-19', "21", 21),
        ('openjdk version "25-ea" 2025-09-16', "25-ea", 25),
    ],
)
def test_versions_are_read(only_path: Path, said: str, version: str, major: int) -> None:
    assert parse_java_version(said) == version
    fake_java(only_path, said)
    assert find_java().major == major
    if major in (17, 21):
        assert require_java().version == version
    else:
        with pytest.raises(UnsupportedJava, match=rf"Java {version} .*install Java 17 or 21"):
            require_java()


def test_none_at_all(only_path: Path) -> None:
    with pytest.raises(UnsupportedJava, match="no `java` on PATH; install Java 17 or 21"):
        require_java()


def test_java_home_comes_before_the_path(
    only_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_java(only_path, 'openjdk version "17.0.1"')
    fake_java(tmp_path / "jdk" / "bin", 'openjdk version "21.0.2"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert require_java().major == 21


def test_a_java_home_without_java(only_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(only_path, 'openjdk version "17.0.1"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    with pytest.raises(UnsupportedJava, match=f"JAVA_HOME is {tmp_path / 'gone'}"):
        require_java()


@pytest.mark.parametrize(("said", "status"), [("Unable to locate a Java Runtime.", 1), ("hello", 0)])
def test_a_program_that_is_no_java(only_path: Path, said: str, status: int) -> None:
    fake_java(only_path, said, status)
    with pytest.raises(UnsupportedJava, match=said):
        require_java()


def test_set_up_stops_before_the_download(only_path: Path) -> None:
    fake_java(only_path, 'openjdk version "11.0.22" 2024-01-16')
    # -S: no package is installed yet when set-up asks. Nor need the current folder be on the path.
    done = subprocess.run(
        [sys.executable, "-S", "orchestration/environment/java.py"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: Java 11.0.22")
    assert "Traceback" not in done.stderr
