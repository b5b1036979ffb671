"""What MLflow, registry, training sets, lake and index say about models: each is broken in turn."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from index_rows import NO_LINEAGE, Chunk, batch, made_with
from live_models import show_live
from trained_lake import TrainedLake, make_trained_lake
from typer.testing import CliRunner

from assets.lake.releases import project_releases
from assets.model_consistency import ModelDiscrepancy, model_discrepancies
from assets.models import models_agree_asset_check
from orchestration.cli.main import app
from orchestration.operations.doctor import _models
from orchestration.settings import Settings
from retrieval.embedding.config import EmbedderConfig
from retrieval.index.index import Index
from retrieval.index.types import IndexState
from retrieval.store.postgres import Postgres
from training.datasets.training_set import snapshot_folder
from training.place import TrainingPlace
from training.registry.live import follow_release_log
from training.registry.mlflow_mirror import follow_in_mlflow
from training.registry.versions import ModelAliases


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TrainedLake, Index, IndexState]]:
    """A state folder in which all agree: two versions, the second served by the live release."""
    folder = tmp_path_factory.mktemp("agree")
    made = make_trained_lake(folder / "state", ["tides", "moss"])
    versions = [made.add_model(folder, ["tides", "moss"]) for _ in range(2)]
    index = Index(Postgres(made.settings.home, made.settings.postgres))
    live = None
    for number, version in enumerate(versions):
        rows = [batch([Chunk("danube", "The Danube")])]
        state = index.build(version.digest, "chunker", 8, rows, NO_LINEAGE)
        embedder = EmbedderConfig(model=made.registry.path(version))
        details = made_with(version.digest).model_copy(update={"embedder": embedder})
        live = index.release(f"r{number}", state, live, details).release_id
    follow_release_log(made.registry, index)
    project_releases(made.lake, index.log)
    place = made.settings.training_place
    assert follow_in_mlflow(place.registry, "embedder", place.mlflow_uri) is None
    assert model_discrepancies(made.lake, index, place) == []
    yield made, index, state
    Postgres(made.settings.home, made.settings.postgres).stop()


@pytest.fixture
def broken(whole: tuple[TrainedLake, Index, IndexState], tmp_path: Path) -> Iterator[TrainedLake]:
    """The same; what a test breaks of its files is put back."""
    made = whole[0]
    broken_of = ("models/registry", "datasets")  # MLflow holds its own file open
    for name in broken_of:
        shutil.copytree(made.settings.home / name, tmp_path / name)
    yield made
    for name in broken_of:
        shutil.rmtree(made.settings.home / name)
        shutil.copytree(tmp_path / name, made.settings.home / name)


def found(made: TrainedLake, place: TrainingPlace | None = None) -> list[ModelDiscrepancy]:
    index = Index(Postgres(made.settings.home, made.settings.postgres))
    return model_discrepancies(made.lake, index, place or made.settings.training_place)


def invoke(made: TrainedLake, *arguments: str) -> tuple[int, list[dict[str, str]]]:
    environment = {"HEADWATER_HOME": str(made.settings.home)}
    done = CliRunner().invoke(app, ["models", "check", "--json", *arguments], env=environment)
    return done.exit_code, json.loads(done.stdout)


def test_the_asset_check_warns_of_what_does_not_agree(broken: TrainedLake) -> None:
    definitions = dg.Definitions(
        assets=[dg.AssetSpec(dg.AssetKey(["ops", "release"]))],
        asset_checks=[models_agree_asset_check],
        resources={
            "lake": broken.lake,
            "search_index": Index(Postgres(broken.settings.home, broken.settings.postgres)),
            "training_place": broken.settings.training_place,
        },
    )

    def checked() -> dg.AssetCheckEvaluation:
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process()
        [evaluation] = result.get_asset_check_evaluations()
        return evaluation

    before = checked()
    assert (before.passed, before.description) == (True, "2 model versions: all agree")
    show_live(broken.registry, "embedder", 1, 2)
    after = checked()
    assert (after.passed, after.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "embedder@live: the registry has version 1" in str(after.description)
    assert "models check --mend" in str(after.description)
    assert after.metadata["discrepancies"].value == len(found(broken)) > 0


def test_a_version_whose_files_were_changed_is_named(broken: TrainedLake) -> None:
    (broken.registry.version_path("embedder", 1) / "README.md").write_text("changed")
    [each] = found(broken)
    assert (each.about, "is not what was signed" in str(each)) == ("embedder@1", True)
    assert "backup" in each.cure


def test_a_live_release_without_its_version_is_named(broken: TrainedLake) -> None:
    shutil.rmtree(broken.registry.version_path("embedder", 2).parent)
    about = {each.about: each for each in found(broken)}
    assert "it is live, and its model is not in" in about["release r1"].found
    assert "headwater models rollback embedder" in about["release r1"].cure


def test_a_live_release_with_the_vectors_of_another_version_is_named(broken: TrainedLake) -> None:
    """As where a registry was restored from another installation's backup."""
    first, second = (broken.registry.version_path("embedder", number).parent for number in (1, 2))
    shutil.rmtree(second)
    shutil.copytree(first, second)
    assert any(each.about == "release r1" and "its vectors are of" in each.found for each in found(broken)), (
        found(broken)
    )


def test_aliases_that_lag_behind_the_pointer_are_named_and_mended(broken: TrainedLake) -> None:
    show_live(broken.registry, "embedder", 1)
    code, rows = invoke(broken)
    assert code == 1
    assert {row["about"] for row in rows} == {"embedder@live", "embedder@previous", "embedder@candidate"}
    assert any("the registry has version 1, and by the release log it is 2" in row["found"] for row in rows)
    assert all("models check --mend" in row["cure"] for row in rows)
    assert invoke(broken, "--mend") == (0, [])
    assert broken.registry.aliases("embedder") == ModelAliases(live=2, previous=1)


def test_mlflow_that_lacks_a_version_or_has_another_alias_is_named_and_mended(
    broken: TrainedLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    place = broken.settings.training_place
    client = MlflowClient(place.mlflow_uri, place.mlflow_uri)
    client.set_registered_model_alias("embedder", "live", "1")
    [each] = found(broken)
    assert (each.about, "models check --mend" in each.cure) == ("embedder@live", True)
    assert invoke(broken, "--mend") == (0, [])
    monkeypatch.setenv("HEADWATER_MLFLOW_URI", f"sqlite:///{tmp_path / 'new.db'}")
    _, rows = invoke(broken)
    assert {row["about"] for row in rows} >= {"embedder@1", "embedder@2", "embedder@live"}
    assert invoke(broken, "--mend") == (0, [])


def test_an_mlflow_that_can_not_be_asked_is_named(broken: TrainedLake) -> None:
    place = replace(broken.settings.training_place, mlflow_server="http://127.0.0.1:9")
    [each] = found(broken, place)
    assert (each.about, "HEADWATER_MLFLOW_URI" in each.cure) == ("MLflow", True)


def test_a_training_set_that_is_gone_changed_or_of_another_lake_is_named(broken: TrainedLake) -> None:
    at = snapshot_folder(broken.settings.datasets_folder, broken.dataset)
    header = (at / "header.json").read_text()
    (at / "header.json").write_text(header.replace('"gold.chunks": 1', '"gold.chunks": 99'))
    assert {str(each) for each in found(broken)} == {
        f"training set {broken.dataset.address}: made from gold.chunks@99, and the lake is at gold.chunks@1; "
        "restore lake and training sets from the same backup"
    }
    (at / "header.json").write_text(header)
    (at / "train.parquet").write_bytes(b"changed")
    assert {each.about for each in found(broken)} == {"embedder@1", "embedder@2"}
    assert "is not the file that was written" in found(broken)[0].found
    shutil.rmtree(at)
    assert {each.about for each in found(broken)} == {"embedder@1", "embedder@2"}
    assert "train again" in found(broken)[0].cure
    rows = list(_models(broken.settings))
    assert [(row.name, row.ok) for row in rows] == [("Models", False)] * 2


def test_a_move_of_the_pointer_that_the_lake_does_not_know_is_named_and_mended(broken: TrainedLake) -> None:
    index = Index(Postgres(broken.settings.home, broken.settings.postgres))
    index.rollback("r0")
    follow_release_log(broken.registry, index)
    about = {each.about: each.found for each in found(broken)}
    assert "rolled_back by the release log, and ops.releases does not have it" in about["index r0"]
    assert invoke(broken, "--mend") == (0, [])
    index.rollback("r1")
    assert invoke(broken, "--mend")[0] == 0


def test_a_state_folder_without_models_has_nothing_to_disagree_about(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "state")
    assert list(_models(settings)) == []
    assert not settings.home.exists()
