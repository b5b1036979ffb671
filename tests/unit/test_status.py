"""What `headwater status` says is wrong, and what to do about it."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from typer.testing import CliRunner

from assets.dagster.metadata import asset_key
from assets.lake.tables import RAW_DOCUMENTS
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from inference.engines.generator import EngineConfig
from orchestration.cli.main import app
from orchestration.configured_parts import missing_model_files
from orchestration.services import lifecycle
from orchestration.services.dagster_home import dagster_home_instance
from orchestration.services.lifecycle import ServiceStatus
from orchestration.services.status import (
    SOURCES_READ,
    RunStatus,
    _sources_unread,
    disk_problems,
    last_run_failed,
    service_problem,
    service_problems,
    sources_away,
)
from orchestration.settings import Settings
from retrieval.embedding.config import EmbedderConfig
from retrieval.rerank.reranker import RerankerConfig
from training.place import TrainingConfig

KEY = asset_key(RAW_DOCUMENTS.name)
CHECK = dg.AssetCheckSpec(SOURCES_READ, asset=KEY)


@dg.asset(key=KEY, check_specs=[CHECK])
def one_source_is_away() -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    yield dg.AssetCheckResult(check_name=SOURCES_READ, passed=False, metadata={"far": "no route"})
    yield dg.MaterializeResult()


@dg.asset(key=KEY, check_specs=[CHECK])
def fails_before_the_check() -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    raise RuntimeError("the disk is full")
    yield dg.MaterializeResult()


def test_a_run_that_did_not_come_to_the_sources_leaves_what_is_known_of_them() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert _sources_unread(instance) == {}
        dg.materialize([fails_before_the_check], instance=instance, raise_on_error=False)
        assert _sources_unread(instance) == {}
        dg.materialize([one_source_is_away], instance=instance)
        dg.materialize([fails_before_the_check], instance=instance, raise_on_error=False)
        sentence = _sources_unread(instance)["far"]
    assert sentence.startswith("source far could not be read (no route)")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def test_a_service_that_nobody_wants_is_no_problem(settings: Settings) -> None:
    stopped = ServiceStatus("web", None, "", None, healthy=False)
    assert service_problem(stopped, settings) is None


def test_no_supervisor_is_missed_while_services_are_started(settings: Settings) -> None:
    supervisor = ServiceStatus("supervisor", None, "", None, False, True)
    starting = ServiceStatus("code", 7, "", 6.0, False, True)
    [only] = service_problems([supervisor, starting], settings)
    assert only.startswith("code is starting, for 6 s now")
    hangs = ServiceStatus("code", 7, "", 600.0, False, True)
    assert len(service_problems([supervisor, hangs], settings)) == 2
    report = lifecycle.supervisor_report_file(settings)
    report.parent.mkdir(parents=True)
    report.write_text("{}")  # one that was killed has left it
    assert len(service_problems([supervisor, starting], settings)) == 2


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            ServiceStatus("daemon", None, "", None, False, True),
            "daemon was killed and does not run: `headwater",
        ),
        (ServiceStatus("web", 7, "", 5.0, False, True), "web is starting, for 5 s now"),
        (ServiceStatus("web", 7, "", 500.0, False, True), "web runs but does not answer: see "),
        (ServiceStatus("supervisor", None, "", None, False, True), "the supervisor does not run"),
        (ServiceStatus("supervisor", 7, "", 9.0, False, True), "the supervisor does not answer"),
        (
            ServiceStatus("web", None, "", None, False, True, 5, "ended 6 times within 300 s"),
            "web ended 6 times within 300 s and is not started again",
        ),
        (
            ServiceStatus(
                "postgres", None, "db:5432", None, False, True, fault="no route to postgres://u:p@db"
            ),
            "PostgreSQL at db:5432 can not be reached (no route to",
        ),
    ],
)
def test_what_is_wrong_with_a_service_is_said_with_the_cure(
    found: ServiceStatus, said: str, settings: Settings
) -> None:
    sentence = service_problem(found, settings)
    assert sentence is not None
    assert sentence.startswith(said)
    assert "u:p" not in sentence
    assert "\n" not in sentence
    assert "`headwater up`" in sentence or "in a few seconds" in sentence or "HEADWATER_" in sentence


def test_a_disk_that_is_nearly_full_is_named_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings.home / "lake").mkdir(parents=True)
    assert disk_problems(settings) == []
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=12_000_000))
    assert disk_problems(settings) == [
        f"the disk of {settings.home} is nearly full, 12 MB are free: make room there"
    ]


def test_a_folder_that_is_away_is_told_before_any_run(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    sources = [
        Source(name=name, location=location)
        for name, location in (
            ("here", str(tmp_path / "here")),
            ("away", str(tmp_path / "away")),
            ("bucket", "s3a://b/c"),
        )
    ]
    [(name, sentence)] = sources_away(sources).items()
    assert name == "away"
    assert f"(nothing at {tmp_path / 'away'})" in sentence
    assert "`headwater source remove away`" in sentence


def test_models_that_are_gone_are_named_with_their_settings(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    assert missing_model_files(settings) == []
    settings.generator = EngineConfig(model=tmp_path / "llm")
    settings.reranker = RerankerConfig(model=tmp_path / "cross")
    settings.recipe.embedder = EmbedderConfig(model=tmp_path / "small")
    settings.training = TrainingConfig(worker_python=tmp_path / "python")
    said = missing_model_files(settings)
    assert [sentence.partition(",")[0] for sentence in said] == [
        str(tmp_path / name) for name in ("small", "llm", "cross", "python")
    ]
    assert "set HEADWATER_GENERATOR__MODEL to another" in said[1]


def test_a_database_that_can_not_be_reached_is_told_and_the_rest_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path))
    monkeypatch.setenv("HEADWATER_POSTGRES__URL", "postgresql://u:secret@127.0.0.1:9/none")
    done = CliRunner().invoke(app, ["status"], env={"COLUMNS": "300"})
    assert done.exit_code == 1, done.output
    assert "PostgreSQL at 127.0.0.1:9 can not be reached" in done.output
    assert "mend HEADWATER_POSTGRES__URL" in done.output
    assert "questions are answered by: extractive" in done.output
    assert "secret" not in done.output


def test_a_run_that_failed_last_and_a_source_that_is_away_end_status_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path))
    settings = Settings()
    (tmp_path / "away").mkdir()
    SourceRegistry(settings.sources_file).add(Source(name="away", location=str(tmp_path / "away")))
    (tmp_path / "away").rmdir()
    with dagster_home_instance(settings) as instance:
        failed = dg.materialize([fails_before_the_check], instance=instance, raise_on_error=False)
    done = CliRunner().invoke(app, ["status", "--json"])
    assert done.exit_code == 1, done.output
    run, source = json.loads(done.stdout)["problems"]
    assert run.startswith(f"the last run, {failed.run_id[:8]} (")
    assert "failed: bronze/raw_documents: the disk is full; all of it is at http://127.0.0.1:" in run
    assert f"/runs/{failed.run_id} (`headwater up`); `headwater run` continues" in run
    assert source.startswith("source away can not be read now")


def test_a_run_whose_process_died_failed_because_of_that() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(dg.GraphDefinition(name="refresh").to_job())
        instance.report_run_failed(run, "its process (7 of here) died")
        ended = RunStatus(run.run_id, "refresh", dg.DagsterRunStatus.FAILURE.value, None, None)
        [said] = last_run_failed(instance, [ended], "http://127.0.0.1:3000")
    assert "failed: its process (7 of here) died; all of it is at http://127.0.0.1:3000/runs/" in said
