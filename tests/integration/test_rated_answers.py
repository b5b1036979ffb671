"""Answers that are rated good become training examples, and go when they are rated bad."""

import json
import pydoc_data.topics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from assets.lake.tables import TRAINING_EXAMPLES
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.api import open_lake
from orchestration.cli.main import app
from orchestration.operations.ingest import ingest_and_release
from orchestration.settings import Settings, open_configured_lake
from orchestration.tracing.tracer import trace_identity
from retrieval.store.postgres import Postgres
from training.datasets import open_dataset

TOWNS = ("Arnfels", "Bregenz", "Citta", "Doornik", "Esztergom", "Fribourg", "Gorlitz", "Hallstatt", "Idstein")
QUESTIONS = {
    town: {"id": town, "question": f"When was the bridge of {town} opened?"}
    for town in (*TOWNS, "Jena", "Kolding")
}
"""Two towns have no bridge in the documents."""


def written(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def settings(module_folder: Path) -> Iterator[Settings]:
    """A lake of documents that tell when a bridge was opened, with a batch of questions about them."""
    corpus = module_folder / "corpus"
    corpus.mkdir()
    topics = sorted(pydoc_data.topics.topics.items())
    for year, (town, (name, text)) in enumerate(zip(TOWNS, topics, strict=False), 1801):
        fact = f"The bridge of {town} was opened in {year}, after {name} had been explained to the mayor."
        (corpus / f"{town}.md").write_text(f"# {town}\n\n{fact}\n\n{text[:1500]}\n")
    made = Settings(home=module_folder / "state")
    made.home.mkdir()
    SourceRegistry(made.sources_file).add(Source(name="towns", location=str(corpus)))
    ingest_and_release(made, print)
    yield made
    Postgres(made.home, made.postgres).remove()


def headwater(settings: Settings, *arguments: str) -> Result:
    env = {
        "HEADWATER_HOME": str(settings.home),
        "HEADWATER_RECIPE__TRAINING_SETS__MIN_EXAMPLES": "8",
        "HEADWATER_RECIPE__TRAINING_SETS__MAX_LENGTH_RATIO": "9",
    }
    return CliRunner().invoke(app, [*arguments, "--json"], env=env)


def invoke(settings: Settings, *arguments: str, code: int = 0) -> Any:
    done = headwater(settings, *arguments)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else f"{done.output}{done.exception}"


def examples(settings: Settings) -> list[dict[str, Any]]:
    lake = open_configured_lake(settings)
    return lake.query(
        "select e.*, d.uri from e left join d using (doc_id) where query_kind in ('answer', 'asked')",
        e=lake.delta(TRAINING_EXAMPLES.name),
        d=lake.delta("silver.documents"),
    ).to_pylist()


def town_of(uri: str) -> str:
    return uri.rpartition("/")[2].removesuffix(".md")


def test_answers_that_are_right_become_examples_and_one_rated_bad_goes(
    settings: Settings, tmp_path: Path
) -> None:
    questions = written(tmp_path / "questions.jsonl", list(QUESTIONS.values()))
    invoke(settings, "answers", "run", str(questions), "--name", "bridges")
    listed = {row["question"]: row for row in invoke(settings, "answers", "list")}
    known: list[dict[str, Any]] = [
        QUESTIONS[town]
        | {"exact_answer": str(year), "uri": (settings.home.parent / "corpus" / f"{town}.md").as_uri()}
        for year, town in enumerate(TOWNS, 1801)
    ]
    known[1]["exact_answer"] = "in another year"
    known.append(QUESTIONS["Jena"] | {"answerable": False})
    file = written(tmp_path / "known.jsonl", [{k: v for k, v in row.items() if k != "id"} for row in known])

    rated = invoke(settings, "answers", "rate", "bridges", "--known", str(file))
    shown = {row["question"]: row["rating"] for row in invoke(settings, "answers", "list")}
    assert rated["good"] + rated["bad"] == len(known)
    assert (rated["unknown"], rated["by_person"]) == (1, 0)
    assert rated["good"] == sum(rating == "good" for rating in shown.values()) >= 6
    assert shown[QUESTIONS["Bregenz"]["question"]] == "bad"
    assert shown[QUESTIONS["Kolding"]["question"]] is None

    said = headwater(settings, "datasets", "snapshot", "bridges").output
    found = examples(settings)
    learned = {row["question"]: row for row in found if row["kind"] == "instruction"}
    good = {question for question, rating in shown.items() if rating == "good"}
    assert learned.keys() <= good
    assert len(learned) >= len(good) - 1  # a refusal has no example where its passages are of other splits
    for question, row in learned.items():
        if listed[question]["refused"]:
            assert row["positive"] == "NOT FOUND"
        else:
            assert question == QUESTIONS[town_of(row["uri"])]["question"]
            assert "[1]" in row["positive"]
        assert row["answer_id"] == listed[question]["answer_id"]
    of_good = sum(row["left_out"] is None for row in learned.values())
    assert f"{rated['good']} answers rated good, {of_good} of them examples" in said
    asked = {row["question"] for row in found if row["kind"] == "retrieval_pair"}
    assert asked == {question for question in good if not listed[question]["refused"]}
    snapshot = open_dataset(settings.datasets_folder, "bridges")
    kept = [row for table in snapshot.examples.values() for row in table.to_pylist()]
    assert sum(row["query_kind"] == "answer" for row in kept) == sum(
        row["left_out"] is None for row in learned.values()
    )

    chosen = next(row for question, row in learned.items() if not listed[question]["refused"])
    there = trace_identity(settings, chosen["answer_id"], verify=False)
    assert [node.id for node in there.forward] == [chosen["example_id"]]
    back = trace_identity(settings, chosen["example_id"], verify=False)
    assert [node.id for node in back.backward if node.kind == "answer"] == [chosen["answer_id"]]

    with open_lake(settings.home) as lake:
        lake.rate(chosen["answer_id"], "bad", "it names the mayor")
    shown_one = invoke(settings, "answers", "show", chosen["answer_id"])
    assert shown_one["rating"]["reason"] == "it names the mayor"
    # Known answers do not overrule a person, and what they say is not written twice.
    version = open_configured_lake(settings).version("ops.answer_ratings")
    assert invoke(settings, "answers", "rate", "bridges", "--known", str(file))["by_person"] == 1
    assert open_configured_lake(settings).version("ops.answer_ratings") == version
    invoke(settings, "datasets", "snapshot", "bridges")
    assert chosen["question"] not in {row["question"] for row in examples(settings)}
    before = open_configured_lake(settings).version(TRAINING_EXAMPLES.name)
    invoke(settings, "datasets", "snapshot", "bridges")
    assert open_configured_lake(settings).version(TRAINING_EXAMPLES.name) == before


def test_what_can_not_be_rated_is_said_and_nothing_is_written(settings: Settings, tmp_path: Path) -> None:
    lake = open_configured_lake(settings)
    before = lake.version("ops.answer_ratings")
    assert "there is no answer" in invoke(settings, "answers", "rate", "ffff", "good", code=1)
    assert "good or bad" in invoke(settings, "answers", "rate", "ffff", code=2)
    assert "is no file of known answers" in invoke(
        settings, "answers", "rate", "bridges", "--known", str(tmp_path / "none"), code=1
    )
    assert "there is no batch" in invoke(
        settings, "answers", "rate", "tunnels", "--known", str(tmp_path / "none"), code=1
    )
    assert "is a batch" in invoke(settings, "answers", "rate", "bridges", "good", code=2)
    known = written(tmp_path / "known.jsonl", [{"question": "When?", "exact_answer": "1801"}])
    assert "no answers to the tenant 'ghost'" in invoke(
        settings, "answers", "rate", "bridges", "--known", str(known), "--tenant", "ghost", code=1
    )
    twice = written(tmp_path / "twice.jsonl", [{"question": "When?", "exact_answer": "1801"}] * 2)
    assert "more than one known answer" in invoke(
        settings, "answers", "rate", "bridges", "--known", str(twice), code=1
    )
    broken = written(tmp_path / "broken.jsonl", [{"question": "When?", "exact": "1801"}])
    said = invoke(settings, "answers", "rate", "bridges", "--known", str(broken), code=1)
    assert "line 1" in said
    assert '"exact"' in said
    assert lake.version("ops.answer_ratings") == before
