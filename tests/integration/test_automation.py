"""What follows from a change by itself, and what does not: unchanged data, and data whose gate failed."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.definitions import build_definitions
from orchestration.settings import Settings
from quality.suites import SUITES

CHAIN = ("bronze/raw_documents", "silver/documents", "silver/signatures", "silver/duplicates", "gold/chunks")


@pytest.fixture
def defs(tmp_path: Path) -> dg.Definitions:
    return build_definitions(Settings(home=tmp_path))


def materialized(instance: dg.DagsterInstance, key: str, data_version: str) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(dg.AssetKey(key.split("/")), tags={"dagster/data_version": data_version})
    )


def checked(instance: dg.DagsterInstance, key: str, passed: bool) -> None:
    asset = dg.AssetKey(key.split("/"))
    for expectation in SUITES[key.replace("/", ".")].expectations:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=asset, check_name=expectation.name, passed=passed, blocking=True
            )
        )


def requested(result: dg.EvaluateAutomationConditionsResult, key: str) -> int:
    return result.get_num_requested(dg.AssetKey(key.split("/")))


def test_changed_data_goes_on_and_unchanged_data_does_not(defs: dg.Definitions) -> None:
    instance = dg.DagsterInstance.ephemeral()
    keys = [key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()]
    for key in keys:
        materialized(instance, key, "1")
    for suite in SUITES:
        checked(instance, suite.replace(".", "/"), passed=True)

    def look(cursor: Any = None) -> dg.EvaluateAutomationConditionsResult:
        return dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=cursor)

    first = look()
    quiet = look(first.cursor)
    assert quiet.total_requested == 0
    materialized(instance, "silver/documents", "1")
    unchanged = look(quiet.cursor)
    assert unchanged.total_requested == 0
    materialized(instance, "silver/documents", "2")
    checked(instance, "silver/documents", passed=True)
    changed = look(unchanged.cursor)
    assert requested(changed, "silver/signatures") == 1
    assert requested(changed, "bronze/raw_documents") == 0


def test_nothing_follows_from_a_failed_gate(defs: dg.Definitions) -> None:
    instance = dg.DagsterInstance.ephemeral()
    for key in defs.resolve_asset_graph().get_all_asset_keys():
        materialized(instance, key.to_user_string(), "1")
    for suite in SUITES:
        checked(instance, suite.replace(".", "/"), passed=True)
    quiet = dg.evaluate_automation_conditions(defs=defs, instance=instance)
    materialized(instance, "gold/embeddings", "2")
    checked(instance, "gold/embeddings", passed=False)
    held = dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=quiet.cursor)
    assert held.total_requested == 0


def test_an_empty_lake_starts_nothing_by_itself(defs: dg.Definitions) -> None:
    instance = dg.DagsterInstance.ephemeral()
    first = dg.evaluate_automation_conditions(defs=defs, instance=instance)
    second = dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=first.cursor)
    assert first.total_requested + second.total_requested == 0


@pytest.mark.parametrize(("name", "job"), [("daily", "refresh"), ("nightly", "maintenance")])
def test_a_schedule_that_runs_by_itself_asks_for_one_run(defs: dg.Definitions, name: str, job: str) -> None:
    schedule = defs.get_schedule_def(name)
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.job_name == job
    at = datetime(2026, 11, 25, 3, tzinfo=UTC)
    with dg.DagsterInstance.ephemeral() as instance:
        tick = schedule.evaluate_tick(dg.build_schedule_context(instance, scheduled_execution_time=at))
    assert tick.run_requests
    assert len(tick.run_requests) == 1


def test_a_file_that_came_changed_or_went_asks_for_one_run(tmp_path: Path) -> None:
    settings, docs = Settings(home=tmp_path / "home"), tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("Something to read.")
    SourceRegistry(settings.sources_file).add(Source(name="docs", location=str(docs)))
    sensor = build_definitions(settings).resolve_sensor_def("arrivals")
    cursor = None
    with dg.DagsterInstance.ephemeral() as instance:

        def look() -> int:
            nonlocal cursor
            resources = {"sources": SourceRegistry(settings.sources_file)}
            context = dg.build_sensor_context(instance, cursor=cursor, resources=resources)
            tick = sensor.evaluate_tick(context)
            cursor = tick.cursor or cursor
            return len(tick.run_requests or [])

        assert [look(), look()] == [1, 0]
        (docs / "b.md").write_text("More to read.")
        assert [look(), look()] == [1, 0]
        (docs / "a.md").write_text("Something else to read.")
        assert [look(), look()] == [1, 0]
        (docs / "b.md").unlink()
        assert [look(), look()] == [1, 0]
        shutil.rmtree(docs)  # a disk that went away is no reason to start a run that can only fail
        assert look() == 0
