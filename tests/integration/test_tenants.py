"""A tenant ends: what it holds is counted, it goes in one release, and a killed removal goes on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked_commands import run_forked

from orchestration.api import open_lake
from orchestration.settings import Settings
from orchestration.tenants.holdings import list_tenants, show_tenant
from orchestration.tenants.removal import OnlyTenant, remove_tenant
from retrieval.index.index import Index
from retrieval.index.release_log import ReleaseHeld
from retrieval.store.postgres import Postgres

HEADWATER = [sys.executable, "-m", "orchestration.cli.main"]
ROWS = "select tenant, uri, text_sha256 from silver.documents order by uri"


@pytest.fixture(scope="module")
def home(module_folder: Path) -> Iterator[Path]:
    """A state folder with documents and an answer of acme and of globex, and a document of both."""
    for tenant, text in (
        ("acme", "The harbour closes at nine."),
        ("globex", "The lantern is made of copper."),
    ):
        folder = module_folder / tenant
        folder.mkdir()
        (folder / "own.md").write_text(
            f"# {tenant}\n\n{text} Ask the office of {tenant} for more about it.\n"
        )
        (folder / "same.md").write_text("# Leave\n\nEvery employee has thirty days of paid leave a year.\n")
        (folder / "noise.bin").write_bytes(bytes(range(256)) * 9)
    with open_lake(module_folder / "state") as lake:
        lake.settings.home.mkdir()
        lake.ingest(module_folder / "acme", tenant="acme")
        (module_folder / "acme" / "own.md").write_text(
            "# acme\n\nThe harbour closes at ten, and not at nine.\n"
        )
        lake.ingest(module_folder / "globex", tenant="globex")
        for question, tenant in (
            ("When does the harbour close?", "acme"),
            ("What is the lantern made of?", "globex"),
        ):
            lake.rate(lake.ask(question, tenant=tenant).answer_id, "good", f"{tenant} says so")
    yield lake.settings.home
    Postgres(lake.settings.home, lake.settings.postgres).stop()


def headwater(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    surroundings = os.environ | {"HEADWATER_HOME": str(home), "COLUMNS": "200"} | variables
    return run_forked(arguments, surroundings, timeout_s=500)


def printed(home: Path, *arguments: str) -> Any:
    done = headwater(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def kill_when_it_says(home: Path, words: str, *arguments: str) -> None:
    process = subprocess.Popen(
        [*HEADWATER, *arguments],
        env=os.environ | {"HEADWATER_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            os.killpg(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL, "".join(said)


def test_what_is_held_is_counted(home: Path) -> None:
    held = {each.tenant: each for each in list_tenants(Settings(home=home))}
    assert set(held) == {"acme", "globex"}
    acme = held["acme"]
    assert acme.sources == ["acme"]
    assert acme.rows["bronze.raw_documents"] == 4
    assert (acme.rows["silver.documents"], acme.rows["silver.quarantine"], acme.rows["gold.answers"]) == (
        2,
        1,
        1,
    )
    assert acme.releases == {"r1.2": 2, "r1.1": 2}
    assert acme.live == "r1.2"
    assert acme.searchable == 2
    assert held["globex"].releases == {"r1.2": 2}
    listed = {row["tenant"]: row for row in printed(home, "tenant", "list")}
    assert listed["acme"]["searchable"] == 2
    assert "gold.answers" in headwater(home, "tenant", "show", "globex").stdout


def test_a_tenant_that_can_not_go_keeps_everything(home: Path) -> None:
    settings = Settings(home=home)
    unknown = headwater(home, "tenant", "remove", "initech", "--yes")
    assert unknown.returncode == 1
    assert "'initech'; there are: acme, globex" in unknown.stderr
    unasked = headwater(home, "tenant", "remove", "acme")
    assert unasked.returncode == 1
    assert "Remove all of this of acme?" in unasked.stderr
    index = Index(Postgres(home, settings.postgres))
    index.hold(None, "the auditors", "they look at it")
    try:
        with pytest.raises(ReleaseHeld, match="the auditors"):
            remove_tenant(settings, "acme", print)
    finally:
        index.end_hold()
    assert show_tenant(settings, "acme").sources == ["acme"]
    assert show_tenant(settings, "acme").searchable == 2


@pytest.mark.slow
def test_a_tenant_goes_in_one_release_also_when_it_was_killed_on_its_way(home: Path) -> None:
    settings = Settings(home=home)
    with open_lake(home) as lake:
        globex = [row for row in lake.sql(ROWS).to_pylist() if row["tenant"] == "globex"]
        before = lake.search("lantern", tenant="globex")
        kill_when_it_says(home, "documents …", "tenant", "remove", "acme", "--yes")
        # What was live stays live, and the rest is still known to be the tenant's.
        assert lake.search("harbour", tenant="acme")
        left = show_tenant(settings, "acme")
        assert left.sources == []
        assert "bronze.raw_documents" not in left.rows
        assert left.searchable == 2
        done = printed(home, "tenant", "remove", "acme", "--yes")
        assert done["release"] == "r1.3"
        assert lake.search("harbour", tenant="acme") == []
        assert lake.sql(ROWS).to_pylist() == globex
        assert lake.search("lantern", tenant="globex") == before
        answers = lake.sql("select tenant, question from gold.answers").to_pylist()
        assert answers == [{"tenant": "globex", "question": "What is the lantern made of?"}]
        assert lake.sql("select reason from ops.answer_ratings").to_pylist() == [{"reason": "globex says so"}]
        assert lake.sql("select count(*) as n from silver.signatures").to_pylist() == [{"n": 2}]
        said = {each["what"].split(",")[0]: each["until"] for each in done["remaining"]}
        assert said["its chunks in the index"].startswith("9 newer releases; `HEADWATER_RELEASES_KEPT=1")
        assert any("backup" in what for what in said)
        # What remains is only in releases of before, and goes as it was said.
        assert show_tenant(settings, "acme").rows == {}
        assert list(show_tenant(settings, "acme").releases) == ["r1.2", "r1.1"]
        listed = headwater(home, "tenant", "list").stdout
        assert "acme is gone but for chunks in earlier releases (r1.2, r1.1), and goes with" in listed
        assert listed.count("acme") == 1
        assert {row["tenant"]: row["is_gone"] for row in printed(home, "tenant", "list")} == {
            "acme": True,
            "globex": False,
        }
        run = headwater(home, "run", HEADWATER_RELEASES_KEPT="1")
        assert run.returncode == 0, run.stderr[-3000:]
        assert "live: release r1.3" in run.stdout
    assert [each.tenant for each in list_tenants(settings)] == ["globex"]
    with pytest.raises(OnlyTenant, match="delete the state folder"):
        remove_tenant(settings, "globex", print)
