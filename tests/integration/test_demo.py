"""`headwater demo` as a newcomer runs it, with the network cut, and every command of the README after it."""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HEADWATER = str(Path(sys.executable).parent / "headwater")
# Not through a user namespace: as "root" there, the embedded server could not be given to its own user.
OFFLINE = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "offline"]


def network_can_be_cut() -> bool:
    probe = [*OFFLINE, "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def user() -> Iterator[dict[str, str]]:
    """The environment of a new user with a few documents of their own; services on ports nobody has."""
    with tempfile.TemporaryDirectory(prefix="headwater-demo-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        for name in ("my-docs", "handbook"):
            (home / name).mkdir()
        (home / "my-docs" / "a.md").write_text(
            "# Warranty\n\nThe warranty lasts for twenty-four months from the day of purchase. "
            "To make a warranty claim, send the device and the receipt to the service centre.\n"
        )
        (home / "payroll").mkdir()
        (home / "payroll" / "april.md").write_text("# April\n\nThe director earns what the board decided.\n")
        (home / "handbook" / "leave.md").write_text(
            "# Leave\n\nEvery employee has thirty days of paid leave a year, to be agreed with the team.\n"
        )
        (home / "questions.jsonl").write_text('{"id": "q1", "question": "How long is the warranty?"}\n')
        environment = os.environ | {
            "HOME": folder,
            "HEADWATER_HOME": str(home / "state"),
            "HEADWATER_WEB_PORT": "23917",
            "HEADWATER_THRIFT_PORT": "23918",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "200",
        }
        yield environment
        subprocess.run([HEADWATER, "down"], env=environment, capture_output=True, check=False)


def run(
    arguments: list[str], environment: dict[str, str], timeout_s: float = 600
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )


@pytest.fixture(scope="module")
def demo(user: dict[str, str]) -> dict[str, Any]:
    """What `headwater demo --json` printed on a fresh state folder, with no network where it can be cut."""
    cut = OFFLINE if network_can_be_cut() else []
    done = run([*cut, HEADWATER, "demo", "--json"], user)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_demo_keeps_its_contract(demo: dict[str, Any]) -> None:
    funnel = demo["funnel"]
    assert set(funnel) == {
        "raw", "exact_duplicates", "near_duplicates", "quarantined", "documents", "chunks", "embedded",
    }  # fmt: skip
    assert all(isinstance(count, int) for count in funnel.values())
    kept_out = funnel["exact_duplicates"] + funnel["near_duplicates"] + funnel["quarantined"]
    assert funnel["raw"] == funnel["documents"] + kept_out
    assert funnel["raw"] > 300
    assert funnel["near_duplicates"] > 20
    assert demo["metrics"]["ndcg@10"] >= 0.6
    assert demo["metrics"]["recall@10"] >= 0.7
    assert demo["metrics"]["questions"] >= 40
    assert demo["release"] == "r1.1"
    answered = [answer for answer in demo["answers"] if answer["citations"]]
    assert len(answered) >= 2
    assert any(not answer["citations"] for answer in demo["answers"])
    assert all(seconds >= 0 for seconds in demo["seconds"].values())


def readme_commands() -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.slow
def test_every_command_of_the_readme_works(demo: dict[str, Any], user: dict[str, str]) -> None:
    """In its order; `make demo` and `make test` are what runs this."""
    commands = readme_commands()
    assert len(commands) > 15
    for command in commands:
        line = command.replace("file:///home/me", Path(user["HOME"]).as_uri())
        line = line.replace("ANSWER_ID", demo["answers"][0]["answer_id"])
        line = line.replace(
            " ~/.local/share/headwater/", f" {user['HEADWATER_HOME']}/"
        )  # the state folder, unless told
        done = run(["bash", "-c", line], user)
        assert done.returncode == 0, f"{command}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        if "warranty" in command:
            assert "a.md" in done.stdout, command


@pytest.mark.slow
def test_sql_answers_in_a_moment_and_only_reads(demo: dict[str, Any], user: dict[str, str]) -> None:
    done = run([HEADWATER, "sql", "select count(*) as n from gold.chunks", "--format", "json"], user)
    assert json.loads(done.stdout)[0]["n"] >= demo["funnel"]["chunks"]
    assert done.returncode == 0
    refused = run([HEADWATER, "sql", "delete from gold.chunks"], user)
    assert refused.returncode == 1
    assert "read-only" in refused.stderr


def test_the_readme_names_only_what_is_there() -> None:
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / link).exists(), link
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for command in readme_commands():
        words = [word for word in shlex.split(command) if not word.startswith("HEADWATER_HOME=")]
        assert words[0] == "headwater"
