"""The definitions, against the snapshot that a person has read: what the UI shows and what runs when."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from pydantic import ValidationError

from assets.dagster.sources import SOURCE_DOCUMENTS
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.definitions import build_definitions
from orchestration.settings import Settings

SNAPSHOT = Path(__file__).parent / "definitions.json"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> dg.RepositoryDefinition:
    return build_definitions(Settings(home=tmp_path_factory.mktemp("home"))).get_repository_def()


def described(repository: dg.RepositoryDefinition) -> dict[str, object]:
    graph = repository.asset_graph
    return {
        "assets": {
            key.to_user_string(): {
                "group": graph.get(key).group_name,
                "kinds": sorted(graph.get(key).kinds),
                "owners": sorted(graph.get(key).owners),
                "pools": sorted(graph.get(key).pools or ()),
                "parents": sorted(parent.to_user_string() for parent in graph.get(key).parent_keys),
                "tags": {
                    name: value
                    for name, value in sorted(graph.get(key).tags.items())
                    if name.startswith("headwater/")
                },
                "partitioned": graph.get(key).is_partitioned,
                "versioned": graph.get(key).code_version is not None,
            }
            for key in sorted(graph.get_all_asset_keys())
        },
        "checks": {
            key.to_user_string(): {
                "blocking": spec.blocking,
                "executed_alone": graph.get_execution_set_asset_and_check_keys(key) == {key},
            }
            for key in sorted(graph.asset_check_keys, key=str)
            for spec in [graph.get_check_spec(key)]
        },
        "jobs": sorted(job.name for job in repository.get_all_jobs() if not job.name.startswith("__")),
        "schedules": {
            each.name: {"cron": each.cron_schedule, "on": each.default_status.value}
            for each in repository.schedule_defs
        },
        "sensors": {
            each.name: {"every_s": each.minimum_interval_seconds, "on": each.default_status.value}
            for each in repository.sensor_defs
        },
    }


def test_the_definitions_are_those_that_were_read(repository: dg.RepositoryDefinition) -> None:
    """To take a change over: HEADWATER_UPDATE_SNAPSHOTS=1 make test, then read the difference."""
    now = described(repository)
    if os.environ.get("HEADWATER_UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(json.dumps(now, indent=2, ensure_ascii=False, sort_keys=True) + "\n")
    assert now == json.loads(SNAPSHOT.read_text())


def test_every_asset_and_every_check_is_described(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    assert [key for key in graph.get_all_asset_keys() if not graph.get(key).description] == []
    assert [key for key in graph.asset_check_keys if not graph.get_check_spec(key).description] == []


def test_the_checks_that_look_at_what_is_stored_can_be_executed_alone(
    repository: dg.RepositoryDefinition,
) -> None:
    graph = repository.asset_graph
    alone = {
        key for key in graph.asset_check_keys if graph.get_execution_set_asset_and_check_keys(key) == {key}
    }
    # Whether sources can be read is known by reading them; a batch is a partition, which no check has.
    with_their_asset = {"sources_read", "citations_hold", "within_limits"}
    assert {key.name for key in graph.asset_check_keys - alone} == with_their_asset


def test_the_owner_is_a_setting(tmp_path: Path) -> None:
    named = build_definitions(Settings(home=tmp_path, owner="data@example.org")).resolve_asset_graph()
    assert {tuple(named.get(key).owners) for key in named.get_all_asset_keys()} == {("data@example.org",)}
    for wrong in ("headwater", "team:", "team:a b", "@", "a@b", ""):
        with pytest.raises(ValidationError, match="give team:NAME"):
            Settings(home=tmp_path, owner=wrong)


def test_every_source_is_an_asset_that_the_first_table_is_made_from(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    registry = SourceRegistry(settings.sources_file)
    places = [tmp_path / f"docs {number}" for number in range(3)]
    for number, place in enumerate(places):
        place.mkdir()
        registry.add(Source(name=f"Docs_{number}-x", location=str(place), tenant="acme", groups=("staff",)))
    graph = build_definitions(settings).resolve_asset_graph()
    keys = {dg.AssetKey(["sources", f"Docs_{number}-x"]) for number in range(3)}
    assert graph.get(SOURCE_DOCUMENTS).parent_keys == keys
    # Not from its partitions: where none was materialized, Dagster would ask "Are you sure?" before all.
    assert graph.get(dg.AssetKey(["bronze", "raw_documents"])).parent_keys == keys
    assert graph.external_asset_keys == keys
    node = graph.get(min(keys))
    assert node.metadata["location"] == str(places[0])
    assert (node.metadata["tenant"], node.metadata["groups"]) == ("acme", "staff")
    settings.sources_file.write_text("{")  # the run says what is wrong; the graph is there all the same
    assert not build_definitions(settings).resolve_asset_graph().external_asset_keys


def test_five_hundred_sources_are_loaded_at_once(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    rows = [{"name": f"source-{number}", "location": f"/docs/{number}"} for number in range(500)]
    settings.sources_file.write_text(json.dumps({"sources": rows}))
    began = time.monotonic()
    graph = build_definitions(settings).resolve_asset_graph()
    assert len(graph.get(SOURCE_DOCUMENTS).parent_keys) == 500
    assert time.monotonic() - began < 20


def test_every_asset_key_is_its_folder_and_its_module() -> None:
    from assets import bronze, gold, models, ops, serving, silver

    for module in (bronze, silver, gold, serving, ops, models):
        layer = module.__name__.rpartition(".")[2]
        assets = [value for value in vars(module).values() if isinstance(value, dg.AssetsDefinition)]
        assert assets
        for asset in assets:
            assert all(key.path[0] == layer for key in asset.keys), layer


def test_every_spark_asset_waits_for_the_one_session(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    for key in graph.get_all_asset_keys():
        if "spark" in graph.get(key).kinds:
            assert graph.get(key).pools == {"spark"}


@pytest.mark.parametrize(
    "command", [["dg", "check", "defs"], ["dagster", "definitions", "validate", "-w", "workspace.yaml"]]
)
def test_dagsters_own_tools_load_them(command: list[str], tmp_path: Path) -> None:
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run(
        [program, *command[1:]],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"HEADWATER_HOME": str(tmp_path / "state"), "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
