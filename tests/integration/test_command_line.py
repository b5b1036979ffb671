"""What a person does wrong at the command line: one message that names the thing and the cure."""

import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
from forked_commands import run_forked
from index_rows import DIMENSION, NO_LINEAGE, Chunk, batch, made_with
from typer.testing import CliRunner

from orchestration.cli.main import app
from orchestration.settings import Settings
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres


def headwater(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (home / "state").mkdir(parents=True, exist_ok=True)
    surroundings = os.environ | {"HEADWATER_HOME": str(home / "state"), "COLUMNS": "200"} | environment
    return run_forked(arguments, surroundings, timeout_s=240)


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """It failed, said why in words on standard error, and printed nothing that looks like a result."""
    assert done.returncode not in (0, -9), done.stdout
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for words in said:
        assert words in done.stderr, done.stderr[-2000:]


def sources(home: Path) -> list[str]:
    listed = headwater(home, "source", "list", "--json")
    assert listed.returncode == 0
    return [source["name"] for source in json.loads(listed.stdout)]


def program(folder: Path, said: str) -> str:
    """A folder with a `java` that says what it is told to, as a JAVA_HOME."""
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    java.chmod(0o755)
    return str(folder)


def test_paths_without_documents_are_refused_before_any_becomes_a_source(module_folder: Path) -> None:
    home = module_folder / "paths"
    (home / "good").mkdir(parents=True)
    (home / "good" / "a.txt").write_text("A document.")
    (home / "empty").mkdir()
    good, empty, missing = (str(home / name) for name in ("good", "empty", "missing"))
    refused(headwater(home, "ingest", good, missing), missing, "check")
    refused(headwater(home, "ingest", good, empty, "--json"), f"no documents in {empty}")
    assert sources(home) == []


def test_a_name_is_given_to_one_source(module_folder: Path) -> None:
    home = module_folder / "names"
    (home / "docs").mkdir(parents=True)
    assert headwater(home, "source", "add", "docs", str(home / "docs")).returncode == 0
    again = headwater(home, "source", "add", "docs", str(home))
    refused(again, "'docs' is there already", "source remove docs")
    refused(headwater(home, "source", "remove", "dogs"), "'dogs'", "there are: docs")
    unfit = headwater(home, "source", "add", "a b", str(home))
    refused(unfit, "error: name: String should match pattern '^[A-Za-z0-9_-]+$'")
    assert "pydantic" not in unfit.stderr
    assert sources(home) == ["docs"]


def test_a_text_column_that_is_not_there_is_named_with_those_that_are(module_folder: Path) -> None:
    home = module_folder / "rows"
    home.mkdir()
    (home / "rows.jsonl").write_text('{"id": 1, "body": "A text."}\n')
    added = headwater(home, "source", "add", "rows", str(home / "rows.jsonl"), "--text-column", "words")
    assert added.returncode == 0
    done = headwater(home, "run")
    refused(done, "words", "rows.jsonl", "body")


def test_questions_that_can_not_be_answered(module_folder: Path) -> None:
    home = module_folder / "questions"
    refused(headwater(home, "ask", "  "), "question")
    refused(headwater(home, "ask", "Is there anything?"), "nothing is released yet", "headwater ingest")
    refused(headwater(home, "search", "anything", "--mode", "magic", "--json"), "magic", "hybrid")
    refused(headwater(home, "rollback", "r9.9"), "nothing is live yet", "headwater run")
    ran = headwater(home, "run")
    refused(ran, "no source yet", "headwater ingest")
    assert "Dependencies for step" not in ran.stderr
    refused(headwater(home, "trace", "no-such-thing"), "no-such-thing")


@pytest.mark.slow
def test_ingest_and_run_end_alike_and_what_they_name_can_be_pasted(module_folder: Path) -> None:
    home = module_folder / "ends"
    (home / "docs").mkdir(parents=True)
    for name in ("a", "same"):
        (home / "docs" / f"{name}.md").write_text(
            "# Warranty\n\nThe warranty lasts for two years from now.\n"
        )
    (home / "docs" / "noise.bin").write_bytes(bytes(range(256)) * 9)
    try:
        ingested = headwater(home, "ingest", str(home / "docs"), COLUMNS="80")
        ran = headwater(home, "run", COLUMNS="80")
        for done in (ingested, ran):
            assert done.returncode == 0, done.stderr
            for noise in ("\x1b", "WARN", "traceback in", "Traceback"):
                assert noise not in done.stdout + done.stderr
        # The rows of silver.documents, which the web UI counts, are the documents and their duplicates.
        [rows] = json.loads(
            headwater(home, "sql", "select count(*) as n from silver.documents", "--json").stdout
        )
        funnel = (
            "3 raw = 1 document + 1 exact + 0 near duplicates + 1 quarantined "
            f"(silver.documents: {rows['n']}, with duplicates); 1 chunk, 1 embedded"
        )
        first, then = ingested.stdout.splitlines(), ran.stdout.splitlines()
        assert first[0] == then[0] == funnel
        assert first[1] == "quarantined by this run:"
        assert "noise.bin: The bytes are of no kind of file" in first[2]
        assert first[3:] == then[1:]
        assert first[-1].startswith("live: release r1.1; 1 document, 1 chunk can be searched")

        [hit] = json.loads(headwater(home, "search", "warranty", "--k", "1", "--json").stdout)
        shown = headwater(home, "search", "warranty", "--k", "1", COLUMNS="80").stdout
        assert any(hit["chunk_id"] in line and "Warranty" in line for line in shown.splitlines())
        traced = json.loads(headwater(home, "trace", hit["chunk_id"][:10], "--json").stdout)
        assert (traced["kind"], traced["id"]) == ("chunk", hit["chunk_id"])
        assert (
            json.loads(headwater(home, "trace", str(home / "docs" / "a.md"), "--json").stdout)["kind"]
            == "uri"
        )
        answered = json.loads(headwater(home, "ask", "How long does the warranty last?", "--json").stdout)
        assert answered["refused"] is False
        settings = headwater(home, "settings", COLUMNS="80").stdout
        assert any("HEADWATER_POSTGRES__SERVING_URL" in line for line in settings.splitlines())
    finally:
        settings_of_home = Settings(home=home / "state")
        Postgres(settings_of_home.home, settings_of_home.postgres).stop()


def test_a_search_says_how_it_searched_and_when_there_is_no_more(module_folder: Path) -> None:
    home = module_folder / "explained"
    settings = Settings(home=home / "state")
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    rows = [
        Chunk(name, text, tenant="default", vector=tuple(model.embedder.encode([text])[0].tolist()))
        for name, text in (("wind", "wind over the harbor"), ("salt", "salt and copper"))
    ]
    postgres = Postgres(settings.home, settings.postgres)
    try:
        index = Index(postgres)
        state = index.build(model.digest, "chunker", model.embedder.dimension, [batch(rows)], NO_LINEAGE)
        index.release("r1", state, None, made_with(model.digest))
        asked = ("search", "wind", "--k", "5")
        explained = json.loads(headwater(home, *asked, "--explain", "--json").stdout)
        plan = explained["plan"]
        assert (plan["mode"], plan["asked"], plan["found"]) == ("hybrid", 5, 2)
        assert (plan["vector"]["method"], plan["vector"]["tenant_chunks"]) == ("exact", 2)
        assert "2 chunks without a graph" in plan["vector"]["why"]
        # Without it the output stays a list of hits.
        plain = headwater(home, *asked, "--json")
        assert json.loads(plain.stdout) == explained["hits"]
        assert "2 of the 5 chunks asked for: no other that this user of default may read" in plain.stderr
        nowhere = {"HEADWATER_RERANKER__ENDPOINT": "http://127.0.0.1:9/v1/rerank"}
        looked = headwater(home, *asked, "--explain", "--json", **nowhere)
        plan = json.loads(looked.stdout)["plan"]
        assert plan["mode"] == "reranked"
        assert plan["reranked"]["by"] is None
        assert "can not be asked" in plan["reranked"]["fallback_reason"]
        said = headwater(home, *asked, "--explain", **nowhere).stdout
        assert "reranking: the fused order stands: http://127.0.0.1:9/v1/rerank can not be asked" in said
        words = headwater(home, *asked, "--mode", "lexical", "--explain")
        assert "no other that this user of default may read holds a word of the query" in words.stderr
        assert "vectors: not compared" in words.stdout
    finally:
        postgres.stop()


def test_a_second_person_is_told_who_holds_and_a_pruned_release_is_not_held(module_folder: Path) -> None:
    home = module_folder / "held"
    settings = Settings(home=home / "state")
    settings.home.mkdir(parents=True)
    postgres = Postgres(settings.home, settings.postgres)
    try:
        index = Index(postgres)
        rows = [Chunk("wind", "wind over the harbor", tenant="default")]
        state = index.build("m", "chunker", DIMENSION, [batch(rows)], NO_LINEAGE)
        index.release("r1", state, None, made_with("m"))
        later = index.apply(state, [], [rows[0].chunk_id], NO_LINEAGE)
        index.release("r2", later, "r1", made_with("m"))
        index.hold("r1", "ann", "")
        ended = headwater(home, "hold", "--off").stdout
        assert "r1 stays live until `headwater run` finds an approved state that never was" in ended
        assert (
            "r2 is newer and was live before, so no run makes it live again: `headwater rollback r2`" in ended
        )
        index.hold("r2", "ann", "")
        assert json.loads(headwater(home, "hold", "--off", "--json").stdout)["newest"] == "r2"
        index.prune([(later.generation, later.epoch)])
        gone = headwater(home, "rollback", "r1", LOGNAME="ann")
        refused(gone, "release 'r1' is no longer kept", "known: r2")
        assert headwater(home, "hold", "--reason", "an audit", LOGNAME="ann").returncode == 0
        refused(headwater(home, "hold", LOGNAME="bob"), "r2 is held by ann", "an audit", "hold --off")
        hold = index.live_hold()
        assert hold is not None
        assert (hold.release_id, hold.held_by, hold.reason) == ("r2", "ann", "an audit")
    finally:
        postgres.stop()


@pytest.mark.parametrize(
    "statement",
    [
        "delete from gold.chunks",
        "create table t as select 1",
        "select 1; drop table gold.chunks",
        "copy gold.chunks to '/tmp/stolen.csv'",
        "attach '/tmp/other.db'",
        "set memory_limit = '1GB'",
    ],
)
def test_sql_that_is_no_query_is_refused(module_folder: Path, statement: str) -> None:
    home = module_folder / "sql"
    home.mkdir(exist_ok=True)
    refused(headwater(home, "sql", statement), "read-only" if ";" not in statement else "one query at a time")


def test_sql_reads_the_lake_and_no_other_file(module_folder: Path) -> None:
    home = module_folder / "files"
    home.mkdir()
    (home / "secret.csv").write_text("a,b\n1,2\n")
    for path in (home / "secret.csv", home / "state" / "lake" / ".." / ".." / "secret.csv", "/etc/passwd"):
        refused(headwater(home, "sql", f"select * from read_text('{path}')"), "Permission Error")
    refused(headwater(home, "sql", "select * from gold.nothing"), "nothing", "gold.chunks")
    refused(headwater(home, "sql", "select 1", "--format", "xml"), "xml", "csv")
    refused(headwater(home, "sql", "select 1", "--engine", "mysql"), "mysql", "duckdb")
    refused(headwater(home, "sql", " "), "the query is empty")
    answered = headwater(home, "sql", "select 1 as one", "--format", "json")
    assert json.loads(answered.stdout) == [{"one": 1}]


def test_a_number_that_json_has_no_form_for_is_a_text(module_folder: Path) -> None:
    home = module_folder / "numbers"
    home.mkdir()
    numbers = "select 'nan'::double as a, ['inf'::double, '-inf'::double, 0.5] as b, {'c': 'nan'::float} as d"
    answered = headwater(home, "sql", numbers, "--json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads(answered.stdout, parse_constant=refuse)
    assert found == [{"a": "NaN", "b": ["Infinity", "-Infinity", 0.5], "d": {"c": "NaN"}}]


@pytest.mark.parametrize("selection", ['key:"gold/chunk"', "chunks", "key:("])
def test_a_selection_of_no_asset_runs_nothing(module_folder: Path, selection: str) -> None:
    home = module_folder / "selection"
    (home / "docs").mkdir(parents=True, exist_ok=True)
    (home / "docs" / "a.txt").write_text("A document.")
    headwater(home, "source", "add", "docs", str(home / "docs"))
    ran = headwater(home, "run", "--select", selection)
    refused(ran, selection, "selects no asset", "gold/chunks", "serving/index")
    assert "bronze__raw_documents" not in ran.stderr


def test_a_web_address_is_no_folder_and_the_command_for_it_is_named(module_folder: Path) -> None:
    for arguments in (("ingest", "https://example.org/docs"), ("ingest", "HTTP://h/x", "--dry-run")):
        asked = headwater(module_folder / "web", *arguments)
        assert asked.returncode == 1
        assert "source add sitemap" in " ".join(asked.stderr.split())


def test_java_that_is_missing_or_wrong(module_folder: Path) -> None:
    home = module_folder / "java"
    (home / "docs").mkdir(parents=True)
    (home / "docs" / "a.txt").write_text("A document.")
    old = program(home / "old", 'openjdk version "11.0.2" 2019-01-15')
    said = headwater(home, "ingest", str(home / "docs"), JAVA_HOME=old)
    refused(said, "Java 11.0.2", "Java 17 or 21")
    refused(headwater(home, "run", JAVA_HOME=str(home / "none")), "Java was not found", "JAVA_HOME")
    # The source stays: with Java mended, `headwater run` goes on.
    assert sources(home) == ["docs"]


def test_a_port_that_is_taken(module_folder: Path) -> None:
    home = module_folder / "ports"
    home.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = headwater(home, "up", HEADWATER_WEB_PORT=port)
    refused(done, f"port {port}", "HEADWATER_WEB_PORT")


def test_settings_that_make_no_sense(module_folder: Path) -> None:
    home = module_folder / "settings"
    home.mkdir()
    done = headwater(home, "settings", HEADWATER_WEB_PORT="many")
    refused(done, "HEADWATER_WEB_PORT", "integer")
    refused(headwater(home, "settings", HEADWATER_WEB_HOSTS="lake.example"), "HEADWATER_WEB_HOSTS", "JSON")
    misspelt = headwater(
        home, "settings", "--json", HEADWATER_RECIPE__SEARCH__MAX_POSTING="9", HEADWATER_X=""
    )
    assert misspelt.returncode == 0
    listed = {row["setting"]: row for row in json.loads(misspelt.stdout)}
    bge = listed["embedders.bge-small-en-v1.5"]
    assert bge["value"].endswith("/share/headwater/embedders/bge-small-en-v1.5")
    assert bge["from"] == "make setup EXTRAS=bge"
    said = " ".join(misspelt.stderr.split())
    assert "HEADWATER_RECIPE__SEARCH__MAX_POSTING is no setting and changes nothing; did you mean" in said
    assert "HEADWATER_RECIPE__SEARCH__MAX_POSTINGS?" in said
    assert "HEADWATER_X is no setting" in said
    assert "HEADWATER_HOME is" not in said


def commands() -> list[list[str]]:
    def below(command: Any) -> list[list[str]]:
        if not hasattr(command, "commands"):
            return [[]]
        return [[name, *rest] for name, inner in command.commands.items() for rest in below(inner)]

    return below(typer.main.get_command(app))


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example_and_json(command: list[str]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert "Example: " in shown.output
    assert f"headwater {' '.join(command)}" in shown.output
    assert "--json" in shown.output


def test_reranking_that_is_not_configured_or_has_no_model_is_refused(module_folder: Path) -> None:
    home = module_folder / "reranked"
    home.mkdir()
    asked = ("search", "warranty", "--mode", "reranked")
    refused(headwater(home, *asked), "HEADWATER_RERANKER__MODEL", "HEADWATER_RERANKER__ENDPOINT")
    wrong = headwater(home, *asked, HEADWATER_RERANKER__MODEL=str(home / "none"))
    refused(wrong, "no reranker at", str(home / "none"))
    half = headwater(home, *asked, HEADWATER_RERANKER__API_KEY="sk-secret")
    refused(half, "no endpoint")
    assert "sk-secret" not in half.stderr
