"""Where the state folder is found, and what is said where there is none or it can not be used."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestration.cli.main import app
from orchestration.settings import Settings
from orchestration.state_folder import StateFolderError, make_state_folder, require_state_folder

HEADWATER = str(Path(sys.executable).parent / "headwater")
SOMEBODY_ELSE = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away and mounts")


@pytest.fixture(autouse=True)
def _nothing_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADWATER_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def home_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    return Settings().home


def test_the_nearest_state_folder_upwards_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "project" / "docs" / "deep"
    below.mkdir(parents=True)
    assert home_from(below, monkeypatch) == tmp_path / "data" / "headwater"
    (tmp_path / ".headwater").mkdir()
    assert home_from(below, monkeypatch) == tmp_path / ".headwater"
    (tmp_path / "project" / ".headwater").mkdir()
    (below / ".headwater").touch()  # a file is none
    assert home_from(below, monkeypatch) == tmp_path / "project" / ".headwater"
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path / "named"))
    assert Settings().home == tmp_path / "named"
    monkeypatch.setenv("HEADWATER_HOME", "")  # names none, and not the working directory
    assert Settings().home == tmp_path / "project" / ".headwater"


@as_root
def test_a_state_folder_of_somebody_else_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "shared" / ".headwater"
    planted.mkdir(parents=True)
    os.chown(planted, SOMEBODY_ELSE, SOMEBODY_ELSE)
    home = home_from(planted.parent, monkeypatch)
    assert home == tmp_path / "data" / "headwater"
    with pytest.raises(StateFolderError) as told:
        require_state_folder(home)
    assert f"({planted} belongs to user {SOMEBODY_ELSE})" in str(told.value)
    with pytest.raises(StateFolderError, match=f"belongs to user {SOMEBODY_ELSE}, and you are 0: work as"):
        make_state_folder(planted)


@pytest.mark.parametrize(
    "command",
    [
        ["ask", "Is there anything?"],
        ["search", "anything"],
        ["sql", "show tables"],
        ["status"],
        ["trace", "no-such-thing"],
        ["releases"],
        ["down"],
    ],
    ids=lambda command: command[0],
)
def test_a_command_that_reads_says_where_it_looked_and_makes_nothing(
    tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    done = CliRunner().invoke(app, command)
    assert isinstance(done.exception, StateFolderError)
    assert f"a .headwater of yours in {here} and above it" in str(done.exception)
    assert f"and for {tmp_path / 'data' / 'headwater'};" in str(done.exception)
    assert "`headwater ingest PATH` makes" in str(done.exception)
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == [here]


def test_a_named_folder_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    done = subprocess.run(
        [HEADWATER, "ask", "Is there anything?", "--json"],
        env=os.environ | {"HEADWATER_HOME": str(missing)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"error: there is no state folder {missing}, which HEADWATER_HOME names" in done.stderr
    assert "raceback" not in done.stderr
    assert not missing.exists()


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "link"):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(tmp_path / "nowhere")
        with pytest.raises(StateFolderError, match=f"the state folder {home} is no folder"):
            make_state_folder(home)
    with pytest.raises(StateFolderError, match=r"can not be made \(Not a directory\)"):
        make_state_folder(tmp_path / "file" / "home")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own; skips where this machine lets none be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("nothing can be mounted here")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=20", "headwater", folder], capture_output=True
    )
    if made.returncode:
        pytest.skip("this machine lets no file system be mounted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_read_only_home_is_told(mounted: Path) -> None:
    make_state_folder(mounted / "home")
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    with pytest.raises(StateFolderError, match="is on a file system that is read-only: make it writable"):
        require_state_folder(mounted / "home")
    with pytest.raises(StateFolderError, match=r"can not be made \(Read-only file system\)"):
        make_state_folder(mounted / "other")


def test_a_home_on_a_full_disk_is_told(mounted: Path, tmp_path: Path) -> None:
    make_state_folder(mounted / "home")
    for number in range(20):  # no name is left for another file
        try:
            (mounted / f"{number}").touch()
        except OSError:
            break
    with pytest.raises(StateFolderError, match=r"can not be made \(No space left on device\)"):
        make_state_folder(mounted / "other")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("A document.")
    done = subprocess.run(
        [HEADWATER, "ingest", str(tmp_path / "docs")],
        env=os.environ | {"HEADWATER_HOME": str(mounted / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"the disk that holds {mounted / 'home'} is full or takes no more: make room" in done.stderr


def test_a_closed_home_is_told_to_its_owner(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_state_folder(home)
    assert home.stat().st_mode & 0o777 == 0o700
    if os.geteuid() != 0:  # no mode keeps root out
        home.chmod(0o500)
        with pytest.raises(StateFolderError, match="is closed to its owner"):
            require_state_folder(home)
