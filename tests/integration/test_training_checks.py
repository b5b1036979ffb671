"""The checks of training sets: each finds what it is there for, in examples that are written by hand."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from lake_rows import write
from test_gx import chunk, document

from assets.lake.lake import Lake
from assets.lake.spark import SparkConfig
from assets.lake.tables import CHUNKS, TRAINING_EXAMPLES
from assets.training_sets.checks import training_set_faults
from assets.training_sets.snapshots import TrainingSetRefused, snapshot_training_set
from training.datasets.config import TrainingSetConfig
from training.datasets.requests import DatasetRequest

KINDS = ("title", "keyword", "natural", "claim")
CONFIG = TrainingSetConfig(min_examples=8)
QUESTIONS = pa.schema([("tenant", pa.string()), ("question", pa.string())])
TEXT = "the {0} says in its paragraph {0} what only {0} can say of {0} and of nobody else than {0} itself"


def text(name: str) -> str:
    return TEXT.format(name)


def pair(name: str, split: str = "train", **given: Any) -> dict[str, Any]:
    """A retrieval pair about something that no other is about."""
    number = int("".join(filter(str.isdigit, name)) or 0)
    return {
        **dict.fromkeys(TRAINING_EXAMPLES.schema.names),
        "example_id": name,
        "kind": "retrieval_pair",
        "query_kind": KINDS[number % len(KINDS)],
        "split": split,
        "tenant": "acme",
        "doc_id": f"document of {name}",
        "question": f"what does the {name} say?",
        "positive": text(name),
        **{"chunk_ids": [], "doc_ids": [], "negatives": [], "scores": []},
        "versions": "{}",
        "OpenLineage_RunId": "run",
        **given,
    }


def good() -> list[dict[str, Any]]:
    held_out = [pair(f"{split}{number}", split) for split in ("validation", "test") for number in range(4)]
    return [*(pair(f"train{number}") for number in range(12)), *held_out]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path / "lake", SparkConfig(), tmp_path / "scratch", tmp_path / "docs")
    made.ensure()
    whole = document(1, "A chunk of another tenant.") | {"tenant": "other", "doc_id": "foreign"}
    write(made, CHUNKS, [chunk(whole, 0, 0, 26) | {"chunk_id": "foreign", "tenant": "other"}])
    return made


def faults(
    lake: Lake, rows: list[dict[str, Any]], asked: str = "", config: TrainingSetConfig = CONFIG
) -> dict[str, str]:
    version = write(lake, TRAINING_EXAMPLES, rows, gold__chunks=1)
    questions = pa.Table.from_pylist([{"tenant": "acme", "question": asked}] if asked else [], QUESTIONS)
    found = training_set_faults(lake, version, "acme", questions, config)
    assert all(each.tenant == "acme" for each in found)
    return {each.check: each.reason for each in found}


def test_good_examples_pass(lake: Lake) -> None:
    assert faults(lake, good()) == {}


def test_an_empty_table_is_too_small(lake: Lake) -> None:
    assert faults(lake, []) == {
        "minimum_size": "0 questions with a passage to train on, and 8 are wanted: add documents, or lower "
        "HEADWATER_RECIPE__TRAINING_SETS__MIN_EXAMPLES"
    }


def test_examples_of_other_kinds_tenants_or_that_are_left_out_do_not_count(lake: Lake) -> None:
    rows = [pair(f"train{number}") for number in range(7)]
    rows += [pair("train8", kind="domain_text"), pair("train9", tenant="other")]
    rows += [pair("train10", left_out="not_found"), pair("train11", "test")]
    assert "7 questions" in faults(lake, rows)["minimum_size"]


def test_one_kind_of_question_alone_is_refused(lake: Lake) -> None:
    rows = [row | {"query_kind": "title"} for row in good()]
    assert list(faults(lake, rows)) == ["query_kinds_balanced"]
    assert "100% of the questions are of the kind title" in faults(lake, rows)["query_kinds_balanced"]


def test_passages_of_one_split_that_are_much_longer_are_refused(lake: Lake) -> None:
    rows = [pair(f"train{number}") for number in range(24)]
    rows += [pair(f"test{n}", "test", positive=" ".join([text(f"test{n}")] * 3)) for n in range(24)]
    found = faults(lake, rows)
    assert list(found) == ["lengths_balanced"]
    assert "63 in test, 21 in train" in found["lengths_balanced"]


@pytest.mark.parametrize(
    "leak",
    [
        {"positive": text("test1").upper()},
        {"question": "What does the TEST1 say"},
        {"negatives": [text("validation2") + "!"]},
    ],
)
def test_a_held_out_text_in_training_is_found(lake: Lake, leak: dict[str, Any]) -> None:
    found = faults(lake, [*good(), pair("leaking", **leak)])
    assert list(found) == ["nothing_held_out"]
    assert "1 example to train on" in found["nothing_held_out"]
    assert "leaking" in found["nothing_held_out"]


def test_an_evaluation_question_of_the_tenant_in_training_is_found(lake: Lake) -> None:
    assert list(faults(lake, good(), asked="What does the train3 say?!")) == ["nothing_held_out"]


def test_a_held_out_example_may_name_passages_to_train_on(lake: Lake) -> None:
    assert faults(lake, [*good(), pair("test9", "test", negatives=[text("train1")])]) == {}


@pytest.mark.parametrize("chunk_id", ["foreign", "gone"])
def test_a_chunk_of_another_tenant_or_one_that_is_gone_is_found(lake: Lake, chunk_id: str) -> None:
    found = faults(lake, [*good(), pair("strange", chunk_ids=[chunk_id], doc_ids=["foreign"])])
    assert list(found) == ["one_tenant"]
    assert "strange" in found["one_tenant"]


def test_no_snapshot_is_made_of_what_does_not_pass(lake: Lake, tmp_path: Path) -> None:
    write(lake, TRAINING_EXAMPLES, [pair("train1")], gold__chunks=1)
    nothing = QUESTIONS.empty_table()
    with pytest.raises(TrainingSetRefused, match=r"tenant acme.*minimum_size: 1 question with"):
        snapshot_training_set(lake, tmp_path / "sets", DatasetRequest("set", "acme"), nothing, CONFIG)
    assert not (tmp_path / "sets").exists()
