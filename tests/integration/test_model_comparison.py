"""Comparing embedders: on a folder, on what a training set holds out, and where the figures say little."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_model_assets import instruction_rows, ranked_rows, write_examples
from test_model_releases import LINEAGE
from test_train_command import collection
from tiny_embedders import make_tiny_embedder
from typer.testing import CliRunner

from assets.dagster.models import comparison_result
from orchestration.cli.main import app
from orchestration.settings import Settings
from orchestration.training.comparison import compare_models
from training.datasets.held_out import NothingHeldOut, held_out_collection, known_answers
from training.datasets.training_set import (
    EMBEDDER_KINDS,
    DatasetHasRemovedDocuments,
    mark_removed_documents,
    open_dataset,
)
from training.registry.learned_texts import LearnedTexts
from training.registry.lineage import ModelLineage
from training.registry.model_card import model_card
from training.registry.versions import ModelVersion, UnknownModel


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_embedder(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def settings(module_folder: Path) -> Settings:
    return Settings(home=module_folder / "state")


def headwater(settings: Settings, *arguments: str) -> Any:
    environment = {"HEADWATER_HOME": str(settings.home)}
    ran = CliRunner().invoke(app, [*arguments, "--json"], env=environment, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def add_version(settings: Settings, base: Path, lineage: ModelLineage, learned: LearnedTexts) -> ModelVersion:
    def write(folder: Path) -> None:
        shutil.copytree(base, folder, dirs_exist_ok=True)

    return settings.training_place.registry.add("embedder", lineage, {}, 1.0, write, model_card, learned)


def test_a_version_is_compared_on_what_its_training_set_holds_out(
    settings: Settings, tiny_base: Path
) -> None:
    rivers = instruction_rows(["Danube", "Rhine", "Elbe"])
    texts, instructions = rivers[::2], rivers[1::2]
    # Of each there are a pair and a list, and of two the answer is known.
    both = [
        row | {"example_id": f"{kind} of {row['example_id']}", "kind": kind}
        for row in instructions
        for kind in EMBEDDER_KINDS
    ]
    rows = [*ranked_rows([]), *texts, *instructions[:2], *both]
    header = write_examples(settings, "acme", rows)
    lineage = {"dataset": header.address, "dataset_digest": header.digest, "tenant": "acme"}
    nothing = LearnedTexts()
    version = add_version(settings, tiny_base, LINEAGE.model_copy(update=lineage), nothing)
    held_out = held_out_collection(open_dataset(settings.datasets_folder, header.address))
    assert len(held_out.queries) == len(ranked_rows([])) + 3, "a question counts once"
    opened = open_dataset(settings.datasets_folder, header.address)
    untested = {**opened.examples, "test": opened.examples["test"].slice(0, 0)}
    with pytest.raises(NothingHeldOut, match=r"split test of .* add documents"):
        held_out_collection(replace(opened, examples=untested))
    found = compare_models(settings, version.address, str(tiny_base), None, "test", lambda line: None)
    assert (found.dataset, found.queries) == (header.address, len(held_out.queries))
    assert not found.approved  # it is compared with itself
    assert found.decision == "undecided"
    assert found.questions_needed
    assert "about 208 needed" in found.reason
    assert found.gains["vector ndcg@10"].difference == 0
    # On the whole path: what is known of the answers, and which passages they are to cite.
    assert known_answers(opened)["What is the Rhine?"] == (instructions[1]["positive"],)
    assert found.questions == len(held_out.queries)
    answered = found.figures[version.address]
    assert answered["token_f1"] > 0.5
    assert 0 < answered["citation_recall"] < 1
    answered_more = found.gains["answered"]
    assert answered_more.difference == 0
    assert answered_more.low == -answered_more.high < -0.1, "a few questions show little"
    [kept] = settings.training_place.registry.decisions("embedder")
    assert (kept.version, kept.dataset) == (version.version, f"{header.address}/test")
    assert (kept.questions, kept.gains) == (found.questions, found.gains)
    assert kept.questions_digest
    assert kept.questions_needed == found.questions_needed
    # The same questions are not asked again.
    said: list[str] = []
    again = compare_models(settings, version.address, str(tiny_base), None, "test", said.append)
    assert again.reason.startswith(f"decided on {header.address}/test at ")
    assert again.reason.endswith(found.reason)
    assert (again.decision, again.gains, again.figures) == (found.decision, found.gains, {})
    assert not any("evaluating" in line for line in said)
    assert len(settings.training_place.registry.decisions("embedder")) == 1
    shown = comparison_result(settings.training_place.registry, ["embedder"]).metadata
    assert shown["questions"].value == found.questions
    assert shown["citation_recall, difference"].value == 0

    mark_removed_documents(settings.datasets_folder, header, ["a document"])
    with pytest.raises(DatasetHasRemovedDocuments, match="removed since"):
        compare_models(settings, version.address, "live", None, "test", lambda line: None)


def test_no_embedder_is_judged_by_what_it_or_the_other_learned_from(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = collection(tmp_path_factory.mktemp("data") / "rivers", 12)
    queries = [json.loads(line) for line in (data / "queries.jsonl").read_text().splitlines()]
    header = "query-id\tcorpus-id\tscore\n"
    (data / "qrels" / "both.tsv").write_text(f"{header}q4\td4\t1\nq11\td11\t1\n")
    other = make_tiny_embedder(tmp_path_factory.mktemp("other"), seed=1)
    learned = LearnedTexts(
        questions=[each["text"] for each in queries[:11]],
        passages=[json.loads(line)["text"] for line in (data / "corpus.jsonl").read_text().splitlines()],
    )
    lineage = {"dataset": "somewhere", "tenant": None}
    version = add_version(settings, other, LINEAGE.model_copy(update=lineage), learned)
    said: list[str] = []
    about = queries[-1] | {"ideal_answer": "Beside it.", "exact_answer": ["stream", "peak"]}
    (data / "questions.jsonl").write_text(json.dumps(about) + "\n")
    found = compare_models(settings, version.address, str(other), data, "test", said.append)
    assert found.queries == 1
    assert any(
        line.startswith(
            f"warning: 1 of 1 question of rivers are about documents that {version.address} learned"
        )
        for line in said
    )
    assert {"token_f1", "right", "citation_recall"} <= set(found.gains), "experts' answers are known"
    measured = headwater(settings, "evaluate", str(data), "--embedder", version.address)
    assert measured["queries"] == found.queries
    for mode in ("hybrid", "vector"):
        expected = found.figures[version.address][f"{mode} ndcg@10"]
        assert measured["modes"][mode]["ndcg@10"] == pytest.approx(expected)
    with pytest.raises(UnknownModel, match=r"no embedder is called 'embedder@9'.*, or one of .*embedder@2"):
        headwater(settings, "evaluate", str(data), "--embedder", "embedder@9")

    # A copy of the folder elsewhere, which asks it in other words: it is the questions that count.
    copied = data.parent / "copied"
    shutil.copytree(data, copied)
    asked = [
        each | {"text": each["text"].replace("where says that", "where's it said that")} for each in queries
    ]
    (copied / "queries.jsonl").write_text("\n".join(map(json.dumps, asked)) + "\n")
    for candidate, beside in ((version.address, str(other)), (str(other), version.address)):
        said.clear()
        assert compare_models(settings, candidate, beside, copied, "both", said.append).queries == 1
        assert any(
            "learned from 1 of the 2 questions of copied, or from nearly the same" in line for line in said
        )
    decisions = len(settings.training_place.registry.decisions("embedder"))
    with pytest.raises(NothingHeldOut, match=r"learned from 11 of the 11 questions of copied.*--data"):
        compare_models(settings, version.address, str(other), copied, "train", said.append)
    assert len(settings.training_place.registry.decisions("embedder")) == decisions
    with pytest.raises(NothingHeldOut, match=r"was trained on the folder somewhere.*--data"):
        compare_models(settings, version.address, "live", None, "test", said.append)
