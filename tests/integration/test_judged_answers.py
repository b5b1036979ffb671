"""`headwater train generator --data DIR`: what the default engine answers right is learned, and no more."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_generator import save_tiny_generator
from typer.testing import CliRunner

from inference.prompting.prompt_assembly import NOT_FOUND
from orchestration.cli.main import app
from orchestration.settings import Settings
from orchestration.training.generators import promote_adapter
from orchestration.training.judged_answers import JudgedAnswersChanged, written_by_questions
from orchestration.training.models import ModelNotPromoted
from quality.evaluation.beir_collection import BadBeirCollection

RIVERS = [
    "Danube", "Rhine", "Elbe", "Oder", "Weser", "Isar", "Neckar", "Mosel", "Saale", "Havel", "Spree", "Ems",
    "Lech", "Enns", "Drava", "Sava", "Tisza", "Vistula", "Loire", "Rhone",
]  # fmt: skip


def judged(folder: Path) -> Path:
    """A folder in BEIR's layout whose questions the default engine answers, but for two of them."""
    (folder / "qrels").mkdir(parents=True)
    texts = {
        river: f"The {river} is a river of Europe. It rises in the mountains of the south and carries "
        f"{100 + number} ships a day. The {river} is {500 + 7 * number} kilometres long. Its banks are known "
        "for their old towns, for fishing and for wine."
        for number, river in enumerate(RIVERS)
    }
    asked = {river: f"How long is the {river}?" for river in RIVERS}
    asked |= {"wrong": "How many ships does the Danube carry a day?", "chess": "Who won at chess in 1972?"}
    right = {river: river for river in RIVERS} | {"wrong": "Rhine", "chess": "Oder"}
    rows = [{"_id": river, "title": river, "text": text} for river, text in texts.items()]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [{"_id": name, "text": text} for name, text in {**asked, "held": "How wide is it?"}.items()]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    header = "query-id\tcorpus-id\tscore\n"
    judgements = "".join(f"{name}\t{river}\t1\n" for name, river in right.items())
    (folder / "qrels" / "train.tsv").write_text(header + judgements)
    (folder / "qrels" / "test.tsv").write_text(f"{header}held\tOder\t1\n")
    return folder


def run(*command: str) -> tuple[Any, str]:
    done = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done.stderr


def test_right_answers_to_judged_questions_are_learned_compared_and_answered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny_generator(tmp_path / "base", context_tokens=512)
    data = judged(tmp_path / "rivers")
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HEADWATER_GENERATOR__MODEL", str(base))
    monkeypatch.setenv("HEADWATER_GENERATOR__MAX_NEW_TOKENS", "4")
    command = ("train", "generator", "--data", str(data), "--minutes", "0.4")
    made, told = run(*command)
    assert (made["model"], made["version"], made["dataset"]) == ("generator", 1, str(data))
    counts = f"answered right: {len(RIVERS)} of {len(RIVERS) + 2} judged questions; left out: 1 refused, "
    assert f"{counts}1 answered from passages that are not judged" in told

    # What was answered is kept: an interruption loses a question, and the same command asks nothing again.
    [kept] = (tmp_path / "state" / "training").glob("*-answered.jsonl")
    whole = kept.read_bytes()
    assert b"How wide is it" not in whole, "it is judged in the test split only"
    kept.write_bytes(whole[: len(whole) - 40])
    again, told = run(*command)
    assert (again, kept.read_bytes()) == (made, whole)
    assert "answering" in told

    said: list[str] = []
    settings = Settings()
    written = written_by_questions(settings, data, None, 0.4, said.append)
    assert [line.split(":")[0] for line in said] == ["answered right"]
    parts = written.splits
    assert [len(parts.train), len(parts.validation), len(parts.test)] == [len(RIVERS) - 8, 4, 4]
    responses = {each.name: each.responses[0] for each in [*parts.train, *parts.validation, *parts.test]}
    refused = [name for name, response in responses.items() if response == NOT_FOUND]
    assert 1 <= len(refused) <= len(RIVERS) / 2
    for number, river in enumerate(RIVERS):
        if river not in refused:
            assert f"The {river} is {500 + 7 * number} kilometres long." in responses[river]
    assert len({response[-3:] for response in responses.values()}) > 2, "the places differ"

    # The job measures likelihoods; its answers are to be measured too, by the questions that it held out.
    if made["metrics"]["test_loss"] < made["metrics"]["test_loss_of_base"]:
        with pytest.raises(ModelNotPromoted, match="were not measured yet"):
            promote_adapter(settings, "generator@1", "try", print)
    found, _ = run("models", "compare", "generator@1")
    assert (found["examples"], found["questions"], found["dataset"]) == (4, 4, f"{data}/test")
    assert "citation_recall" in found["figures"]["base"]
    (data / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nOder\tOder\t1\n")
    with pytest.raises(JudgedAnswersChanged, match=r"not known any more what was held out: name examples"):
        run("models", "compare", "generator@1")
    (data / "questions.jsonl").unlink()
    with pytest.raises(BadBeirCollection, match=r"there is no \S+queries\.jsonl"):
        run(*command)
