"""The definitions, against the snapshot that a person has read: what the UI shows and what runs when."""

import json
import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

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
                "versioned": graph.get(key).code_version is not None,
            }
            for key in sorted(graph.get_all_asset_keys())
        },
        "checks": {
            key.to_user_string(): {"blocking": spec.blocking}
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


def test_every_asset_key_is_its_folder_and_its_module() -> None:
    from assets import bronze, gold, ops, serving, silver

    for module in (bronze, silver, gold, serving, ops):
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
