"""Question sets: every line is a question or has a reason why it is none."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.batch.question_set import read_question_set


@given(st.lists(st.binary(max_size=60)))
def test_every_line_is_a_question_or_a_failure(lines: list[bytes]) -> None:
    lines = [line.replace(b"\n", b" ") for line in lines]
    assert len(read_question_set(lines)) == sum(bool(line.strip()) for line in lines)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": None, "question": "Where?"}, "id: "),
        ({"question": "Where?"}, "id: it is missing"),
        ({"id": "q", "question": None}, "question: "),
        ({"id": "q", "question": " \n"}, "the question is empty"),
        ({"id": "q", "question": "x" * 100_000}, "the question has 100000 characters; the most is 4000"),
        ({"id": "q", "question": "Where?", "tenant": "a\x1fb"}, "names none"),
        ({"id": "q", "question": "Where?", "groups": ["a,b"]}, "can not name a group"),
        (
            {"id": "q", "question": "Where?", "answer": "here"},
            "answer: there is no such field; a question has id, question, tenant",
        ),
        ({"id": "", "question": "Where?"}, "id: it is empty"),
        ({"id": "i" * 201, "question": "Where?"}, "id: it has more than 200 characters"),
        ({"id": "q", "question": 7}, "question: it must be a text"),
        ({"id": "q", "question": "Where?", "groups": "staff"}, "groups: it must be a list of texts"),
        ({"id": "q", "question": "Where?", "groups": ["staff", 7]}, "groups.1: it must be a text"),
        ({"id": "q", "question": "What is \ud800 it?"}, "write it in UTF-8"),
        ({"id": "i\ud800d", "question": "Where?"}, "id: "),
        ({"id": "q", "question": "Where?", "groups": ["a\ud800"]}, "groups: it holds half a character"),
        ({"id": "q", "question": "Where?", "tenant": "\ud800"}, "tenant: it holds half a character"),
        ([1], "the line: it is no JSON object"),
        ("Where?", "the line: "),
    ],
)
def test_a_line_that_is_no_question_fails_alone_with_its_reason(row: object, reason: str) -> None:
    good = {"id": "good", "question": "Where does the Danube rise?"}
    found = read_question_set([json.dumps(each).encode() for each in (good, row)])
    assert [question.id for question in found.questions] == ["good"]
    [failed] = found.invalid
    assert failed.reason.startswith("line 2: ")
    assert reason in failed.reason
    assert "x" * 5000 not in failed.reason
    (failed.id + failed.reason).encode()


def test_null_is_as_good_as_nothing() -> None:
    line = {"id": "q", "question": "Where?", "tenant": None, "groups": None, "as_of": None}
    [question] = read_question_set([json.dumps(line).encode()]).questions
    assert (question.tenant, question.groups, question.as_of) == ("default", (), None)


def test_lines_that_are_no_json_fail() -> None:
    lines = [b"{", b"\xff\xfe", b"[" * 100_000, b'{"id": "a", "question": "Where?"}']
    found = read_question_set(lines)
    assert [each.id for each in found.invalid] == ["line 1", "line 2", "line 3"]
    assert str(found.invalid[0]).startswith("line 1: not JSON: ")
    assert [each.id for each in found.questions] == ["a"]


def test_an_id_that_occurs_again_fails_and_its_first_question_stays() -> None:
    lines = [json.dumps({"id": 7, "question": text}).encode() for text in ("First?", "Second?")]
    found = read_question_set(lines)
    assert [(each.id, each.question) for each in found.questions] == [("7", "First?")]
    assert [(each.id, each.reason) for each in found.invalid] == [
        ("7", "line 2: this id has occurred before")
    ]
    assert str(found.invalid[0]) == "7: line 2: this id has occurred before"
