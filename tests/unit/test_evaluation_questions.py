import json
from pathlib import Path

import pytest

from quality.evaluation.questions import BadQuestions, Question, known_item_questions, load_questions
from retrieval.chunking.sentences import sentence_spans


def test_questions_are_read_from_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    rows = [
        {"question": " What? ", "uri": "file:///a"},
        {"question": "Which?", "uri": ["x", "y"]},
        {"question": "Who?", "doc_id": "d"},
    ]
    path.write_text("\n\n".join(map(json.dumps, rows)))
    assert load_questions(path) == [
        Question("What?", ("file:///a",)),
        Question("Which?", ("x", "y")),
        Question("Who?", ("d",)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: expected an object"),
        ('{"uri": "x"}', 'line 2: "question"'),
        ('{"question": "  ", "uri": "x"}', 'line 2: "question"'),
        ('{"question": "q"}', 'line 2: "uri"'),
        ('{"question": "q", "uri": []}', 'line 2: "uri"'),
        ('{"question": "q", "uri": [3]}', 'line 2: "uri"'),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "q", "uri": "u"}\n' + line)
    with pytest.raises(BadQuestions, match=message):
        load_questions(path)


def test_absent_empty_and_binary_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BadQuestions, match="no questions file"):
        load_questions(tmp_path / "none.jsonl")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(BadQuestions, match="holds no questions"):
        load_questions(tmp_path / "empty")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadQuestions, match="not UTF-8"):
        load_questions(tmp_path / "binary")


def test_a_known_item_question_is_the_middle_sentence_of_a_chunk() -> None:
    rows = [(f"d{n}", f"It opens so. The middle of document {n} says this. It ends.") for n in range(20)]
    questions = known_item_questions(rows, 5, sentence_spans)
    assert questions == [Question(f"The middle of document {n} says this.", (f"d{n}",)) for n in range(5)]


def test_known_items_pass_over_chunks_without_a_sentence() -> None:
    rows = [("d1", "1 2 3"), ("d2", "Here is a sentence that is long enough.")]
    assert [q.expected for q in known_item_questions(rows, 5, sentence_spans)] == [("d2",)]
    assert known_item_questions([], 5, sentence_spans) == []
