"""HEADWATER_LOG_FORMAT=json: what a run says, as lines that a log collector reads."""

import json
from pathlib import Path

import dagster as dg
import pytest

from orchestration.services.dagster_home import write_dagster_home
from orchestration.services.supervision.service_definitions import service_definitions
from orchestration.settings import Settings

SECRET = "the patient's name is Ada"


@dg.asset(key=["bronze", "raw_documents"])
def sound(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    context.log.info('read 3 files\nof "one" source')
    return dg.MaterializeResult(metadata={"sample": SECRET})


@dg.asset(key=["silver", "documents"], deps=[sound])
def broken(context: dg.AssetExecutionContext) -> None:
    context.log.debug(SECRET)  # details are for the web UI
    try:
        raise ValueError(SECRET)
    except ValueError:
        context.log.warning("going on", exc_info=True)
    raise ValueError(SECRET)


def test_a_runs_lines_are_json_with_run_asset_and_level_and_no_document_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = write_dagster_home(tmp_path / "dagster", "json").parent
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.get() as instance:
        result = dg.materialize([sound, broken], instance=instance, raise_on_error=False)
    text = (tmp_path / "logs" / "runs.jsonl").read_text()
    assert SECRET not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["run_id"] for line in lines} == {result.run_id}
    assert all(line["time"] and line["level"] and line["message"] for line in lines)
    [said] = [line for line in lines if line["message"].startswith("read 3 files")]
    assert (said["level"], said["asset"], said["message"]) == (
        "INFO",
        "bronze/raw_documents",
        'read 3 files\nof "one" source',
    )
    [failed] = [line for line in lines if line.get("event") == "STEP_FAILURE"]
    assert (failed["level"], failed["asset"], failed["error"]) == ("ERROR", "silver/documents", "ValueError")
    [warned] = [line for line in lines if line["level"] == "WARNING"]
    assert (warned["message"], warned["error"]) == ("going on", "ValueError")


def test_text_is_the_default_and_services_follow_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dagster_home(tmp_path / "dagster")
    assert not (tmp_path / "logs").exists()
    assert not any(
        "--log-format" in service.command for service in service_definitions(Settings(home=tmp_path))
    )
    monkeypatch.setenv("HEADWATER_LOG_FORMAT", "json")
    speaking = [
        service.name for service in service_definitions(Settings(home=tmp_path)) if "json" in service.command
    ]
    assert speaking == ["code", "web", "daemon"]
