import json
from pathlib import Path

import pytest

from quality.evaluation.known_items import KnownItem, known_item_questions
from quality.evaluation.questions import BadQuestions, Question, load_questions
from retrieval.chunking.sentences import sentence_spans
from retrieval.language.words import split_words


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


def made(items: list[KnownItem], limit: int = 5) -> list[Question]:
    return known_item_questions(items, limit, sentence_spans, split_words)


def test_known_items_are_asked_by_sentences_with_words_left_out_and_by_headings() -> None:
    text = "It opens so. The middle of document {} says just this here. It ends."
    items = [KnownItem(f"d{n}", f"Guide > Rivers of land {n}", text.format(n)) for n in range(20)]
    assert made(items, 4) == [
        Question("The middle document 0 just this", ("d0",)),
        Question("Rivers of land 1", ("d1",)),
        Question("The middle document 2 just this", ("d2",)),
        Question("Rivers of land 3", ("d3",)),
    ]


def test_known_items_are_asked_the_other_way_where_one_fails() -> None:
    sentence = "Here is a sentence that is long enough."
    items = [
        KnownItem("d1", None, "1 2 3"),
        KnownItem("d2", "Bread > How to bake", "1 2 3"),
        KnownItem("d3", None, sentence),
        KnownItem("d4", "Guide > Mouth", "1 2 3"),
        KnownItem("d5", "4.2", "1 2 3"),
        KnownItem("d6", "See also this", "1 2 3"),
        KnownItem("d7", "See also this", "1 2 3"),
    ]
    assert [(q.question, *q.expected) for q in made(items)] == [
        ("How to bake", "d2"),
        ("Here is sentence that long enough", "d3"),
        ("Guide Mouth", "d4"),
    ]
    assert made([]) == []


def test_known_items_are_asked_in_scripts_without_spaces() -> None:
    (question,) = made([KnownItem("d", None, "人人都有受教育的权利，教育应当免费。")])
    assert question.question == "人人 都有 教育 的 教育 应当"
    (question,) = made([KnownItem("d", None, "ทุกคนมีสิทธิในการศึกษา")])
    assert len(question.question.split()) >= 4
