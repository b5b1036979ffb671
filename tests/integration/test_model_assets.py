"""The assets that train: what they make, what Dagster shows of it, and that no run of the lake makes them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from tiny_embedders import make_tiny_embedder, tiny_lists

from assets.dagster.models import TRAINING_TENANTS, follow_training_tenants
from assets.models import EMBEDDER_KEY, embedder_asset, embedder_compared_asset_check
from orchestration.definitions import build_definitions
from orchestration.resources import dagster_resources
from orchestration.settings import Settings
from training.datasets.training_set import EXAMPLE_SCHEMA, SPLITS, DatasetHeader, write_dataset
from training.registry.versions import ModelAliases, ModelDecision

TENANT = "acme"


def write_training_set(settings: Settings, tenant: str, doc_ids: list[str]) -> DatasetHeader:
    """Writes a snapshot of the tiny lists, made of some documents."""
    lists = tiny_lists()
    rows = [
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
    return write_examples(settings, tenant, rows, {"ranked_list": len(rows)}, len(doc_ids))


def write_examples(
    settings: Settings, tenant: str, rows: list[dict[str, Any]], kinds: dict[str, int], documents: int = 1
) -> DatasetHeader:
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
            "kinds": kinds,
            "query_kinds": {},
            "licences": {},
            "languages": [],
            "documents": documents,
        }
    )
    examples = dict.fromkeys(SPLITS, pa.Table.from_pylist(rows, EXAMPLE_SCHEMA))
    return write_dataset(settings.datasets_folder, described, examples)


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_embedder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def settings(module_folder: Path) -> Settings:
    return Settings(home=module_folder / "state")


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        follow_training_tenants(instance, [TENANT, "globex", "initech"])
        yield instance


def materialize(
    settings: Settings, instance: dg.DagsterInstance, base: Path, tenant: str = TENANT
) -> dg.ExecuteInProcessResult:
    config = {"base": str(base), "minutes": 0.1, "seed": 3}
    return dg.materialize(
        [embedder_asset, embedder_compared_asset_check],
        instance=instance,
        resources=dagster_resources(settings),
        partition_key=tenant,
        run_config={"ops": {"models__embedder": {"config": config}}},
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
    assert check.passed
    assert "not compared yet: `headwater models compare embedder@1 live`" in str(check.description)
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


def test_a_tenant_without_a_training_set_and_one_whose_documents_were_removed_train_nothing(
    settings: Settings, instance: dg.DagsterInstance, tiny_base: Path
) -> None:
    before = settings.training_place.registry.versions("embedder")
    write_training_set(settings, "globex", ["a document that the lake does not have"])
    for tenant, why in (
        ("initech", "the tenant 'initech' has no training set yet"),
        ("globex", "holds documents that were removed since it was made (1)"),
    ):
        result = materialize(settings, instance, tiny_base, tenant)
        assert not result.success
        [failed] = [each for each in result.all_node_events if each.is_step_failure]
        error = failed.step_failure_data.error
        assert error is not None
        assert why in str((error.cause or error).message)
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
    assert EMBEDDER_KEY in graph.materializable_asset_keys
    assert graph.get(EMBEDDER_KEY).automation_condition is None
    nodes = defs.resolve_job_def("refresh").graph.node_dict
    assert "gold__chunks" in nodes
    assert [name for name in nodes if name.startswith("models")] == []
    # Its pool is its own, so that a training waits for trainings alone, and none of the lake's runs for it.
    assert [key for key in graph.get_all_asset_keys() if "training" in (graph.get(key).pools or ())] == [
        EMBEDDER_KEY
    ]
