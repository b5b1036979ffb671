"""Lineage through models: to the bytes of what they learned, and from a document to all of its models."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from lake_rows import write
from trained_lake import NOW, TrainedLake, make_trained_lake
from typer.testing import CliRunner

from assets.lake.tables import ANSWERS, RELEASES
from orchestration.cli.main import app
from orchestration.tracing.models import TrainedFrom
from orchestration.tracing.nodes import Trace, TraceNode, Untraceable
from orchestration.tracing.tracer import Tracer
from orchestration.tracing.verify import TraceVerifier
from retrieval.embedding.quantization import int8_model_digest
from training.datasets.requests import DatasetRequests
from training.registry.versions import ModelAliases

NAMES = ["tides", "bread", "copper", "kites", "moss", "wool"]


@pytest.fixture
def trained(tmp_path: Path) -> TrainedLake:
    """Three versions: one of all documents but wool, one trained on it of nothing, one of wool alone."""
    made = make_trained_lake(tmp_path / "state", NAMES)
    first = made.add_model(tmp_path, NAMES[:5])
    made.add_model(tmp_path, [], base=first, dataset=str(tmp_path), dataset_digest="ef" * 32, tenant=None)
    made.add_model(tmp_path, ["wool"])
    made.registry.set_aliases("embedder", ModelAliases(live=1))
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
    assert (dataset.details["train"], dataset.details["is_kept"]) == (6, True)
    examples = nodes([dataset], "training_example")
    assert len(examples) == 3, "counted, and a few shown"
    assert examples[0].details["chunks"] == 1
    assert len(nodes(examples, "bytes")) == len(nodes(examples, "document")) == 3
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
    assert len(nodes(found.backward, "bytes")) == 3


def answer(number: int, model_digest: str) -> dict[str, object]:
    return {
        **{"answer_id": f"00000000-0000-0000-0000-00000000000{number}", "tenant": "acme", "question": "?"},
        **{"answer": "!", "refused": False, "engine": "extractive", "citations": [], "release_id": "r1"},
        **{"model_digest": model_digest, "retrieved": [], "answered_at": NOW, "generator_digest": "e" * 64},
        **{"access_groups": None},
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
    with pytest.raises(Untraceable, match="a model such as embedder@1"):
        trace(trained, "embedder@9")
