"""The assets that train: what they make, what Dagster shows of it, and that no run of the lake makes them."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from job_faults import python_that_dies_once, train_until_killed
from lake_rows import write
from tiny_embedders import make_tiny_embedder, tiny_lists
from tiny_generator import save_tiny_generator
from trained_lake import filled_row
from worker_environment import NEEDED_TO_TRAIN, make_worker_environment

from assets.dagster.models import TRAINING_TENANTS, follow_training_tenants, model_key
from assets.lake.tables import DOCUMENTS
from assets.models import (
    embedder_asset,
    embedder_compared_asset_check,
    generator_asset,
    generator_compared_asset_check,
)
from inference.engines.generator import EngineConfig
from orchestration.definitions import build_definitions
from orchestration.resources import dagster_resources
from orchestration.services.dagster_home import dagster_home_instance
from orchestration.settings import Settings, open_configured_lake
from orchestration.training.generators import train_generator_version
from training.datasets.training_set import EXAMPLE_SCHEMA, SPLITS, DatasetHeader, write_dataset
from training.jobs.plan import GeneratorTraining
from training.place import TrainingConfig
from training.registry.versions import ModelAliases, ModelDecision, ModelVersion

TENANT = "acme"


def ranked_rows(doc_ids: list[str]) -> list[dict[str, Any]]:
    """Returns the tiny lists as examples of an embedder, made of some documents."""
    lists = tiny_lists()
    return [
        {
            "example_id": name,
            "kind": "ranked_list",
            "question": question,
            "positive": lists.passages[candidates[relevant][0]],
            "negatives": [],
            "candidates": [lists.passages[row] for row in candidates],
            "scores": [float(score) for score in scores],
            "chunk_ids": [],
            "doc_ids": doc_ids,
        }
        for name, question, candidates, relevant, scores in zip(
            lists.ids, lists.questions, lists.candidates, lists.relevant, lists.scores, strict=True
        )
    ]


def instruction_rows(names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns examples of a generator: a chunk about each river, and a question that it answers."""
    rows: list[dict[str, Any]] = []
    for name in names:
        text = f"The {name} is a river of Europe that is known for its {name} trout."
        shared = {"negatives": [], "candidates": [], "scores": [], "chunk_ids": [name], "doc_ids": [name]}
        rows.append({"example_id": f"text {name}", "kind": "domain_text", "positive": text, **shared})
        asked = {"question": f"What is the {name}?", "positive": text}
        rows.append({"example_id": f"about {name}", "kind": "instruction", **asked, **shared})
    return rows


def write_training_set(settings: Settings, tenant: str, doc_ids: list[str]) -> DatasetHeader:
    """Writes a snapshot of the tiny lists, made of some documents."""
    return write_examples(settings, tenant, ranked_rows(doc_ids))


def write_examples(settings: Settings, tenant: str, rows: list[dict[str, Any]]) -> DatasetHeader:
    """Writes a snapshot of which each split has the same examples."""
    described = DatasetHeader.model_validate(
        {
            "name": f"of-{tenant}",
            "digest": "",
            "tenant": tenant,
            "recipe": {},
            "versions": {},
            "code_version": "1",
            "run_id": "",
            "made_at": datetime.now(UTC),
            "files": {},
            "splits": dict.fromkeys(SPLITS, len(rows)),
            "kinds": dict(Counter(row["kind"] for row in rows)),
            "query_kinds": {},
            "licences": {},
            "languages": [],
            "documents": len({each for row in rows for each in row["doc_ids"]}),
        }
    )
    examples = dict.fromkeys(SPLITS, pa.Table.from_pylist(rows, EXAMPLE_SCHEMA))
    return write_dataset(settings.datasets_folder, described, examples)


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_embedder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def settings(module_folder: Path) -> Settings:
    generator = save_tiny_generator(module_folder / "generator")
    return Settings(home=module_folder / "state", generator=EngineConfig(model=generator))


@pytest.fixture(scope="module")
def rivers(settings: Settings) -> list[str]:
    """Returns the ids of documents of the lake."""
    names = [f"river{number}" for number in range(16)]
    write(
        open_configured_lake(settings), DOCUMENTS, [filled_row(DOCUMENTS, {"doc_id": each}) for each in names]
    )
    return names


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        follow_training_tenants(instance, [TENANT, "globex", "initech"])
        yield instance


def materialize(
    settings: Settings,
    instance: dg.DagsterInstance,
    base: Path | None,
    tenant: str = TENANT,
    dataset: str | None = None,
    seed: int = 3,
) -> dg.ExecuteInProcessResult:
    """Trains the embedder over a base, or without one the generator over the local model."""
    config: dict[str, object] = {"minutes": 5, "seed": seed}
    if dataset is not None:
        config["dataset"] = dataset
    if base is not None:
        made, name = [embedder_asset, embedder_compared_asset_check], "embedder"
        config["base"] = str(base)
    else:
        made, name = [generator_asset, generator_compared_asset_check], "generator"
    return dg.materialize(
        made,
        instance=instance,
        resources=dagster_resources(settings),
        partition_key=tenant,
        run_config={"ops": {f"models__{name}": {"config": config}}},
        raise_on_error=False,
    )


def test_a_tenants_training_is_a_materialization_with_its_curves_and_where_it_came_from(
    settings: Settings, instance: dg.DagsterInstance, tiny_base: Path
) -> None:
    header = write_training_set(settings, TENANT, [])
    result = materialize(settings, instance, tiny_base)
    assert result.success
    [made] = result.asset_materializations_for_node("models__embedder")
    assert made.partition == TENANT
    shown = {name: each.value for name, each in made.metadata.items()}
    registry = settings.training_place.registry
    version = registry.find("embedder@1")
    assert shown["version"] == "embedder@1"
    assert shown["digest"] == version.digest
    assert shown["dataset"] == header.address
    assert shown["base"] == str(tiny_base)
    assert shown["validation_ndcg@10"] == version.metrics["validation_ndcg@10"]
    assert shown["curves"].count("data:image/png;base64,") == 2  # type: ignore[union-attr]
    assert version.lineage.tenant == TENANT
    assert version.lineage.settings["seed"] == 3
    assert registry.aliases("embedder") == ModelAliases(candidate=1)
    [check] = result.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "`headwater models compare embedder@1 live`" in str(check.description)
    told = [
        entry.user_message
        for entry in instance.all_logs(result.run_id)
        if entry.user_message and not entry.is_dagster_event
    ]
    assert any("validation nDCG@10" in line for line in told)
    assert any(line.startswith("training on ") for line in told)

    again = materialize(settings, instance, tiny_base)
    [same] = again.asset_materializations_for_node("models__embedder")
    assert same.metadata["digest"].value == version.digest
    assert len(registry.versions("embedder")) == 1


def test_the_verdict_of_a_comparison_is_shown(
    settings: Settings, instance: dg.DagsterInstance, tiny_base: Path
) -> None:
    write_training_set(settings, TENANT, [])
    assert materialize(settings, instance, tiny_base).success
    registry = settings.training_place.registry
    for decision, reason in (("approved", "better by vectors"), ("refused", "worse by words")):
        said = {
            "version": 1,
            "decision": decision,
            "reason": reason,
            "against": "cd" * 32,
            "dataset": "rivers/test",
            "gains": {"vector ndcg@10": {"difference": 0.1, "low": 0.05, "high": 0.15}},
            "decided_at": datetime.now(UTC),
        }
        registry.log_decision("embedder", ModelDecision.model_validate(said))
        [check] = materialize(settings, instance, tiny_base).get_asset_check_evaluations()
        assert check.passed == (decision == "approved")
        assert check.severity == dg.AssetCheckSeverity.WARN or check.passed
        assert check.description == f"embedder@1: {decision}: {reason}"
        assert check.metadata["vector ndcg@10, low"].value == 0.05
        assert check.metadata["dataset"].value == "rivers/test"


def test_a_tenants_adapter_is_a_materialization_and_a_training_by_the_command_line_is_one_too(
    settings: Settings, instance: dg.DagsterInstance, rivers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    header = write_examples(settings, TENANT, instruction_rows(rivers))
    result = materialize(settings, instance, None)
    assert result.success
    [made] = result.asset_materializations_for_node("models__generator")
    shown = {name: each.value for name, each in made.metadata.items()}
    version = settings.training_place.registry.find("generator-acme@1")
    assert (made.partition, shown["version"], shown["dataset"]) == (TENANT, version.address, header.address)
    assert (shown["base"], version.lineage.tenant) == (str(settings.generator.model), TENANT)
    assert settings.training_place.registry.learned_documents(version) == set(rivers)
    assert shown["validation_loss"] == version.metrics["validation_loss"]
    assert str(shown["curves"]).count("data:image/png;base64,") == 2
    [check] = result.get_asset_check_evaluations()
    [verdict] = settings.training_place.registry.decisions(version.name)
    assert check.passed == (verdict.decision == "approved")
    decided = verdict.decision.replace("undecided", "not decided")
    assert check.description == f"generator-acme@1: {decided}: {verdict.reason}"

    training = GeneratorTraining(minutes=5, seed=3)

    def train_by_command() -> None:
        assert train_generator_version(settings, None, TENANT, None, training, print) == version

    train_by_command()
    assert not settings.dagster_home.exists(), "no Dagster, nothing to tell"
    monkeypatch.setenv("DAGSTER_HOME", str(settings.dagster_home))
    with dagster_home_instance(settings) as ours:
        for partition in (None, TENANT):
            train_by_command()
            [told] = ours.fetch_materializations(model_key("generator"), limit=1).records
            assert told.asset_materialization is not None
            by_command = {name: each.value for name, each in told.asset_materialization.metadata.items()}
            assert by_command == shown
            assert told.asset_materialization.partition == partition
            assert told.asset_materialization.tags == {"dagster/data_version": version.digest}
            follow_training_tenants(ours, [TENANT])
    monkeypatch.delenv("DAGSTER_HOME")

    # A snapshot that is no longer the newest is learned where it is named, also by a job that was stopped.
    other_seed = GeneratorTraining(minutes=0.1, seed=4)
    said: list[str] = []

    def train(dataset: str | None) -> ModelVersion:
        return train_generator_version(settings, None, None, None, other_seed, said.append, dataset)

    train_until_killed(lambda: train(header.name))
    newest = write_examples(settings, TENANT, instruction_rows(rivers[1:]))
    [again] = materialize(settings, instance, None, dataset=header.address).asset_materializations_for_node(
        "models__generator"
    )
    assert again.metadata["version"].value == version.address
    assert train(newest.name).lineage.dataset == newest.address
    stopped = f"a training on {header.address} was stopped: `--dataset {header.address}` goes on with it"
    assert stopped in said
    said.clear()
    resumed = train(header.address)
    assert (resumed.lineage.dataset, resumed.lineage.tenant) == (header.address, TENANT)
    assert any("going on" in line for line in said)
    assert stopped not in said
    failed = materialize(settings, instance, None, "globex", header.address)
    assert "is a training set of the tenant 'acme'" in failure_of(failed)


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """Returns what the one step said that failed."""
    assert not result.success
    [failed] = [each for each in result.all_node_events if each.is_step_failure]
    error = failed.step_failure_data.error
    assert error is not None
    return str((error.cause or error).message)


TIMED = {"peak_memory_mib", "examples_per_s"}
"""Figures that differ from one training to the next."""


@pytest.mark.slow
def test_a_worker_with_nothing_but_what_training_needs_makes_the_same_models_also_after_it_was_killed(
    settings: Settings, instance: dg.DagsterInstance, tiny_base: Path, rivers: list[str], tmp_path: Path
) -> None:
    python = make_worker_environment(tmp_path / "environment", NEEDED_TO_TRAIN)
    for absent in ("dagster", "pyspark", "deltalake", "mlflow", "icu4py"):
        assert subprocess.run([python, "-c", f"import {absent}"], capture_output=True).returncode == 1, absent
    there = Settings(
        home=tmp_path / "state",
        lake=settings.lake_root,
        generator=settings.generator,
        training=TrainingConfig(worker_python=python_that_dies_once(tmp_path, python)),
    )
    write_examples(settings, TENANT, ranked_rows([]) + instruction_rows(rivers))
    shutil.copytree(settings.datasets_folder, there.datasets_folder)
    (tmp_path / "died").touch()  # the embedder's worker lives
    for base, name in ((tiny_base, "embedder"), (None, "generator")):
        assert materialize(settings, instance, base, seed=5).success
        if name == "generator":
            (tmp_path / "died").unlink()
            said = failure_of(materialize(there, instance, base, seed=5))
            assert "the worker failed" in said
            assert "The same command goes on from the last checkpoint" in said
            [worker] = there.training_place.jobs.glob("generator*/worker")
            left = {each.name for each in worker.iterdir()}
            assert "checkpoint.safetensors" in left
            assert "given" not in left
        result = materialize(there, instance, base, seed=5)
        [made] = result.asset_materializations_for_node(f"models__{name}")
        log = "\n".join(each.user_message for each in instance.all_logs(result.run_id))
        assert ("going on from the checkpoint after step" in log) == (name == "generator")
        assert "best weights" in log
        model = str(made.metadata["version"].value).partition("@")[0]
        one = settings.training_place.registry.versions(model)[0]
        [other] = there.training_place.registry.versions(one.name)
        assert other.digest == one.digest
        assert other.lineage == one.lineage
        same = {key: value for key, value in one.metrics.items() if key not in TIMED}
        assert {key: value for key, value in other.metrics.items() if key not in TIMED} == same
        assert there.training_place.registry.open(other).is_dir()
        assert made.metadata["worker_steps"].value == one.metrics["steps"]
        curves = made.metadata["worker_curves"].value
        assert isinstance(curves, dict)
        assert len(curves["scores"]) == len(curves["losses"]) > 2
        assert str(made.metadata["curves"].value).count("data:image/png;base64,") == 2
    assert list(there.training_place.jobs.glob("*/worker")) == []


def test_a_tenant_without_a_training_set_and_one_whose_documents_were_removed_train_nothing(
    settings: Settings, instance: dg.DagsterInstance, tiny_base: Path
) -> None:
    before = settings.training_place.registry.versions("embedder")
    write_training_set(settings, "globex", ["a document that the lake does not have"])
    for tenant, why in (
        ("initech", "the tenant 'initech' has no training set yet"),
        ("globex", "holds documents that were removed since it was made (1)"),
    ):
        assert why in failure_of(materialize(settings, instance, tiny_base, tenant))
    assert settings.training_place.registry.versions("embedder") == before


def test_partitions_are_the_tenants_that_asked(tmp_path: Path) -> None:
    name = str(TRAINING_TENANTS.name)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        follow_training_tenants(instance, ["acme", "globex"])
        assert sorted(instance.get_dynamic_partitions(name)) == ["acme", "globex"]
        follow_training_tenants(instance, ["globex"])
        assert instance.get_dynamic_partitions(name) == ["globex"]


def test_no_run_of_the_lake_trains(settings: Settings) -> None:
    defs = build_definitions(settings)
    graph = defs.resolve_asset_graph()
    trained = {model_key(name) for name in ("embedder", "generator")}
    assert trained <= graph.materializable_asset_keys
    assert [graph.get(key).automation_condition for key in trained] == [None, None]
    nodes = defs.resolve_job_def("refresh").graph.node_dict
    assert "gold__chunks" in nodes
    assert [name for name in nodes if name.startswith("models")] == []
    # Its pool is its own, so that a training waits for trainings alone, and none of the lake's runs for it.
    pooled = {key for key in graph.get_all_asset_keys() if "training" in (graph.get(key).pools or ())}
    assert pooled == trained
