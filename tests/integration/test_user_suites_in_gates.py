"""A suite that a user adds runs in its table's gate, blocks or warns, and lets no value of a row out."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from forked_commands import run_forked

from orchestration.definitions import build_definitions
from orchestration.settings import Settings, open_configured_lake
from retrieval.store.postgres import Postgres

SECRET = "hunter2-correct-horse"
DOCUMENTS = dg.AssetKey(["silver", "documents"])
STRICT = {
    "name": "strict",
    "expectations": [
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "char_count", "min_value": 100_000},
        },
        # Great Expectations would show every text, and the values that it did not expect.
        {
            "type": "expect_column_distinct_values_to_be_in_set",
            "kwargs": {"column": "text", "value_set": ["A"]},
        },
        {"type": "expect_column_values_to_not_match_regex", "kwargs": {"column": "text", "regex": "horse"}},
        {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "doc_id"}},
    ],
}


def query(sql: str) -> dict[str, Any]:
    return {"type": "unexpected_rows_expectation", "kwargs": {"unexpected_rows_query": sql}}


IN_SQL = {
    "name": "in_sql",
    "expectations": [
        query("SELECT * FROM {batch} WHERE text LIKE '%horse%'"),
        query("SELECT * FROM {batch} WHERE char_count < 0"),
        # Spark quotes the text that it can not cast.
        query("SELECT * FROM {batch} WHERE CAST(text AS INT) > 0"),
    ],
}


class Home:
    """A state folder, and the command line over it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder / "state")
        self.docs = folder / "docs"
        self.docs.mkdir()
        self.folder = folder
        self.printed = ""

    def write(self, name: str, text: str) -> None:
        (self.docs / name).write_text(text)

    def suite(self, suite: dict[str, Any]) -> Path:
        file = self.folder / f"{suite['name']}.json"
        file.write_text(json.dumps(suite))
        return file

    def headwater(self, *arguments: object) -> "subprocess.CompletedProcess[str]":
        surroundings = os.environ | {"HEADWATER_HOME": str(self.settings.home), "COLUMNS": "400"}
        done = run_forked([*map(str, arguments)], surroundings)
        self.printed += done.stdout + done.stderr
        return done

    def succeed(self, *arguments: object) -> str:
        done = self.headwater(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def version(self, table: str) -> int:
        return open_configured_lake(self.settings).version(table)

    def newest_audit(self, table: str) -> dict[str, Any]:
        lake = open_configured_lake(self.settings)
        audits = lake.query(
            'select * from audits where "table" = ? order by audited_at desc limit 1',
            [table],
            audits=lake.delta("ops.audits"),
        )
        row: dict[str, Any] = audits.to_pylist()[0]
        return row

    def live(self) -> str:
        (live,) = [each for each in json.loads(self.succeed("releases", "--json")) if each["live"]]
        return str(live["release"])


@pytest.fixture(scope="module")
def home(module_folder: Path) -> Any:
    made = Home(module_folder)
    made.write("tides.md", "# Tides\n\nThe moon pulls the oceans into two great bulges of water.\n")
    made.write("bees.md", "# Bees\n\nThe waggle dance of the workers tells where the flowers are.\n")
    made.succeed("ingest", made.docs)
    yield made
    Postgres(made.settings.home, made.settings.postgres).stop()


def test_a_suite_that_fails_closes_the_gate_and_one_that_warns_does_not(home: Home) -> None:
    chunks, live = home.version("gold.chunks"), home.live()
    home.succeed("gates", "add", "silver.documents", home.suite(STRICT))
    listed = json.loads(home.succeed("gates", "list", "--json"))
    names = [row["check"] for row in listed if row["suite"] == "strict"]
    assert len(names) == 4
    home.write("secret.md", f"# Secret\n\nThe pass phrase of the harbour is {SECRET} since last year.\n")
    refused = home.headwater("run")
    assert refused.returncode == 1
    printed = " ".join(refused.stderr.split())
    for check, count in (("be_between__char_count", "3 rows do"), ("not_match_regex__text", "1 row does")):
        said = printed.partition(f"strict__column_values_to_{check} failed: ")[2].partition(" gate ")[0]
        assert f"({count} not meet it)" in said
    assert "DagsterAssetCheckFailedError" not in printed
    audit = home.newest_audit("silver.documents")
    assert audit["passed"] is False
    assert set(audit["failed"]) == set(names) - {"strict__column_values_to_be_unique__doc_id"}
    assert audit["version"] == home.version("silver.documents")
    # Nothing that comes after has moved, also not when it is asked for by itself.
    assert (home.version("gold.chunks"), home.live()) == (chunks, live)
    home.headwater("run", "--select", 'key:"gold/chunks"+')
    assert (home.version("gold.chunks"), home.live()) == (chunks, live)

    home.succeed("gates", "remove", "strict")
    home.succeed("gates", "add", "silver.documents", home.suite(STRICT), "--severity", "warn")
    warned = home.headwater("run")
    assert warned.returncode == 0
    printed = " ".join(warned.stderr.split())
    assert "warning: gate silver/documents: strict__column_values_to_not_match_regex__text failed" in printed
    audit = home.newest_audit("silver.documents")
    assert audit["passed"] is True
    assert len(audit["failed"]) == 3
    assert home.version("gold.chunks") == chunks + 1
    assert home.live() != live


def test_a_query_of_the_users_runs_on_spark(home: Home) -> None:
    home.succeed("gates", "add", "silver.documents", home.suite(IN_SQL), "--severity", "warn")
    home.succeed("run")
    audit = home.newest_audit("silver.documents")
    assert audit["passed"] is True
    assert {name for name in audit["failed"] if name.startswith("in_sql")} == {
        "in_sql__unexpected_rows",
        "in_sql__unexpected_rows__3",
    }
    page = (home.settings.home / "data_docs" / "silver.documents" / "suite_in_sql.html").read_text()
    assert "WHERE char_count &lt; 0" in page or "WHERE char_count < 0" in page
    # An unchanged table under unchanged suites is not looked at again.
    before = home.version("ops.audits")
    home.succeed("run")
    assert home.version("ops.audits") == before


def test_what_is_added_is_checks_of_the_table(home: Home) -> None:
    graph = build_definitions(home.settings).get_repository_def().asset_graph
    specs = {key.name: graph.get_check_spec(key) for key in graph.get_check_keys_for_assets({DOCUMENTS})}
    assert not specs["strict__column_values_to_be_between__char_count"].blocking
    assert "char_count" in (specs["strict__column_values_to_be_between__char_count"].description or "")
    assert specs["row_count"].blocking


def test_no_value_of_a_row_was_let_out(home: Home) -> None:
    assert SECRET not in home.printed
    pages = list((home.settings.home / "data_docs").rglob("*.html"))
    assert {"suite_strict.html", "suite_in_sql.html", "index.html"} <= {page.name for page in pages}
    assert not any(SECRET in page.read_text() for page in pages)
    lake = open_configured_lake(home.settings)
    assert SECRET not in str(lake.delta("ops.audits").to_pyarrow_table().to_pylist())
    # Dagster's record of the checks, with their metadata.
    events = [path.read_bytes() for path in home.settings.dagster_home.rglob("*.db")]
    assert events
    assert not any(SECRET.encode() in content for content in events)


def test_what_can_not_be_added_is_one_line(home: Home) -> None:
    for arguments, message in (
        (("silver.duplicates", home.suite(STRICT)), "no gate guards 'silver.duplicates'"),
        (("silver.documents", home.folder / "absent.json"), "there is no file"),
        (("silver.documents", home.suite(STRICT)), "there is a suite strict already"),
    ):
        done = home.headwater("gates", "add", *arguments)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr
