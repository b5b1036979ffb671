"""`headwater evaluate-answers` on each layout, through the command line and the real engine."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from test_model_releases import LINEAGE
from tiny_embedders import make_tiny_embedder
from typer.testing import CliRunner, Result

from assets.answers.journal import AnswerJournal
from assets.answers.stored import recent_stored_answers
from inference.engines.extractive import ExtractiveEngine
from inference.prompting.types import Draft, Passage
from orchestration.cli.main import app
from orchestration.settings import Settings, open_configured_lake
from quality.evaluation.answer_collection import load_answer_collection
from quality.evaluation.answer_evaluation import (
    ANSWER_MEASURES,
    JudgedAnswer,
    evaluate_answers,
    measure_answer,
)
from training.datasets.held_out import NothingHeldOut
from training.registry.learned_texts import LearnedTexts
from training.registry.model_card import model_card
from training.registry.versions import ModelRegistry

PASSAGES = {
    "danube": "The Danube rises in the Black Forest in Germany.",
    "sea": "The Danube flows into the Black Sea.",
    "bread": "Bread is baked from flour, water and salt.",
    "wind": "Wind turbines turn moving air into electric power.",
}
FIGURES = {*ANSWER_MEASURES, "p50_ms"}


def write(path: Path, rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["evaluate-answers", *map(str, arguments)])


def figures_of(done: Result) -> dict[str, Any]:
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(found) == {"dataset", "kind", "questions", "engines", "answered", "supported", "intervals"}
    for engine in found["engines"].values():
        assert set(engine) == FIGURES
        assert all(value is None or isinstance(value, float) for value in engine.values())
    return found


@pytest.fixture
def home(module_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADWATER_HOME", str(module_folder / "state"))
    return module_folder / "state"


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    folder = tmp_path / "searched"
    write(folder / "corpus.jsonl", [{"_id": name, "text": text} for name, text in PASSAGES.items()])
    asked = [
        {
            "_id": "q1",
            "text": "Where does the Danube rise?",
            "ideal_answer": ["It rises in the Black Forest."],
            "exact_answer": [["Schwarzwald", "Black Forest"]],
        },
        {"_id": "q2", "text": "What is bread baked from?", "ideal_answer": ["Flour, water and salt."]},
    ]
    write(folder / "questions.jsonl", asked)
    (folder / "qrels").mkdir()
    judged = "query-id\tcorpus-id\tscore\nq1\tdanube\t1\nq2\tbread\t1\n"
    (folder / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    return folder


def test_passages_are_searched_in_a_scratch_index_and_cited(
    searched: Path, home: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "answers.svg"
    found = figures_of(evaluate(searched, "--json", "--plot", picture))
    assert (found["dataset"], found["kind"], found["questions"]) == ("searched", "retrieval", 2)
    figures = found["engines"]["extractive"]
    assert figures["exact_contained"] == figures["right"] == 1.0
    assert figures["refused"] == 0.0
    assert figures["citation_recall"] == 1.0
    assert figures["citation_precision"] >= 0.5
    assert 0 < figures["token_f1"] <= 1
    assert figures["words"] >= 8
    assert found["supported"] == {"extractive": 1.0}
    assert figures["map"] is figures["refused_on_negative"] is None
    low, high = found["intervals"]["extractive"]["right"]
    assert low < 0.5 < high == 1, "two questions show little"
    texts = [each.text for each in ElementTree.parse(picture).getroot().iter() if each.tag.endswith("text")]
    assert {"searched: 2 questions", "right", "extractive"} <= set(texts)
    assert [path.name for path in home.iterdir()] == ["evaluations"]
    assert figures_of(evaluate(searched, "--json", "--limit", 1))["questions"] == 1


def test_what_only_looks_like_an_answer_is_counted_apart(tmp_path: Path, home: Path) -> None:
    row = {
        "text": "Where does the Danube rise?",
        "answer": [["Black Forest"]],
        "positive": [PASSAGES["danube"]],
        "negative": [PASSAGES["bread"], PASSAGES["wind"]],
        "negative_with_answer": [],
    }
    write(tmp_path / "given" / "questions.jsonl", [row])
    figures = figures_of(evaluate(tmp_path / "given", "--json"))["engines"]["extractive"]
    assert (figures["right"], figures["refused"], figures["refused_on_negative"]) == (1.0, 0.0, 1.0)


def test_an_evaluation_that_was_stopped_asks_only_what_is_missing(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"Danube": "danube", "bread": "bread", "wind turbine": "wind"}
    rows = [
        {"text": f"What is known of the {name}?", "answer": [[name]], "positive": [PASSAGES[passage]]}
        for name, passage in places.items()
    ]
    write(tmp_path / "given" / "questions.jsonl", rows)
    whole = figures_of(evaluate(tmp_path / "given", "--json"))
    asked: list[str] = []
    answer, dies_after = ExtractiveEngine.answer, 2

    def dying(self: ExtractiveEngine, question: str, passages: Sequence[Passage]) -> Draft:
        if len(asked) == dies_after:
            raise KeyboardInterrupt
        asked.append(question)
        return answer(self, question, passages)

    monkeypatch.setattr(ExtractiveEngine, "answer", dying)
    assert evaluate(tmp_path / "given", "--json").exit_code == 130
    [kept] = (home / "evaluations").glob("answers-*.jsonl")
    assert len(kept.read_text().splitlines()) == 2
    assert "Danube" not in kept.read_text()
    kept.write_text(kept.read_text() + '{"key": "a line that was beg')
    asked.clear()
    again = figures_of(evaluate(tmp_path / "given", "--json"))
    assert asked == [rows[2]["text"]]
    assert not kept.exists()
    for figures in (whole, again):
        del figures["engines"]["extractive"]["p50_ms"]
    assert again == whole


def test_questions_that_the_embedder_learned_from_judge_no_answer(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = ModelRegistry(tmp_path / "state" / "models")
    for seed, asked in enumerate(
        (["where does the danube rise"], ["Where's the Danube rise?", "What's bread baked from?"])
    ):

        def write_model(folder: Path, seed: int = seed) -> None:
            shutil.copytree(make_tiny_embedder(tmp_path / f"base{seed}", seed), folder, dirs_exist_ok=True)

        registry.add("embedder", LINEAGE, {}, 1.0, write_model, model_card, LearnedTexts(questions=asked))
    monkeypatch.setenv("HEADWATER_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HEADWATER_RECIPE__EMBEDDER__MODEL", "embedder@1")
    done = evaluate(searched, "--json")
    assert figures_of(done)["questions"] == 1
    said = " ".join(done.stderr.split())
    assert "embedder@1 learned from 1 of the 2 questions of searched, or from nearly the same" in said
    monkeypatch.setenv("HEADWATER_RECIPE__EMBEDDER__MODEL", "embedder@2")
    refused = evaluate(searched)
    assert isinstance(refused.exception, NothingHeldOut)
    assert "embedder@2 learned from 2 of the 2 questions" in str(refused.exception)


def test_questions_that_the_scorer_learned_from_judge_no_answer(tmp_path: Path, home: Path) -> None:
    rows = [
        {"text": text, "answer": [["eyelids"]], "positive": ["It is a spasm of the eyelids."], "negative": []}
        for text in ("What is blepharospasm?", "Of what is it a spasm?")  # MedQuAD has the first
    ]
    write(tmp_path / "given" / "questions.jsonl", rows)
    done = evaluate(tmp_path / "given", "--json")
    assert "the scorer answer_scorer learned from 1 of the 2 questions" in " ".join(done.stderr.split())
    assert figures_of(done)["questions"] == 1


def test_sentences_are_ranked_by_the_engines_scorer(tmp_path: Path, home: Path) -> None:
    rows = [
        {"question": "Where does the Danube rise ?", "sentence": text, "label": int(name == "danube")}
        for name, text in reversed(PASSAGES.items())
    ]
    write(tmp_path / "ranked" / "sentences.jsonl", rows)
    figures = figures_of(evaluate(tmp_path / "ranked", "--json"))["engines"]["extractive"]
    assert (figures["map"], figures["mrr"]) == (1.0, 1.0)
    assert figures["right"] is None


def test_questions_to_the_lake_are_asked_of_the_live_release_and_not_recorded(
    small_release: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(small_release.home))
    rows = [
        {"question": "Where does the Danube rise?", "exact_answer": "Black Forest"},
        {"question": "How many moons has Jupiter?", "answerable": False},
    ]
    before = len(recent_stored_answers(open_configured_lake(small_release), 1000, None))
    done = evaluate(write(tmp_path / "mine.jsonl", rows), "--tenant", "acme", "--json")
    figures = figures_of(done)["engines"]["extractive"]
    assert (figures["right"], figures["refused_on_negative"]) == (1.0, 1.0)
    assert AnswerJournal(small_release.answers_dir).is_empty()
    assert len(recent_stored_answers(open_configured_lake(small_release), 1000, None)) == before


def test_what_can_not_be_evaluated_says_why(searched: Path, home: Path, tmp_path: Path) -> None:
    assert "no engine 'psychic'" in str(evaluate(searched, "--engine", "psychic").exception)
    assert "no engine 'psychic'" in str(evaluate(searched, "--compare", "psychic", "extractive").exception)
    assert "neither questions.jsonl nor" in str(evaluate(tmp_path / "absent").exception)
    assert evaluate(searched, "--plot", tmp_path / "absent" / "a.svg").exit_code == 2


def test_engines_are_compared_question_by_question(tmp_path: Path) -> None:
    rows = [{"question": f"{number}?", "exact_answer": "yes"} for number in range(8)]
    collection = load_answer_collection(write(tmp_path / "mine.jsonl", rows))
    engines = {
        "sure": JudgedAnswer("Yes. [1]", False, quotes=("Yes.",)),
        "shy": JudgedAnswer("Yes is not said.", refused=True),
        "cut": JudgedAnswer("", refused=False),
    }
    measured = {
        name: [measure_answer(question, answer) for question in collection.questions]
        for name, answer in engines.items()
    }
    result = evaluate_answers(collection, measured)
    right = result.compare("sure", "shy")["right"]
    assert (right.difference, right.high, right.questions) == (1, 1, 8)
    assert 0 < right.low < 0.9, "eight questions do not show that it is always so"
    assert result.compare("sure", "shy")["refused"].difference == -1
    assert "words" not in result.compare("sure", "shy")  # a refusal has none
    cut = result.engines["cut"]
    assert [cut.mean(name) for name in ("refused", "right", "words", "supported")] == [0.0, 0.0, None, None]
    unanswerable = replace(collection.questions[0], exact=(), answerable=False)
    assert measure_answer(unanswerable, engines["cut"]) == {"refused_on_negative": 0.0}
