"""Test collections in BEIR's layout: what is read, and what is wrong with those that are not in it."""

import json
from pathlib import Path

import pytest

from quality.evaluation.beir_collection import BadBeirCollection, BeirDocument, load_beir_collection
from training.jobs.learned import folder_digest

CORPUS = [{"_id": "d1", "title": "Copper", "text": "It conducts."}, {"_id": "d2", "text": "Salt."}]
QUERIES = [{"_id": "q1", "text": "what conducts"}, {"_id": "q2", "text": "unjudged"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n"


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(lines(CORPUS), encoding="utf-8")
    (tmp_path / "queries.jsonl").write_text(lines(QUERIES), encoding="utf-8")
    (tmp_path / "qrels" / "test.tsv").write_text(QRELS, encoding="utf-8")
    return tmp_path


def test_a_collection_is_its_documents_and_the_judged_queries(folder: Path) -> None:
    collection = load_beir_collection(folder)
    assert collection.name == folder.name
    assert collection.documents == {
        "d1": BeirDocument("Copper", "It conducts."),
        "d2": BeirDocument("", "Salt."),
    }
    assert collection.queries == {"q1": "what conducts"}
    assert collection.relevant == {"q1": {"d1": 2}}


def test_queries_may_be_called_questions(folder: Path) -> None:
    by_queries, digest = load_beir_collection(folder), folder_digest(folder)
    (folder / "queries.jsonl").rename(folder / "questions.jsonl")
    assert load_beir_collection(folder) == by_queries
    assert folder_digest(folder) == digest
    (folder / "questions.jsonl").write_text(lines([QUERIES[0] | {"text": "what salts"}]))
    assert folder_digest(folder) != digest


def test_line_separators_of_unicode_and_of_windows_are_no_ends_of_rows(folder: Path) -> None:
    row = '{"_id": "d3", "text": "one\u2028two"}\r\n'
    with (folder / "corpus.jsonl").open("a", encoding="utf-8", newline="") as file:
        file.write(row)
    (folder / "qrels" / "test.tsv").write_bytes(QRELS.replace("\n", "\r\n").encode())
    collection = load_beir_collection(folder)
    assert collection.documents["d3"].text == "one\u2028two"
    assert collection.relevant == {"q1": {"d1": 2}}


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("corpus.jsonl", None, r"there is no .*corpus\.jsonl: a collection is"),
        ("queries.jsonl", None, r"there is no .*queries\.jsonl"),
        ("qrels/test.tsv", None, r"there is no .*test\.tsv; the splits there are: none"),
        ("corpus.jsonl", "", r"corpus\.jsonl is empty"),
        ("corpus.jsonl", "{not json\n", r"corpus\.jsonl, line 1: not JSON"),
        ("corpus.jsonl", "[]\n", 'line 1: expected an object with an "_id"'),
        ("corpus.jsonl", lines([{"_id": "d1"}]), 'line 1: "text" must be a text'),
        ("corpus.jsonl", lines([*CORPUS, CORPUS[0]]), r"line 3: the _id 'd1' was given before, in .*line 1"),
        ("corpus.jsonl", b"\xff\xfe", r"corpus\.jsonl is not UTF-8"),
        ("queries.jsonl", lines([QUERIES[0]] * 2), r"queries\.jsonl, line 2: the _id 'q1' was given before"),
        ("queries.jsonl", lines([{"_id": "q1", "text": " "}]), "query 'q1' is empty"),
        ("qrels/test.tsv", "q1\td1\t1\n", "line 1: expected the header query-id corpus-id score"),
        ("qrels/test.tsv", "", "expected the header"),
        ("qrels/test.tsv", QRELS + "q9\td1\t1\n", r"test\.tsv, line 4: no query 'q9' in .*queries\.jsonl"),
        ("qrels/test.tsv", QRELS + "q1\td9\t1\n", r"line 4: no document 'd9' in .*corpus\.jsonl"),
        ("qrels/test.tsv", QRELS + "q1\td1\t1\n", "line 4: query 'q1' and document 'd1' are judged twice"),
        ("qrels/test.tsv", QRELS + "q1\td2\n", "line 4: expected query-id, corpus-id and a whole number"),
        ("qrels/test.tsv", QRELS + "q2\td2\tyes\n", "line 4: expected query-id"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t0\n", "judges nothing relevant"),
    ],
)
def test_a_folder_that_is_no_collection_is_told_where(
    folder: Path, file: str, content: str | bytes | None, said: str
) -> None:
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadBeirCollection, match=said):
        load_beir_collection(folder)


def test_a_split_that_is_not_there_names_those_that_are(folder: Path) -> None:
    with pytest.raises(BadBeirCollection, match=r"dev\.tsv; the splits there are: test"):
        load_beir_collection(folder, "dev")
    with pytest.raises(BadBeirCollection, match="there is no folder"):
        load_beir_collection(folder / "absent")
