import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from random_adapters import register_random_adapter
from test_model_assets import instruction_rows, write_examples, write_training_set
from tiny_generator import save_tiny_generator
from typer.testing import CliRunner

from inference.engines.digest import model_files_digest
from orchestration.cli.main import app
from orchestration.settings import Settings
from orchestration.training.adapter_comparison import compare_adapters
from orchestration.training.generators import train_generator_version
from retrieval.embedding.model_signature import ModelNotTrusted
from training.datasets.held_out import NothingHeldOut
from training.datasets.training_set import DatasetHasRemovedDocuments, UnknownDataset
from training.job_folder import TrainingIsRunning, alone_in
from training.jobs.network import UnknownBase
from training.jobs.plan import GeneratorTraining
from training.registry.versions import ModelRegistry, SharedDigest, UnknownModel

TRAINING = GeneratorTraining(minutes=0.1)


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_generator(tmp_path_factory.mktemp("generator"))


def examples(file: Path, count: int = 30) -> Path:
    rows = [{"prompt": f"what of {n}?", "response": f"river {n % 3}"} for n in range(count)]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return file


def test_training_registers_a_signed_adapter_and_the_same_command_makes_nothing_new(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = examples(tmp_path / "mine.jsonl")
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path / "state"))
    command = ["train", "generator", "--data", str(data), "--base", str(tiny_base), "--minutes", "0.1"]
    made = json.loads(CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False).stdout)
    assert set(made) == {"model", "version", "digest", "dataset", "metrics", "seconds"}
    assert (made["model"], made["version"], made["dataset"]) == ("generator", 1, str(data))
    assert made["metrics"]["test_examples"] == 4
    again = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    assert json.loads(again.stdout) == made
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(NothingHeldOut, match=r"none\.jsonl\S* holds nothing to measure generator@1 on"):
        compare_adapters(Settings(), "generator@1", "base", tmp_path / "none.jsonl", None, print)
    # On its own file it is measured on what it did not learn, and on no more.
    measured = compare_adapters(Settings(), "generator@1", "base", data, None, print)
    assert (measured.examples, measured.questions) == (4, 0)
    rows = [{"prompt": f"What of {n}", "response": f"river {n}"} for n in range(30)]
    (tmp_path / "nearly.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert (
        compare_adapters(Settings(), "generator@1", "base", tmp_path / "nearly.jsonl", None, print).examples
        == 4
    )
    of_tenant = [*command, "--tenant", "acme", "--json"]
    other = json.loads(CliRunner().invoke(app, of_tenant, catch_exceptions=False).stdout)
    assert (other["model"], other["version"]) == ("generator-acme", 1)
    shown = CliRunner().invoke(app, ["models", "show", "generator-acme@1", "--json"], catch_exceptions=False)
    found = json.loads(shown.stdout)
    assert found["lineage"]["tenant"] == "acme"
    assert found["decisions"][0]["against"] == found["lineage"]["base_digest"]
    assert json.loads((Path(found["path"]) / "adapter_config.json").read_text())["peft_type"] == "LORA"
    assert "library_name: peft" in (Path(found["path"]) / "README.md").read_text()
    assert {path.name for path in Path(found["path"]).parent.rglob("*") if path.is_file()} == {
        *("model.sig", "headwater.json", "README.md", "adapter_config.json", "adapter_model.safetensors"),
        "learned_questions.parquet",
    }
    registry = ModelRegistry(tmp_path / "state" / "models")
    config = Path(found["path"]) / "adapter_config.json"
    config.write_text(config.read_text().replace('"r": 16', '"r": 32'))
    with pytest.raises(ModelNotTrusted):
        registry.open(registry.find("generator-acme@1"))


def test_an_adapter_is_compared_by_its_losses_and_by_its_answers(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path / "state")
    names = ("Danube", "Rhine", "Elbe", "Oder", "Main", "Isar")
    rows = instruction_rows(names)
    again = rows[1] | {"example_id": "again", "positive": "A river that is known for its trout."}
    header = write_examples(settings, "acme", [*rows, again])
    registry = ModelRegistry(settings.models_folder)
    digest = model_files_digest(tiny_base)
    made = [
        register_random_adapter(registry, tiny_base, digest, "acme", seed, dataset=header.address)
        for seed in (1, 2)
    ]
    monkeypatch.setenv("HEADWATER_HOME", str(settings.home))
    monkeypatch.setenv("HEADWATER_GENERATOR__MAX_NEW_TOKENS", "4")
    found = compared(made[0].digest[:12])
    assert (found["one"], found["other"], found["questions"]) == ("generator-acme@1", "base", len(names))
    assert found["examples"] == len(names) + 1  # of which two ask the same
    assert {"loss", "answered", "token_f1"} <= set(found["figures"]["base"])
    assert {"log_likelihood", "answered", "token_f1", "citation_recall"} == set(found["gains"])
    [kept] = registry.decisions("generator-acme")
    assert (kept.questions, kept.against) == (len(names), digest)
    assert {name: asdict(each) for name, each in kept.gains.items()} == found["gains"]
    assert (kept.decision, found["approved"]) == (found["decision"], found["decision"] == "approved")
    assert kept.questions_digest
    # Of two that write at random one is likelier, and none answers better.
    both = [found, compared(made[1].address, made[0].address)]
    assert any(not each["approved"] and "log_likelihood" in each["reason"] for each in both)
    asked = ["what is the rhine"]
    learned = register_random_adapter(
        registry, tiny_base, digest, "acme", 3, questions=asked, dataset=header.address
    )
    for pair in ((learned.address, "base"), (made[0].address, learned.address)):
        found = compared(*pair)
        assert (found["questions"], found["examples"]) == (len(names) - 1, len(names))
    same = register_random_adapter(registry, tiny_base, digest, "beta", 1)
    assert same.digest == made[0].digest
    with pytest.raises(SharedDigest, match="of generator-acme@1 and generator-beta@1: name one of them"):
        compared(same.digest)


def compared(*models: str) -> Any:
    command = ["models", "compare", *models, "--json"]
    return json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)


def test_what_can_not_be_trained_is_told(tiny_base: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "state")
    data = examples(tmp_path / "mine.jsonl")

    def train(data: Path | None, base: str | Path | None = tiny_base) -> None:
        train_generator_version(settings, data, None, base, TRAINING, lambda line: None)

    with pytest.raises(UnknownDataset, match="'default' has no training set yet"):
        train(None)
    write_training_set(settings, "default", ["a document that the lake does not have"])
    with pytest.raises(DatasetHasRemovedDocuments, match="removed since"):
        train(None)
    with pytest.raises(UnknownBase, match="HEADWATER_GENERATOR__MODEL"):
        train(data, None)
    with pytest.raises(UnknownBase, match="no model at"):
        train(data, tmp_path / "none")
    train(data)
    with pytest.raises(UnknownBase, match=rf"generator@1 is an adapter.*--base {tiny_base}"):
        train(data, "generator@1")
    with pytest.raises(UnknownModel, match="no model 'generator@2'; there are generator@1"):
        train(data, "generator@2")
    both = CliRunner().invoke(app, ["train", "generator", "--data", str(data), "--dataset", "of-acme"])
    assert both.exit_code == 2
    assert "--data and --dataset are two" in both.output
    [job] = (tmp_path / "state" / "training").glob("generator-*")
    with alone_in(job), pytest.raises(TrainingIsRunning):
        train(data)
