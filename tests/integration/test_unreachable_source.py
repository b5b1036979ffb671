"""A source that can not be read fails alone: it is shown, its documents stay, and the others go on."""

import shutil
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from bronze_runs import read_sources
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from assets import bronze
from assets.parsing.sandbox import ParserLimits
from assets.sources import source_reader
from assets.sources.connector_options import GitOptions
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.definitions import build_definitions
from orchestration.operations.runs import RunOutcome, execute_run
from orchestration.preview.run_preview import preview_run
from orchestration.services.status import state_status
from orchestration.settings import Settings, open_configured_lake

BRONZE = 'key:"bronze/raw_documents"'
TENANTS = ("acme", "globex")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A state folder with a source of one document per tenant, both read."""
    settings = Settings(home=tmp_path / "home")
    for tenant in TENANTS:
        folder = tmp_path / tenant
        folder.mkdir()
        (folder / "a.md").write_text(f"What {tenant} wrote.")
        SourceRegistry(settings.sources_file).add(Source(name=tenant, location=str(folder), tenant=tenant))
    assert run(settings).failures == []
    return settings


def run(settings: Settings) -> RunOutcome:
    return execute_run(settings, BRONZE, lambda line: None)


def documents(settings: Settings) -> set[tuple[str, str]]:
    """Tenant and file name of every document that is not deleted."""
    lake = open_configured_lake(settings)
    found = lake.query(
        """
        select tenant, parse_filename(uri) as name from raw where uri is not null
        group by all having not arg_max(deleted, revision)
        """,
        raw=lake.delta("bronze.raw_documents"),
    )
    return {(row["tenant"], row["name"]) for row in found.to_pylist()}


def test_an_unreachable_source_fails_alone_and_is_shown(settings: Settings, tmp_path: Path) -> None:
    shutil.move(tmp_path / "acme", tmp_path / "away")
    (tmp_path / "globex" / "b.md").write_text("What globex wrote since.")
    outcome = run(settings)
    assert outcome.failures == []
    assert outcome.unread_sources.keys() == {"acme"}
    assert str(tmp_path / "acme") in outcome.unread_sources["acme"]
    assert documents(settings) == {("acme", "a.md"), ("globex", "a.md"), ("globex", "b.md")}
    [problem] = [problem for problem in state_status(settings).problems if "acme" in problem]
    assert "can not be read now" in problem
    shutil.move(tmp_path / "away", tmp_path / "acme")
    (tmp_path / "acme" / "c.md").write_text("What acme wrote since.")
    assert run(settings).unread_sources == {}
    assert ("acme", "c.md") in documents(settings)
    assert not [problem for problem in state_status(settings).problems if "acme" in problem]


@pytest.fixture
def rows(settings: Settings, tmp_path: Path) -> Path:
    """A source of three rows beside the others, read."""
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "rows.csv").write_text("id,text\n" + "".join(f"{n},Row {n}\n" for n in range(3)))
    source = Source(name="rows", location=str(folder), tenant="initech", text_column="text")
    SourceRegistry(settings.sources_file).add(source)
    assert run(settings).failures == []
    assert ("initech", "rows.csv#2") in documents(settings)
    return folder


def test_a_file_of_rows_that_yields_none_fails_its_source_alone(
    settings: Settings, rows: Path, tmp_path: Path
) -> None:
    before = documents(settings)
    (rows / "rows.csv").write_text("")
    (rows / "new.csv").write_text("id,text\n9,Row 9\n")
    (tmp_path / "globex" / "b.md").write_text("What globex wrote since.")
    outcome = run(settings)
    assert outcome.failures == []
    assert outcome.unread_sources.keys() == {"rows"}
    assert "rows.csv held documents and now yields none" in outcome.unread_sources["rows"]
    assert "--accept-shrink" in outcome.unread_sources["rows"]
    assert documents(settings) == before | {("globex", "b.md")}
    settings = settings.model_copy(update={"max_shrink": 1.0})
    assert run(settings).unread_sources == {}
    kept = {name for tenant, name in documents(settings) if tenant == "initech"}
    assert kept == {"rows.csv", "new.csv#9"}


@pytest.mark.parametrize("step", ["reading", "evaluating"])
def test_an_error_of_spark_fails_its_source_alone(
    settings: Settings, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Spark opens some files when the frame is made, and reads the rest when it is evaluated."""
    before = documents(settings)
    (rows / "rows.csv").write_text("id,text\n1,Another row 1\n")
    (rows / "gone.csv").write_text("id,text\n8,Row 8\n")
    (tmp_path / "globex" / "b.md").write_text("What globex wrote since.")
    read = source_reader.read_tabular_files

    def failing(spark: SparkSession, source: Source, files: pa.Table) -> DataFrame:
        frame = read(spark, source, files)
        if step == "evaluating":
            return frame.withColumn("title", F.raise_error(F.lit("the disk failed")).cast("string"))
        return spark.read.csv(str(rows / "no such file.csv"))

    monkeypatch.setattr(source_reader, "read_tabular_files", failing)
    outcome = run(settings)
    assert outcome.failures == []
    assert outcome.unread_sources.keys() == {"rows"}
    reason = "the disk failed" if step == "evaluating" else "no such file.csv"
    assert reason in outcome.unread_sources["rows"]
    assert documents(settings) == before | {("globex", "b.md")}


def test_a_run_fails_when_no_source_can_be_read(settings: Settings, tmp_path: Path) -> None:
    for tenant in TENANTS:
        shutil.move(tmp_path / tenant, tmp_path / f"{tenant}-away")
    [failure] = run(settings).failures
    assert all(str(tmp_path / tenant) in failure for tenant in TENANTS)
    assert len(documents(settings)) == len(TENANTS)


def test_the_sensor_waits_for_an_unreachable_source(settings: Settings, tmp_path: Path) -> None:
    """Neither its going nor its coming back unchanged starts a run, and changes elsewhere still do."""
    sensor = build_definitions(settings).resolve_sensor_def("arrivals")
    cursor = None
    with dg.DagsterInstance.ephemeral() as instance:

        def runs_requested() -> int:
            nonlocal cursor
            resources = {"sources": SourceRegistry(settings.sources_file)}
            tick = sensor.evaluate_tick(dg.build_sensor_context(instance, cursor=cursor, resources=resources))
            cursor = tick.cursor or cursor
            return len(tick.run_requests or [])

        assert [runs_requested(), runs_requested()] == [1, 0]
        shutil.move(tmp_path / "acme", tmp_path / "away")
        assert runs_requested() == 0
        (tmp_path / "globex" / "b.md").write_text("What globex wrote since.")
        assert [runs_requested(), runs_requested()] == [1, 0]
        shutil.move(tmp_path / "away", tmp_path / "acme")
        assert runs_requested() == 0
        (tmp_path / "acme" / "b.md").write_text("What acme wrote since.")
        assert [runs_requested(), runs_requested()] == [1, 0]


@pytest.fixture
def files_read(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many files were read of each source since it was last cleared."""
    read: dict[str, int] = {}
    read_files = bronze.read_local_source

    def counted(source: Source, files: pa.Table, limits: ParserLimits) -> pa.Table | None:
        read[source.name] = read.get(source.name, 0) + files.num_rows
        return read_files(source, files, limits)

    monkeypatch.setattr(bronze, "read_local_source", counted)
    return read


def two_sources(tmp_path: Path) -> tuple[Settings, SourceRegistry]:
    settings = Settings(home=tmp_path / "home")
    registry = SourceRegistry(settings.sources_file)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(f"What {name} says.")
        registry.add(Source(name=name, location=str(tmp_path / name)))
    return settings, registry


def test_a_source_that_never_worked_makes_no_other_be_read_again(
    tmp_path: Path, files_read: dict[str, int]
) -> None:
    settings, registry = two_sources(tmp_path)
    registry.add(Source(name="bad", location=str(tmp_path / "one"), git=GitOptions()))
    assert read_sources(settings).unread.keys() == {"bad"}
    assert files_read == {"one": 1, "two": 1}
    version = open_configured_lake(settings).version("bronze.raw_documents")
    files_read.clear()
    assert read_sources(settings).unread.keys() == {"bad"}
    assert files_read == {}
    assert open_configured_lake(settings).version("bronze.raw_documents") == version


def test_after_a_change_of_settings_each_source_is_read_again_once_for_itself(
    tmp_path: Path, files_read: dict[str, int]
) -> None:
    settings, registry = two_sources(tmp_path)
    assert read_sources(settings).unread == {}
    parser = settings.recipe.parser.model_copy(update={"timeout_s": settings.recipe.parser.timeout_s + 1})
    recipe = settings.recipe.model_copy(update={"parser": parser})
    settings = settings.model_copy(update={"recipe": recipe})
    shutil.move(tmp_path / "one", tmp_path / "away")
    for expected in ({"two": 1}, {}):
        files_read.clear()
        assert read_sources(settings).unread.keys() == {"one"}
        assert files_read == expected
    shutil.move(tmp_path / "away", tmp_path / "one")
    preview = {each.name: each for each in preview_run(settings, registry.list()).sources}
    assert (preview["one"].again, preview["two"].again) == (1, 0)
    for expected in ({"one": 1}, {}):
        files_read.clear()
        assert read_sources(settings).unread == {}
        assert files_read == expected
