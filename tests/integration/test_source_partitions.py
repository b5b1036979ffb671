"""A partition per source: one is read, retried or filled alone, and one that fails stops no other."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from bronze_runs import raw_rows
from pydantic import ValidationError

from assets.bronze import raw_documents_asset, source_documents_asset
from assets.dagster.sources import SOURCE_DOCUMENTS, SOURCES, follow_sources
from assets.lake.tables import RAW_DOCUMENTS
from assets.parsing.sandbox import ParserLimits
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.automation.sensors import arrivals_sensor
from orchestration.settings import Settings, open_configured_lake

NAMES = ("first", "-odd_Name-", "third")
RAW = dg.AssetKey(["bronze", "raw_documents"])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def settings(tmp_path: Path, instance: dg.DagsterInstance) -> Settings:
    """Three sources of one file each, whose partitions are known."""
    settings = Settings(home=tmp_path / "home")
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(f"# {name}\n\nThe first words of {name}.\n")
        SourceRegistry(settings.sources_file).add(Source(name=name, location=str(tmp_path / name)))
    follow_sources(instance, NAMES)
    return settings


def run(
    settings: Settings,
    instance: dg.DagsterInstance,
    asset: dg.AssetsDefinition = raw_documents_asset,
    partition: str | None = None,
    tags: dict[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    """Materializes one of the two assets of the table."""
    return dg.materialize(
        [asset],
        instance=instance,
        partition_key=partition,
        tags=tags,
        resources={
            "lake": open_configured_lake(settings),
            "sources": SourceRegistry(settings.sources_file),
            "max_shrink": settings.max_shrink,
            "recipe": settings.recipe,
        },
        raise_on_error=False,
    )


def revisions(settings: Settings) -> list[int]:
    """How many revisions each source has in the table."""
    return [len(raw_rows(settings, name)) for name in NAMES]


def read(instance: dg.DagsterInstance) -> set[str]:
    return set(instance.get_materialized_partitions(SOURCE_DOCUMENTS))


def data_version(instance: dg.DagsterInstance) -> str | None:
    event = instance.get_latest_materialization_event(RAW)
    assert event is not None
    assert event.asset_materialization is not None
    return (event.asset_materialization.tags or {}).get("dagster/data_version")


def change(settings: Settings, *names: str) -> None:
    for name in names:
        path = settings.home.parent / name / "a.md"
        path.write_text(path.read_text() + "\nMore words.\n")


def test_a_run_of_all_says_which_sources_were_read(settings: Settings, instance: dg.DagsterInstance) -> None:
    assert run(settings, instance).success
    assert (revisions(settings), read(instance)) == ([1, 1, 1], set(NAMES))
    again = run(settings, instance)
    # What was read before and has nothing new is no event: there can be hundreds of sources.
    assert not again.asset_materializations_for_node("bronze__raw_documents")[1:]


def test_what_a_run_has_read_is_no_reason_for_another(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    cursor = None

    def arrivals() -> int:
        nonlocal cursor
        sources = SourceRegistry(settings.sources_file)
        with dg.build_sensor_context(instance, cursor=cursor, resources={"sources": sources}) as context:
            tick = arrivals_sensor.evaluate_tick(context)
        cursor = tick.cursor or cursor
        return len(tick.run_requests or [])

    run(settings, instance)
    assert arrivals() == 0  # the services were started after it
    assert cursor
    change(settings, "third")
    run(settings, instance)  # from the command line, while services run
    assert arrivals() == 0
    change(settings, "first")
    assert [arrivals(), arrivals()] == [1, 0]
    run(settings, instance)
    SourceRegistry(settings.sources_file).set_groups("first", ["staff"])
    assert [arrivals(), arrivals()] == [1, 0]


def test_one_source_is_read_alone(settings: Settings, instance: dg.DagsterInstance) -> None:
    run(settings, instance)
    before = data_version(instance)
    change(settings, *NAMES)
    assert run(settings, instance, source_documents_asset, "-odd_Name-").success
    assert revisions(settings) == [1, 2, 1]
    # What depends on the table follows.
    assert data_version(instance) not in (None, before)
    assert run(settings, instance).success
    assert revisions(settings) == [2, 2, 2]


def test_one_that_fails_stops_no_other_of_a_backfill(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    away = settings.home.parent / "-odd_Name-"
    away.rename(away.with_name("away"))
    every = {"dagster/asset_partition_range_start": "first", "dagster/asset_partition_range_end": "third"}
    done = run(settings, instance, source_documents_asset, tags=every)
    assert not done.success
    assert (revisions(settings), read(instance)) == ([1, 0, 1], {"first", "third"})
    [failed] = [event.step_failure_data.error for event in done.all_events if event.is_step_failure]
    assert failed is not None
    assert "-odd_Name-" in str(failed.cause or failed)
    # Mended, it is tried again alone.
    away.with_name("away").rename(away)
    assert run(settings, instance, source_documents_asset, "-odd_Name-").success
    assert (revisions(settings), read(instance)) == ([1, 1, 1], set(NAMES))


def test_what_is_read_with_new_limits_alone_leaves_the_others_to_be_read_again(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    run(settings, instance)
    recipe = settings.recipe.model_copy(update={"parser": ParserLimits(timeout_s=59)})
    changed = settings.model_copy(update={"recipe": recipe})
    assert run(changed, instance, source_documents_asset, "first").success
    commit = open_configured_lake(settings).last_commit(RAW_DOCUMENTS.name)
    assert commit is not None
    assert commit.lineage.behind == ("-odd_Name-", "third")
    assert run(changed, instance).success
    commit = open_configured_lake(settings).last_commit(RAW_DOCUMENTS.name)
    assert commit is not None
    assert commit.lineage.behind == ()


def test_partitions_follow_the_sources(settings: Settings, instance: dg.DagsterInstance) -> None:
    follow_sources(instance, ("first", "new"))
    assert set(instance.get_dynamic_partitions(str(SOURCES.name))) == {"first", "new"}


@pytest.mark.parametrize(
    "name", ["a...b", "a b", "a/b", "a,b", "a|b", "ä", "a\nb", "", "[a]", "a'b", '"', "a" * 65, "a:b", "*"]
)
def test_a_name_that_could_be_no_partition_is_no_name_of_a_source(name: str) -> None:
    with pytest.raises(ValidationError):
        Source(name=name, location="/docs")


@pytest.mark.slow
def test_five_hundred_sources_are_read_in_one_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    settings = Settings(home=tmp_path / "home")
    for number in range(500):
        (tmp_path / f"s{number}").mkdir()
        (tmp_path / f"s{number}" / "a.md").write_text(f"The words of source {number}.")
        SourceRegistry(settings.sources_file).add(
            Source(name=f"s{number}", location=str(tmp_path / f"s{number}"))
        )
    follow_sources(instance, [f"s{number}" for number in range(500)])
    assert run(settings, instance).success
    assert len(read(instance)) == 500
    (tmp_path / "s7" / "a.md").write_text("Other words.")
    assert run(settings, instance, source_documents_asset, "s7").success
    assert len(raw_rows(settings, "s7")) == 2
