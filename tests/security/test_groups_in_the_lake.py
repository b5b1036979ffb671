"""Groups from a source to a search: through the tables, deduplication, the index and the answers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from assets.answers.stored import UnknownStoredAnswer
from assets.lake.lake import Lake
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.cli.main import app
from orchestration.operations.ask import open_ask_service
from orchestration.operations.ingest import ingest_and_release
from orchestration.operations.replay import replay_answer
from orchestration.operations.runs import execute_run
from orchestration.settings import Settings, open_configured_lake
from retrieval.embedding.config import EmbedderConfig
from retrieval.search.searcher import QueryModelMismatch, Searcher
from retrieval.store.postgres import Postgres

HANDBOOK = {
    "holidays.md": "# Holidays\n\nEverybody has thirty days of holiday a year and may carry five over.",
    "notice.md": "# Notice\n\nNotice is given in writing, three months before a quarter of the year ends.",
}
PAYROLL = {
    "salaries.md": "# Salaries\n\nThe director earns two hundred thousand and the clerk forty thousand.",
    "notice copy.md": HANDBOOK["notice.md"],  # the same words, for fewer people
}


@pytest.fixture(scope="module")
def settings(spark: SparkSession, module_folder: Path) -> Any:
    for name, files in (("handbook", HANDBOOK), ("payroll", PAYROLL)):
        (module_folder / name).mkdir()
        for file, text in files.items():
            (module_folder / name / file).write_text(text)
    made = Settings(home=module_folder / "home")
    registry = SourceRegistry(made.sources_file)
    registry.add(Source(name="handbook", location=str(module_folder / "handbook"), tenant="acme"))
    registry.add(
        Source(
            name="payroll",
            location=str(module_folder / "payroll"),
            tenant="acme",
            groups=("finance", "board", "finance"),
        )
    )
    ingest_and_release(made, print)
    yield made
    Postgres(made.home, made.postgres).stop()


def found(settings: Settings, query: str, *groups: str, at: str | None = None) -> set[str]:
    service = open_ask_service(settings)
    hits = service.search(query, 10, "hybrid", "acme", service.release_as_of(at) if at else None, groups)
    return {Path(hit.uri).name.replace("%20", " ") for hit in hits}


def column(lake: Lake, table: str, of: str) -> dict[str, Any]:
    rows = lake.query(f"select {of}, access_groups from t", t=lake.delta(table)).to_pylist()
    return {row[of]: row["access_groups"] for row in rows}


def test_groups_decide_what_is_found_and_what_stands_for_what(settings: Settings) -> None:
    public, every = {"holidays.md", "notice.md"}, {*HANDBOOK, *PAYROLL}
    assert found(settings, "what does the director earn") == public
    assert found(settings, "what does the director earn", "staff") == public
    assert found(settings, "what does the director earn", "board") == every
    assert found(settings, "what does the director earn", "staff", "finance") == every
    lake = open_configured_lake(settings)
    by_source = column(lake, "silver.documents", "source")
    assert by_source == {"handbook": None, "payroll": "board,finance"}
    # A text for fewer people neither stands for one that all may read nor has one of those stand for it.
    assert lake.delta("silver.duplicates").to_pyarrow_table().num_rows == 0
    assert open_ask_service(settings).index.groups() == {"acme": ["board", "finance"]}


def test_an_answer_is_made_of_what_its_reader_may_see(settings: Settings) -> None:
    service, question = open_ask_service(settings), "What does the director earn?"
    told = service.ask(question, "acme", groups=["finance"])
    assert "two hundred thousand" in told.answer
    kept_from = service.ask(question, "acme")
    assert "thousand" not in kept_from.answer
    again = replay_answer(open_configured_lake(settings), service, told.answer_id)
    assert again.reproduced
    assert again.recorded_in_full
    assert [hit.chunk_id for hit in again.at_release] == list(again.recorded)
    with pytest.raises(UnknownStoredAnswer, match="answers list"):
        replay_answer(open_configured_lake(settings), service, "none")


def test_other_groups_take_hold_with_the_next_run(settings: Settings) -> None:
    service, lake = open_ask_service(settings), open_configured_lake(settings)
    before = {name: lake.version(name) for name in ("bronze.raw_documents", "gold.embeddings")}
    answer = service.ask("What does the director earn?", "acme", groups=["finance"])
    SourceRegistry(settings.sources_file).set_groups("payroll", ["auditors"])
    SourceRegistry(settings.sources_file).set_groups("handbook", ["staff"])
    assert ingest_and_release(settings, print).release == "r1.2"
    query = "what does the director earn"
    assert found(settings, query) == set()
    assert found(settings, query, "finance") == set()
    assert found(settings, query, "staff") == set(HANDBOOK)
    assert found(settings, query, "auditors") == set(PAYROLL)
    # Nothing was read or embedded again for it.
    assert {name: lake.version(name) for name in before}["bronze.raw_documents"] == before[
        "bronze.raw_documents"
    ]
    # As of the release before, it is as it was then.
    assert found(settings, query, "finance", at="r1.1") == {*HANDBOOK, *PAYROLL}
    replayed = replay_answer(open_configured_lake(settings), service, answer.answer_id).to_dict()
    assert replayed["reproduced"]
    assert (replayed["release"], replayed["live"], replayed["now"]) == ("r1.1", "r1.2", [])
    assert len(replayed["until_now"]["went"]) == len(replayed["then"]) == 4
    # Both for the same people again: now one text stands for the other.
    for name in ("payroll", "handbook"):
        SourceRegistry(settings.sources_file).set_groups(name, [])
    assert ingest_and_release(settings, print).release == "r1.3"
    assert found(settings, query) - {"notice.md", "notice copy.md"} == {"holidays.md", "salaries.md"}
    assert len(found(settings, query)) == 3
    assert set(column(open_configured_lake(settings), "silver.documents", "uri").values()) == {None}
    versions = {name: lake.version(name) for name in ("silver.documents", "silver.duplicates", "gold.chunks")}
    ingest_and_release(settings, print)
    assert {name: lake.version(name) for name in versions} == versions


def test_the_command_line_takes_groups_and_moments(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(settings.home))

    def headwater(*arguments: str) -> Any:
        done = CliRunner().invoke(app, [*arguments, "--json"])
        if done.exception is not None:
            raise done.exception
        return json.loads(done.stdout)

    def names(*arguments: str) -> set[str]:
        return {
            Path(hit["uri"]).name for hit in headwater("search", "director", "--tenant", "acme", *arguments)
        }

    assert "salaries.md" in names("--as-of", "r1.1", "--group", "staff", "--group", "board")
    assert "salaries.md" not in names("--as-of", "r1.1")
    assert "salaries.md" in names()
    answers = headwater("answers", "list", "--tenant", "acme", "--limit", "2")
    assert len(answers) == 2
    shown = headwater("answers", "show", answers[0]["answer_id"])
    assert shown["access_groups"] == "finance"
    assert headwater("answers", "replay", answers[0]["answer_id"])["reproduced"]
    assert headwater("source", "access", "payroll", "--group", "board")["groups"] == ["board"]
    for moment, said in (
        ("2001-01-01", "nothing was released"),
        ("2999-01-01", "future"),
        ("r7.7", "neither a release nor a time"),
        ("soon", "begins with r1.1"),
    ):
        with pytest.raises((LookupError, ValueError), match=said):
            headwater("search", "director", "--as-of", moment)
    with pytest.raises(ValueError, match="can not name a group"):
        headwater("source", "access", "payroll", "--group", "a,b")


def test_an_older_release_is_asked_with_its_own_model(settings: Settings) -> None:
    service = open_ask_service(settings)
    release = service.release_as_of("r1.1")
    assert service._models.model_of(release).digest == release.details.model_digest
    elsewhere = EmbedderConfig(model=settings.home / "gone")
    gone = release.details.model_copy(update={"model_digest": "another", "embedder": elsewhere})
    release = replace(release, details=gone)
    with pytest.raises(QueryModelMismatch, match="put it back there, or search with --mode lexical"):
        service.search("director", 3, "hybrid", "acme", release)
    assert service.search("holiday", 3, "lexical", "acme", release)


def test_other_groups_reach_the_index_where_nothing_is_embedded_again(settings: Settings) -> None:
    """As the sensor starts it: only of documents does the data version change, of chunks and vectors not."""
    lake, index = open_configured_lake(settings), open_ask_service(settings).index
    SourceRegistry(settings.sources_file).set_groups("payroll", ["auditors"])
    ingest_and_release(settings, print)
    before = index.newest_state()
    assert before is not None
    SourceRegistry(settings.sources_file).set_groups("payroll", ["owners"])
    embedded = lake.version("gold.embeddings")
    upstream = ("silver/documents", "silver/signatures", "silver/duplicates", "gold/chunks")
    for select in (*upstream, "serving/index"):
        assert not execute_run(settings, f'key:"{select}"', print).failures
    assert lake.version("gold.embeddings") == embedded
    state = index.newest_state()
    assert state is not None
    assert (state.generation, state.epoch) == (before.generation, before.epoch + 1)
    postgres = Postgres(settings.home, settings.postgres)
    for groups, expected in (((), False), (("auditors",), False), (("owners",), True)):
        hits = Searcher(postgres).search("acme", "director", None, 9, "lexical", at=state, groups=groups)
        assert ("salaries.md" in {Path(hit.uri).name for hit in hits}) is expected
    postgres.close()
