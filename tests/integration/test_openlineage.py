"""OpenLineage: what an endpoint is told of runs, datasets and models, and what a missing endpoint stops."""

import json
import logging
import socket
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import dagster as dg
import jsonschema
import pytest
from lineage_receiver import LineageReceiver, lineage_receiver, require_valid_event
from lineage_spec import SPEC, require_valid_by_schema
from openlineage.client.event_v2 import RunState
from pydantic import ValidationError
from test_model_releases import LINEAGE

from assets.dagster.models import model_metadata
from assets.lake.commits import find_commits
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.openlineage.endpoint import lineage_endpoint
from orchestration.openlineage.events import (
    LineageJob,
    LineageRecord,
    run_event,
    step_run_id,
    table_dataset,
)
from orchestration.openlineage.training_events import tell_snapshot, told_training
from orchestration.operations.runs import execute_run
from orchestration.services.dagster_home import dagster_home_instance
from orchestration.settings import Settings, open_configured_lake
from retrieval.store.postgres import Postgres
from training.datasets.training_set import DatasetHeader
from training.registry.lineage import LearnedDataset
from training.registry.versions import ModelVersion

SECRET = "the patient's name is Ada"
KEY = "an-api-key-of-the-endpoint"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[LineageReceiver]:
    monkeypatch.setenv("OPENLINEAGE_API_KEY", KEY)
    with lineage_receiver() as received:
        yield received


def name_of(dataset: dict[str, str]) -> str:
    return "/".join(dataset["name"].split("/")[-2:])


def versions(datasets: list[dict[str, dict[str, dict[str, str]]]]) -> dict[str, str]:
    return {name_of(each): each["facets"]["version"]["datasetVersion"] for each in datasets}  # type: ignore[arg-type]


def test_each_run_and_step_is_told_with_the_versions_that_its_commits_say(
    receiver: LineageReceiver, tmp_path: Path
) -> None:
    corpus = tmp_path / "notes"
    corpus.mkdir()
    for name in ("Ada", "Grace", "Edsger"):
        (corpus / f"{name}.md").write_text(f"# On {name}\n\nThe secret of {name} is in no event.\n")
    settings = Settings(home=tmp_path / "state", openlineage_url=receiver.url)
    SourceRegistry(settings.sources_file).add(Source(name="notes", location=str(corpus)))
    try:
        outcome = execute_run(settings, None, print)
    finally:
        Postgres(settings.home, settings.postgres).remove()
    assert outcome.failures == []
    for event in receiver.events:
        require_valid_event(event)
    assert "secret of" not in json.dumps(receiver.events)
    assert KEY not in json.dumps(receiver.events)
    assert receiver.keys == {f"Bearer {KEY}"}
    assert [event["eventType"] for event in receiver.of_job("refresh")] == ["START", "COMPLETE"]
    assert {event["run"]["runId"] for event in receiver.of_job("refresh")} == {outcome.run_id}
    steps = {event["job"]["name"] for event in receiver.events} - {"refresh"}
    assert {name.removeprefix("refresh.") for name in steps} >= {"bronze__raw_documents", "gold__chunks"}
    for name in steps:
        assert [event["eventType"] for event in receiver.of_job(name)] == ["START", "COMPLETE"]
    begun, ended = receiver.of_job("refresh.gold__chunks")
    assert begun["run"]["runId"] == ended["run"]["runId"] == step_run_id(outcome.run_id, "gold__chunks")
    assert ended["run"]["facets"]["parent"]["run"]["runId"] == outcome.run_id
    lake = open_configured_lake(settings)
    [commit] = find_commits(lake, "gold.chunks", outcome.run_id)
    read = {name.replace(".", "/"): str(at) for name, at in commit.lineage.inputs.items()}
    assert versions(ended["inputs"]) == read
    [written] = ended["outputs"]
    assert (written["namespace"], written["name"]) == ("file", f"{settings.home}/lake/gold/chunks")
    assert written["facets"]["version"]["datasetVersion"] == str(commit.version)
    assert "chunk_id" in {column["name"] for column in written["facets"]["schema"]["fields"]}
    released = receiver.of_job("refresh.ops__release")[1]
    assert "serving/index" in {name_of(each) for each in released["inputs"]}


@dg.asset(key=["gold", "chunks"])
def broken() -> None:
    raise ValueError(SECRET)


def materialize(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, asset: dg.AssetsDefinition = broken
) -> dg.ExecuteInProcessResult:
    open_configured_lake(settings)
    with dagster_home_instance(settings) as instance:
        monkeypatch.setenv("DAGSTER_HOME", str(settings.dagster_home))
        return dg.materialize([asset], instance=instance, raise_on_error=False)


def test_a_step_that_fails_is_told_by_the_class_of_its_error_alone(
    receiver: LineageReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path / "state", openlineage_url=receiver.url)
    result = materialize(settings, monkeypatch)
    failed = [event for event in receiver.events if event["eventType"] == "FAIL"]
    assert len(failed) == 2, "the step and the run"
    step = next(event for event in failed if event["run"]["runId"] != result.run_id)
    assert step["run"]["facets"]["errorMessage"]["message"] == "ValueError"
    for event in receiver.events:
        require_valid_event(event)
    assert SECRET not in json.dumps(receiver.events)


def test_an_endpoint_that_is_away_stops_nothing_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nobody listens
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        settings = Settings(home=tmp_path / "state", openlineage_url=url)
        with caplog.at_level(logging.WARNING, logger="orchestration.openlineage"):
            materialize(settings, monkeypatch)
            materialize(settings, monkeypatch)
            began = time.monotonic()
            with told_training(url, "embedder", "rivers@12", "ab" * 32):
                pass
    told = [record for record in caplog.records if "took no event" in record.getMessage()]
    assert len(told) == 1
    assert url in told[0].getMessage()
    assert time.monotonic() - began < 1, "it is not waited for each time"


def version() -> ModelVersion:
    return ModelVersion.model_validate(
        {
            **{"name": "embedder", "version": 2, "digest": "ff" * 32, "lineage": LINEAGE, "metrics": {}},
            **{"seconds": 1.0, "made_at": "2026-01-01T00:00:00Z"},
        }
    )


def test_a_training_is_told_with_its_training_set_its_base_and_its_model(receiver: LineageReceiver) -> None:
    with told_training(receiver.url, "embedder", "rivers@1234", "ab" * 32) as done:
        done(version())
    with (
        pytest.raises(ValueError, match="Ada"),
        told_training(receiver.url, "embedder", "/home/me/my-questions", "cd" * 32),
    ):
        raise ValueError(SECRET)
    both = [LearnedDataset(address=f"{each}@12", digest=each * 64, tenant=each) for each in ("a", "b")]
    with told_training(receiver.url, "embedder", "a@12, b@12", "ef" * 32, both):
        pass
    for event in receiver.events:
        require_valid_event(event)
    begun, ended, _, failed, of_two, _ = receiver.of_job("train.embedder")
    assert versions(of_two["inputs"]) == {"datasets/a": "a" * 64, "datasets/b": "b" * 64}
    assert (begun["eventType"], ended["eventType"], failed["eventType"]) == ("START", "COMPLETE", "FAIL")
    assert UUID(begun["run"]["runId"]) == UUID(ended["run"]["runId"])
    assert versions(begun["inputs"]) == {"datasets/rivers": "ab" * 32}
    assert versions(ended["inputs"]) == {
        "datasets/rivers": "ab" * 32,
        "models/all-MiniLM-L6-v2": "cd" * 32,
    }
    assert versions(ended["outputs"]) == {"models/embedder": "ff" * 32}
    assert (failed["inputs"][0]["namespace"], failed["inputs"][0]["name"]) == (
        "file",
        "/home/me/my-questions",
    )
    assert failed["run"]["facets"]["errorMessage"]["message"] == "ValueError"
    assert SECRET not in json.dumps(receiver.events)


def test_a_snapshot_is_told_with_the_table_that_it_was_made_of(receiver: LineageReceiver) -> None:
    pins = {"gold.training_examples": 3, "gold.chunks": 2}
    header = DatasetHeader.model_construct(name="rivers", digest="ab" * 32, versions=pins)
    tell_snapshot(receiver.url, header, "/lake")
    tell_snapshot(None, header, "/lake")
    begun, ended = receiver.of_job("snapshot.rivers")
    for event in (begun, ended):
        require_valid_event(event)
        assert versions(event["inputs"]) == {"gold/training_examples": "3", "gold/chunks": "2"}
    assert (begun["eventType"], begun["outputs"]) == ("START", [])
    assert (ended["eventType"], versions(ended["outputs"])) == ("COMPLETE", {"datasets/rivers": "ab" * 32})


def test_a_training_by_dagster_is_told_under_the_names_that_a_command_gives(
    receiver: LineageReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lineage = LINEAGE.model_copy(update={"base": "/models/small.gguf"})
    made = version().model_copy(update={"name": "generator-acme", "lineage": lineage})

    @dg.asset(key=["models", "generator"])
    def trained() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata=model_metadata(made, {}))

    settings = Settings(home=tmp_path / "state", openlineage_url=receiver.url)
    assert materialize(settings, monkeypatch, trained).success
    [ended] = [event for event in receiver.events if event["outputs"]]
    require_valid_event(ended)
    assert versions(ended["outputs"]) == {"models/generator-acme": "ff" * 32}
    assert {(each["namespace"], name_of(each)) for each in ended["inputs"]} == {
        ("headwater", "datasets/rivers"),
        ("file", "models/small.gguf"),
    }


@pytest.mark.skipif(
    SPEC is None, reason="no OpenLineage specification; HEADWATER_TEST_OPENLINEAGE_SPEC names its folder"
)
def test_the_specifications_schema_takes_an_event_with_each_facet_and_refuses_a_broken_one(
    receiver: LineageReceiver,
) -> None:
    job = LineageJob("refresh.gold__chunks", str(uuid4()), "ASSET", (str(uuid4()), "refresh"))
    written = replace(table_dataset("/lake", "gold.chunks", 7), rows=3)
    record = LineageRecord(job, RunState.FAIL, datetime.now(UTC), [written], [written], "ValueError")
    lineage_endpoint(receiver.url).send(run_event(record))
    [event] = receiver.events
    require_valid_event(event)
    broken: tuple[tuple[Any, ...], ...] = (
        ("eventTime", "2026-01-01 00:00:00"),
        ("eventType", "DONE"),
        ("producer", "headwater 1"),
        ("schemaURL", "https://openlineage.io/spec/0-0-0/OpenLineage.json#/$defs/RunEvent"),
        ("run", "runId", "7"),
        ("run", "facets", "processing_engine", "_producer", "headwater 1"),
        ("run", "facets", "parent", "run", "runId", "7"),
        ("run", "facets", "errorMessage", "message", 1),
        ("run", "facets", "error", event["run"]["facets"]["errorMessage"]),
        ("job", "facets", "jobType", "integration", 1),
        ("inputs", 0, "name", 1),
        ("inputs", 0, "facets", "version", "datasetVersion", 7),
        ("outputs", 0, "facets", "schema", "fields", 0, "name", 1),
        ("outputs", 0, "facets", "schema", "_schemaURL", "https://openlineage.io/spec/facets/0-0-0/A.json"),
        ("outputs", 0, "outputFacets", "outputStatistics", "rowCount", "3"),
    )
    assert [each for each in broken if not refused(changed(event, *each))] == []


def changed(event: dict[str, Any], *path_and_value: Any) -> dict[str, Any]:
    *path, last, value = path_and_value
    told = deepcopy(event)
    place: Any = told
    for step in path:
        place = place[step]
    place[last] = value
    return told


def refused(event: dict[str, Any]) -> bool:
    try:
        require_valid_by_schema(event)
    except (jsonschema.ValidationError, AssertionError):
        return True
    return False


def test_the_clients_own_variable_names_the_endpoint_and_a_key_in_a_url_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings(home=tmp_path).openlineage_url is None
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:5000")
    assert Settings(home=tmp_path).openlineage_url == "http://127.0.0.1:5000"
    monkeypatch.setenv("HEADWATER_OPENLINEAGE_URL", "http://127.0.0.1:6000")
    assert Settings(home=tmp_path).openlineage_url == "http://127.0.0.1:6000"
    for url in ("http://me:secret@127.0.0.1:5000", "ftp://127.0.0.1"):
        with pytest.raises(ValidationError, match=r"OPENLINEAGE_API_KEY|begins with http"):
            Settings(home=tmp_path, openlineage_url=url)
    assert lineage_endpoint("http://127.0.0.1:6000") is lineage_endpoint("http://127.0.0.1:6000")
