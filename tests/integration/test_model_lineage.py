"""Lineage through models: to the bytes of what they learned, and from a document to all of its models."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from lake_rows import write
from live_models import show_live
from random_adapters import register_random_adapter
from tiny_embedders import make_tiny_embedder
from tiny_generator import save_tiny_generator
from trained_lake import NOW, TrainedLake, make_trained_lake, write_snapshot
from typer.testing import CliRunner

from assets.lake.tables import ANSWERS, DOCUMENTS, RELEASES
from assets.model_consistency import _training_sets
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from assets.training_sets.learned import (
    BaseHasRemovedDocuments,
    embedder_without_removed,
    require_base_without_removed,
)
from inference.engines.digest import model_files_digest
from orchestration.cli.main import app
from orchestration.operations import runs
from orchestration.services.status import _models
from orchestration.settings import Settings, settings_of_next_run
from orchestration.tenants.holdings import show_tenant
from orchestration.tenants.removal import _remaining
from orchestration.tracing.models import TrainedFrom
from orchestration.tracing.nodes import Trace, TraceNode, Untraceable
from orchestration.tracing.tracer import Tracer
from orchestration.tracing.verify import TraceVerifier
from orchestration.training.train import train_embedder_version
from retrieval.embedding.config import packaged_embedding_model
from retrieval.embedding.quantization import int8_model_digest
from training.datasets.requests import DatasetRequests
from training.datasets.training_set import DatasetHasRemovedDocuments, UnknownDataset, snapshot_folder
from training.jobs.plan import EmbedderTraining

NAMES = ["tides", "bread", "copper", "kites", "moss", "wool"]


@pytest.fixture
def trained(tmp_path: Path) -> TrainedLake:
    """Three versions: one of all documents but wool, one trained on it of nothing, one of wool alone."""
    made = make_trained_lake(tmp_path / "state", NAMES)
    first = made.add_model(tmp_path, NAMES[:5])
    made.add_model(tmp_path, [], base=first, dataset=str(tmp_path), dataset_digest="ef" * 32, tenant=None)
    made.add_model(tmp_path, ["wool"])
    show_live(made.registry, "embedder", 1)
    return made


def trace(trained: TrainedLake, identity: str, verify: bool = False) -> Trace:
    verifier = TraceVerifier(trained.settings.recipe.parser) if verify else None
    sources = TrainedFrom(trained.settings.datasets_folder, trained.registry, lambda: [])
    return Tracer(trained.lake, lambda _: [], verifier, sources).trace(identity)


def below(node: TraceNode) -> Iterator[TraceNode]:
    yield node
    for child in node.children:
        yield from below(child)


def nodes(found: list[TraceNode], kind: str) -> list[TraceNode]:
    return [each for node in found for each in below(node) if each.kind == kind]


def test_a_model_is_traced_to_base_training_set_examples_and_bytes(trained: TrainedLake) -> None:
    first = trained.registry.find("embedder@1")
    found = trace(trained, "embedder@1", verify=True)
    assert (found.kind, found.verified) == ("model", True)
    base, dataset, documents = found.backward
    assert (base.kind, base.id, base.details["digest"]) == ("base", "all-MiniLM-L6-v2", "cd" * 32)
    assert (dataset.kind, dataset.id) == ("training_set", trained.dataset.address)
    assert (dataset.details["train"], dataset.details["is_kept"]) == (12, True)
    examples = nodes([dataset], "training_example")
    assert len(examples) == 3, "counted, and a few shown"
    assert examples[0].details["chunks"] == 2
    assert len(nodes(examples, "bytes")) == len(nodes(examples, "document")) == 6
    assert (documents.details["documents"], documents.details["removed"]) == (5, 0)
    assert len(documents.children) == 5
    for identity in (first.digest, first.digest[:10], "embedder@live"):
        assert trace(trained, identity).backward[1].id == dataset.id


def test_a_version_trained_on_another_goes_on_to_what_that_one_learned(trained: TrainedLake) -> None:
    base, folder, documents = trace(trained, "embedder@2").backward
    assert (base.kind, base.id, base.details["aliases"]) == ("model", "embedder@1", "live")
    assert nodes([base], "training_set")[0].id == trained.dataset.address
    assert (folder.kind, folder.details) == ("folder", {"digest": "ef" * 32})
    assert documents.details["documents"] == 5, "of its base"


def test_a_document_is_traced_to_every_version_that_learned_from_it(trained: TrainedLake) -> None:
    def models(name: str) -> list[str]:
        return [node.id for node in nodes(trace(trained, trained.doc_ids[name]).forward, "model")]

    assert models("tides") == ["embedder@2", "embedder@1"]
    assert models("wool") == ["embedder@3"]
    trained.remove("tides")
    (trained.settings.datasets_folder / "acme" / "request.json").write_text('{"tenant": "acme"}')
    DatasetRequests(trained.settings.datasets_folder).remove("acme")
    assert models("tides") == ["embedder@2", "embedder@1"], "also when the training set is gone"
    _, dataset, documents = trace(trained, "embedder@1").backward
    assert (dataset.id, dataset.details["is_kept"]) == (trained.dataset.address, False)
    assert documents.details["removed"] == 1
    shown = documents.children[0].details
    assert (shown["uri"], shown["removed"]) == ("file:///tides.txt", True), "removed ones are shown first"


def test_a_training_set_is_traced_both_ways(trained: TrainedLake) -> None:
    found = trace(trained, trained.dataset.address)
    assert found.kind == "training_set"
    assert [node.id for node in found.forward] == ["embedder@3", "embedder@1"]
    assert len(nodes(found.backward, "bytes")) == 6


def answer(number: int, model_digest: str, adapter: str | None = None) -> dict[str, object]:
    return {
        **{"answer_id": f"00000000-0000-0000-0000-00000000000{number}", "tenant": "acme", "question": "?"},
        **{"answer": "!", "refused": False, "engine": "extractive", "citations": [], "release_id": "r1"},
        **{"model_digest": model_digest, "retrieved": [], "answered_at": NOW, "generator_digest": "e" * 64},
        **{"access_groups": None, "generator_adapter": adapter},
    }


def test_an_answer_names_the_version_that_ranked_its_passages_and_the_engine(trained: TrainedLake) -> None:
    first = trained.registry.find("embedder@1")
    release = {
        **{"release_id": "r1", "decision": "released", "reason": "", "generation": 1, "epoch": 0},
        **{"model_digest": first.digest, "metrics": "{}", "versions": "{}", "decided_at": NOW},
    }
    write(trained.lake, RELEASES, [release])
    rows = [answer(0, first.digest), answer(1, int8_model_digest(first.digest)), answer(2, "f" * 64)]
    write(trained.lake, ANSWERS, rows)
    for number in (0, 1):
        found = trace(trained, str(rows[number]["answer_id"])).backward
        [model] = [node for node in found if node.kind == "model"]
        assert (model.id, model.details["role"]) == ("embedder@1", "embedder")
        assert nodes([model], "training_set")[0].id == trained.dataset.address
        [engine] = nodes(found, "engine")
        assert (engine.id, engine.details["generator_digest"]) == ("extractive", "e" * 64)
    untrained = nodes(trace(trained, str(rows[2]["answer_id"])).backward, "embedder")
    assert [node.id for node in untrained] == ["f" * 64]
    forward = trace(trained, "embedder@1").forward
    assert [node.id for node in nodes(forward, "release")] == ["r1"]
    assert nodes(forward, "answers")[0].details == {"answers": 2, "shown": 2}


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_generator(tmp_path_factory.mktemp("generator"))


def test_an_answer_leads_through_its_adapter_to_what_that_learned_and_a_document_to_all_adapters(
    trained: TrainedLake, generator: Path
) -> None:
    digest, ids = model_files_digest(generator), [trained.doc_ids[name] for name in ("bread", "kites")]
    of_set = {"dataset": trained.dataset.address, "dataset_digest": trained.dataset.digest}
    file = {"dataset": "/home/ada/mine.jsonl", "dataset_digest": "ef" * 32}
    registry = trained.registry
    own = register_random_adapter(registry, generator, digest, "acme", 1, ids, **of_set)
    of_file = register_random_adapter(registry, generator, digest, "acme", 2, **file)
    of_all = register_random_adapter(registry, generator, digest, None, 3, **file)
    rows = [answer(number, "f" * 64, each.digest) for number, each in enumerate((own, of_all))]
    write(trained.lake, ANSWERS, [*rows, answer(2, "f" * 64, "c" * 64)])

    def adapter(number: int) -> TraceNode:
        found = trace(trained, f"00000000-0000-0000-0000-00000000000{number}").backward
        [engine] = nodes(found, "engine")
        return engine.children[0]

    wrote = adapter(0)
    assert (wrote.kind, wrote.id, wrote.details["role"]) == ("model", "generator-acme@1", "adapter")
    base, dataset, documents = wrote.children
    assert (base.kind, base.id, base.details["digest"]) == ("base", str(generator), digest)
    assert (dataset.kind, dataset.id) == ("training_set", trained.dataset.address)
    shown = {node.details["example_kind"] for node in nodes([dataset], "training_example")}
    assert shown == {"domain_text"}, "what a generator learns, not what an embedder does"
    assert len(nodes([dataset], "bytes")) == 3
    assert {node.id for node in documents.children} == set(ids)
    assert adapter(1).id == of_all.address == "generator@1"
    gone = adapter(2)
    assert (gone.kind, gone.id, gone.details) == ("adapter", "c" * 64, {"is_kept": False})
    for version in (of_file, of_all):
        learned = trace(trained, version.address).backward[1]
        assert (learned.kind, learned.details) == ("file", {"digest": "ef" * 32}), "also of a tenant's"
    forward = trace(trained, own.address).forward
    assert [node.details for node in nodes(forward, "answers")] == [{"answers": 1, "shown": 1}]
    models = nodes(trace(trained, trained.doc_ids["kites"]).forward, "model")
    assert [node.id for node in models] == ["embedder@2", "embedder@1", "generator-acme@1"]
    show_live(registry, "generator-acme", 1)
    trained.remove("bread")
    marked = "generator-acme@1 (live) learned from 1 removed document"
    strict = trained.settings.model_copy(update={"live_model_with_removed_documents": "steps_down"})
    stays, steps_down = (_models(each, trained.lake)[-1] for each in (trained.settings, strict))
    assert stays.startswith(f"{marked}: it stays live until another is promoted (HEADWATER_LIVE_MODEL")
    assert steps_down.startswith(f"{marked}: with the next run the version before it answers, or the base")


def test_the_command_traces_a_model_and_names_what_it_does_not_know(
    trained: TrainedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(trained.settings.home))
    ran = CliRunner().invoke(app, ["trace", "embedder@1", "--json"], catch_exceptions=False)
    found = json.loads(ran.stdout)
    assert found["kind"] == "model"
    assert [node["kind"] for node in found["backward"]] == ["base", "training_set", "learned_documents"]
    printed = CliRunner().invoke(app, ["trace", "embedder@1"], catch_exceptions=False)
    assert "learned_documents embedder@1" in printed.stdout
    held = json.loads(invoke(trained, "tenant", "show", "acme", "--json"))
    assert held["models"] == ["embedder@3", "embedder@2", "embedder@1"], "the second by its base alone"
    with pytest.raises(Untraceable, match=rf"no training set 'embedder@9'; .*{trained.dataset.address}"):
        trace(trained, "embedder@9")


def invoke(trained: TrainedLake, *arguments: str) -> str:
    done = CliRunner().invoke(
        app, arguments, env={"HEADWATER_HOME": str(trained.settings.home)}, catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.stdout


def marks(trained: TrainedLake) -> dict[str, int]:
    rows = json.loads(invoke(trained, "models", "list", "--json"))
    return {f"{row['model']}@{row['version']}": row["removed_documents"] for row in rows}


def test_versions_that_learned_from_a_removed_document_are_marked_until_it_comes_back(
    trained: TrainedLake,
) -> None:
    assert marks(trained) == {"embedder@1": 0, "embedder@2": 0, "embedder@3": 0}
    assert _models(trained.settings, trained.lake) == []
    before = trained.lake.version(DOCUMENTS.name)
    trained.remove("tides")
    trained.remove("moss")
    assert marks(trained) == {"embedder@1": 2, "embedder@2": 2, "embedder@3": 0}, "the second by its base"
    shown = json.loads(invoke(trained, "models", "show", "embedder@1", "--json"))
    assert (shown["documents"], set(shown["removed_documents"])) == (
        5,
        {trained.doc_ids["tides"], trained.doc_ids["moss"]},
    )
    assert "embedder@1 (live) learned from 2 removed documents, of 5" in invoke(
        trained, "models", "show", "embedder@1"
    )
    of_base, live = _models(trained.settings, trained.lake)
    assert of_base == "embedder@2 learned from 2 removed documents: nothing is trained from it"
    assert live.startswith("embedder@1 (live) learned from 2 removed documents: it stays live until another")
    assert "LIVE_MODEL_WITH_REMOVED_DOCUMENTS" in live
    trained.lake.delta(DOCUMENTS.name).restore(before)
    assert marks(trained) == {"embedder@1": 0, "embedder@2": 0, "embedder@3": 0}


def test_removing_a_source_says_which_versions_learned_from_it(trained: TrainedLake, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    SourceRegistry(trained.settings.sources_file).add(Source(name="docs", location=str(tmp_path / "docs")))
    removed = json.loads(invoke(trained, "source", "remove", "docs", "--json"))
    assert removed["models"] == {"embedder@1": 5, "embedder@2": 5, "embedder@3": 1}


def test_nothing_is_trained_from_a_version_that_learned_from_a_removed_document(trained: TrainedLake) -> None:
    registry = trained.registry
    second, third = (registry.path(registry.find(f"embedder@{number}")) for number in (2, 3))
    require_base_without_removed(trained.lake, registry, second)
    trained.remove("tides")
    require_base_without_removed(trained.lake, registry, third)
    require_base_without_removed(trained.lake, registry, packaged_embedding_model())
    with pytest.raises(
        BaseHasRemovedDocuments, match=r"embedder@2 learned from 1 removed document, .*--base"
    ):
        require_base_without_removed(trained.lake, registry, second)


def test_a_live_version_stays_or_steps_down_to_one_that_learned_from_no_removed_document(
    trained: TrainedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = trained.registry
    show_live(registry, "embedder", 1, 3)
    first, third = (registry.path(registry.find(f"embedder@{number}")) for number in (1, 3))

    def embedder(policy: str) -> Path:
        monkeypatch.setenv("HEADWATER_LIVE_MODEL_WITH_REMOVED_DOCUMENTS", policy)
        return settings_of_next_run(Settings(home=trained.settings.home)).recipe.embedder.model

    assert embedder("steps_down") == first
    trained.remove("tides")
    assert embedder("stays") == first
    assert embedder("steps_down") == third
    trained.remove("wool")
    assert embedder("steps_down") == packaged_embedding_model()
    given = trained.settings.recipe.embedder
    assert embedder_without_removed(trained.lake, registry, given) is given, "no version of the registry"
    replaced = given.model_copy(update={"model": first})
    show_live(registry, "embedder", None, 1)
    taken = embedder_without_removed(trained.lake, registry, replaced)
    assert taken.model == packaged_embedding_model(), "also after it was replaced: it does not come back"
    show_live(registry, "embedder", 1, 3)
    monkeypatch.setenv("HEADWATER_RECIPE__EMBEDDER__MODEL", "embedder@live")
    assert embedder("steps_down") == first, "the settings name it"


def test_the_run_that_removes_a_document_is_followed_by_one_without_the_model(
    trained: TrainedLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_LIVE_MODEL_WITH_REMOVED_DOCUMENTS", "steps_down")
    settings, made = Settings(home=trained.settings.home), list[Path]()

    def execute(given: Settings, *_: object, **__: object) -> runs.RunOutcome:
        made.append(settings_of_next_run(given).recipe.embedder.model)
        if len(made) == 1:
            trained.remove("tides")
        return runs.RunOutcome(f"run {len(made)}", {f"step {len(made)}": 1.0})

    monkeypatch.setattr(runs, "_execute", execute)
    said = list[str]()
    outcome = runs.execute_run(settings, None, said.append)
    assert made == [trained.registry.path(trained.registry.find("embedder@1")), packaged_embedding_model()]
    assert (outcome.run_id, list(outcome.seconds)) == ("run 1", ["step 1", "step 2"])
    assert "steps down" in said[0]
    runs.execute_run(settings, None, said.append)
    assert len(made) == 3, "once is enough"


def test_what_is_trained_next_leaves_a_removed_document_out(tmp_path: Path) -> None:
    names = [f"thing{number}" for number in range(12)]
    made = make_trained_lake(tmp_path / "state", names)
    base = make_tiny_embedder(tmp_path / "base")

    def train(of: Path | str) -> set[str]:
        training = EmbedderTraining(minutes=0.1)
        version = train_embedder_version(made.settings, None, ["acme"], str(of), training, print)
        return made.registry.learned_documents(version)

    assert train(base) == set(made.doc_ids.values())
    made.remove("thing3")
    with pytest.raises(DatasetHasRemovedDocuments, match="headwater datasets snapshot acme"):
        train(base)
    write_snapshot(made.settings, made.lake, [name for name in names if name != "thing3"])
    with pytest.raises(BaseHasRemovedDocuments, match="embedder@1"):
        train("embedder@1")
    assert train(base) == set(made.doc_ids.values()) - {made.doc_ids["thing3"]}
    listed = CliRunner().invoke(
        app, ["models", "list", "--json"], env={"HEADWATER_HOME": str(made.settings.home)}
    )
    assert [(row["version"], row["removed_documents"]) for row in json.loads(listed.stdout)] == [
        (2, 0),
        (1, 1),
    ]


def test_one_job_learns_from_several_tenants_and_is_marked_for_what_either_loses(tmp_path: Path) -> None:
    base = str(make_tiny_embedder(tmp_path / "base"))
    made = make_trained_lake(tmp_path / "state", [f"thing{number}" for number in range(8)])
    command = ["train", "embedder", "--base", base, "--minutes", "0.1", "--json"]
    both = ["--tenant", "globex", "--tenant", "acme"]
    with pytest.raises(UnknownDataset, match="the tenant 'globex' has no training set yet"):
        invoke(made, *command, *both)
    other = make_trained_lake(made.settings.home, [f"river{number}" for number in range(6)], "globex")
    sets = [made.dataset, other.dataset]
    addresses = [each.address for each in sets]
    first = json.loads(invoke(made, *command, *both))
    assert (first["version"], first["dataset"]) == (1, ", ".join(addresses))
    named = [option for address in addresses for option in ("--dataset", address)]
    for same in (["--tenant", "acme", "--tenant", "globex"], named):
        assert json.loads(invoke(made, *command, *same)) == first
    version = made.registry.find("embedder@1")
    assert (version.lineage.tenant, version.lineage.tenants) == (None, ["acme", "globex"])
    assert [each.digest for each in version.lineage.training_sets] == [each.digest for each in sets]
    assert made.registry.learned_documents(version) == {*made.doc_ids.values(), *other.doc_ids.values()}
    assert "of the tenants acme and globex" in (made.registry.path(version) / "README.md").read_text()

    found = trace(made, "embedder@1")
    assert [node.id for node in nodes(found.backward, "training_set")] == addresses
    for header, doc in zip(sets, (made.doc_ids["thing1"], other.doc_ids["river1"]), strict=True):
        for identity in (header.address, doc):
            assert [node.id for node in nodes(trace(made, identity).forward, "model")] == ["embedder@1"]
        held = show_tenant(made.settings, header.tenant)
        assert held.models == ["embedder@1"]
        left = [each.what for each in _remaining(made.settings, held, [])]
        assert "models that learned from its documents: embedder@1" in left

    place = made.settings.training_place
    folder = snapshot_folder(place.datasets, other.dataset)
    folder.rename(tmp_path / "away")
    [lacking] = _training_sets(made.lake, place)
    assert lacking.found.startswith(f"its training set {other.dataset.address} is not in ")
    (tmp_path / "away").rename(folder)
    assert marks(made) == {"embedder@1": 0}
    other.remove("river2")
    assert marks(made) == {"embedder@1": 1}
    made.lake.delta(DOCUMENTS.name).delete("tenant = 'globex'")
    assert marks(made) == {"embedder@1": 6}
    with pytest.raises(DatasetHasRemovedDocuments, match=other.dataset.address):
        invoke(made, *command, *both)
