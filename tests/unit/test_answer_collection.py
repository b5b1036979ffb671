"""The four layouts of questions with answers, and what is wrong with what is in none of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from quality.evaluation.answer_collection import AnswerQuestion, BadAnswerCollection, load_answer_collection


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_passages_to_search_come_with_experts_answers(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", [{"_id": "d1", "title": "", "text": "Copper conducts."}])
    questions = [
        {
            "_id": "q1",
            "text": "What conducts?",
            "ideal_answer": ["Copper."],
            "exact_answer": [["copper", ""]],
        },
        {"_id": "q2", "text": "Does it?", "ideal_answer": ["Yes."], "exact_answer": "yes"},
        {"_id": "q3", "text": "Unjudged?"},
    ]
    write(tmp_path / "questions.jsonl", questions)
    (tmp_path / "qrels").mkdir()
    judged = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td1\t1\n"
    (tmp_path / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    found = load_answer_collection(tmp_path)
    assert found.kind == "retrieval"
    assert found.questions == (
        AnswerQuestion("What conducts?", ideal=("Copper.",), exact=(("copper",),), gold=("d1",)),
        AnswerQuestion("Does it?", ideal=("Yes.",), gold=("d1",)),
    )
    assert found.searched is not None
    assert found.searched.queries == {"q1": "What conducts?", "q2": "Does it?"}
    assert len(load_answer_collection(tmp_path, 1).questions) == 1


def test_passages_that_only_look_like_an_answer_are_a_question_to_refuse(tmp_path: Path) -> None:
    rows = [
        {
            "text": "Where?",
            "answer": [["Tampa", "Tampa, Florida"], ["Florida"]],
            "positive": ["In Tampa."],
            "negative": ["Tickets.", "In Tampa too."],
            "negative_with_answer": [1],
        },
        {"text": "When?", "answer": [["2021"]], "positive": ["2021."], "negative": []},
    ]
    write(tmp_path / "questions.jsonl", rows)
    found = load_answer_collection(tmp_path)
    assert found.kind == "passages"
    assert found.questions == (
        AnswerQuestion("Where?", exact=(("Tampa", "Tampa, Florida"), ("Florida",)), passages=("In Tampa.",)),
        AnswerQuestion("Where?", answerable=False, passages=("Tickets.",)),
        AnswerQuestion("When?", exact=(("2021",),), passages=("2021.",)),
    )
    assert len(load_answer_collection(tmp_path, 1).questions) == 2


def test_sentences_are_ranked_where_some_answer_and_some_do_not(tmp_path: Path) -> None:
    rows = [
        {"question": "Who ?", "sentence": "`` He '' -LRB- Ann -RRB- .", "label": 1},
        {"question": "Who ?", "sentence": "Nobody .", "label": 0},
        {"question": "All ?", "sentence": "Yes .", "label": 1},
    ]
    write(tmp_path / "sentences.jsonl", rows)
    found = load_answer_collection(tmp_path)
    assert found.kind == "sentences"
    assert found.questions == (
        AnswerQuestion("Who ?", candidates=('" He " ( Ann ) .', "Nobody ."), relevant=(True, False)),
    )


def test_a_file_asks_the_lake(tmp_path: Path) -> None:
    rows = [
        {"question": " What? "},
        {"question": "Missing?", "answerable": False, "subject": "file:///a", "_note": "by hand"},
        {"question": "Which?", "exact_answer": "copper", "ideal_answer": "Copper.", "uri": ["file:///a"]},
    ]
    found = load_answer_collection(write(tmp_path / "mine.jsonl", rows))
    assert (found.name, found.kind) == ("mine", "questions")
    assert found.questions == (
        AnswerQuestion("What?"),
        AnswerQuestion("Missing?", answerable=False),
        AnswerQuestion("Which?", ideal=("Copper.",), exact=(("copper",),), gold=("file:///a",)),
    )


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([], r"line 1: expected an object"),
        ({}, r'line 1: "question" must be a text'),
        ({"question": " "}, r'"question" must be a text'),
        ({"question": "a", "exact_answer": 5}, r'"exact_answer" must be a text or a list of parts'),
        ({"question": "a", "exact_answer": [[5]]}, "a part must be a text or a list of accepted forms"),
        ({"question": "a", "uri": {}}, r'"uri" must be a text or a list of texts'),
        ({"question": "a", "answerable": "no"}, r'"answerable" must be true or false'),
        ({"question": "a", "ideal_anwser": "b"}, r'line 1: there is no field "ideal_anwser"; .*ideal_answer'),
    ],
)
def test_a_line_that_is_no_question_is_told_where(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(BadAnswerCollection, match=said):
        load_answer_collection(write(tmp_path / "mine.jsonl", [row]))


def test_what_is_no_collection_says_what_one_is(tmp_path: Path) -> None:
    with pytest.raises(BadAnswerCollection, match=r"neither questions\.jsonl nor sentences\.jsonl"):
        load_answer_collection(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(BadAnswerCollection, match="holds no questions"):
        load_answer_collection(tmp_path / "empty.jsonl")
    (tmp_path / "wrong.jsonl").write_text("{")
    with pytest.raises(BadAnswerCollection, match="line 1: not JSON"):
        load_answer_collection(tmp_path / "wrong.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(BadAnswerCollection, match="not UTF-8"):
        load_answer_collection(tmp_path / "binary.jsonl")
    write(tmp_path / "sentences.jsonl", [{"question": "a", "sentence": "b", "label": 1}])
    with pytest.raises(BadAnswerCollection, match="both kinds"):
        load_answer_collection(tmp_path)
    write(tmp_path / "sentences.jsonl", [{"question": "a", "sentence": "b", "label": "1"}])
    with pytest.raises(BadAnswerCollection, match=r'"label" must be 0 or 1'):
        load_answer_collection(tmp_path)
    (tmp_path / "sentences.jsonl").unlink()
    rgb = {
        "text": "a",
        "answer": [["b"]],
        "positive": ["c"],
        "negative": ["d"],
        "negative_with_answer": ["d"],
    }
    write(tmp_path / "questions.jsonl", [rgb])
    with pytest.raises(BadAnswerCollection, match="list of places"):
        load_answer_collection(tmp_path)
