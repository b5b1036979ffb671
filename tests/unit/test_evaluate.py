import json
import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from ir_measures import RR, R, nDCG

from quality.evaluation.evaluate import (
    BadQuestions,
    Question,
    ann_recall,
    evaluate,
    known_item_questions,
    load_questions,
    paired_bootstrap,
    query_metrics,
    rank_documents,
)


@dataclass
class Found:
    doc_id: str


def searcher(results):
    return lambda question, k: [Found(doc) for doc in results[question]][:k]


CANONICAL = {name: name for name in ("a", "b", "c")} | {"file:///a": "a", "file:///copy-of-a": "a"}


def test_metrics_are_those_of_the_ranking():
    questions = [Question("first", ("file:///a",)), Question("second", ("b",)), Question("none", ("c",))]
    result = evaluate(
        questions, searcher({"first": ["a", "b"], "second": ["a", "b"], "none": ["a"]}), CANONICAL
    )
    assert result.metrics["recall@10"] == pytest.approx(2 / 3)
    assert result.metrics["rr@10"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert result.metrics["ndcg@10"] == pytest.approx((1 + 1 / 1.584962500721156 + 0) / 3)
    assert result.questions == 3
    assert 0 <= result.p50_ms <= result.p95_ms


def test_a_document_counts_once_however_many_chunks_were_found():
    result = evaluate([Question("q", ("b",))], searcher({"q": ["a"] * 30 + ["b"]}), CANONICAL)
    assert result.metrics["rr@10"] == pytest.approx(1 / 2)


def test_a_duplicates_uri_stands_for_the_document_that_was_kept():
    result = evaluate([Question("q", ("file:///copy-of-a",))], searcher({"q": ["a"]}), CANONICAL)
    assert result.metrics["ndcg@10"] == 1.0
    assert result.unmatched == ()


def test_a_document_that_the_lake_lost_lowers_the_figure_and_is_named():
    questions = [Question("q", ("file:///gone",)), Question("r", ("a",))]
    result = evaluate(questions, searcher({"q": ["a"], "r": ["a"]}), CANONICAL)
    assert result.metrics["recall@10"] == 0.5
    assert result.unmatched == ("file:///gone",)


def test_a_search_that_finds_nothing_scores_zero():
    result = evaluate([Question("q", ("a",))], searcher({"q": []}), CANONICAL)
    assert set(result.metrics.values()) == {0.0}


def test_no_questions_is_an_error():
    with pytest.raises(ValueError, match="no questions"):
        evaluate([], searcher({}), CANONICAL)


def test_questions_are_read_from_json_lines(tmp_path):
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
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "q", "uri": "u"}\n' + line)
    with pytest.raises(BadQuestions, match=message):
        load_questions(path)


def test_absent_empty_and_binary_files_are_errors(tmp_path):
    with pytest.raises(BadQuestions, match="no questions file"):
        load_questions(tmp_path / "none.jsonl")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(BadQuestions, match="holds no questions"):
        load_questions(tmp_path / "empty")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadQuestions, match="not UTF-8"):
        load_questions(tmp_path / "binary")


def chunk_table(rows):
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(("chunk_id", "doc_id", "text"))})


ROWS = [
    (f"c{d}{c}", f"d{d}", f"It opens so. The middle of chunk {c} of document {d} says this. It ends.")
    for d in range(20)
    for c in range(3)
]


def test_known_items_do_not_depend_on_the_order_of_chunks():
    questions = known_item_questions(chunk_table(ROWS), 5, seed=1)
    assert questions == known_item_questions(chunk_table(ROWS[::-1]), 5, seed=1)
    assert questions != known_item_questions(chunk_table(ROWS), 5, seed=2)
    assert len({question.expected for question in questions}) == len(questions) == 5
    for question in questions:
        assert question.question.startswith("The middle of chunk")
        assert question.question.split("document ")[1].split()[0] == question.expected[0][1:]


def test_known_items_pass_over_chunks_without_a_sentence():
    rows = [("c1", "d1", "1 2 3"), ("c2", "d2", "Here is a sentence that is long enough.")]
    assert [q.expected for q in known_item_questions(chunk_table(rows), 5, seed=0)] == [("d2",)]
    assert known_item_questions(chunk_table([]), 5, seed=0) == []


def test_recall_against_the_exact_search_ignores_order():
    assert ann_recall([["a", "b"], ["c"]], [["b", "a"], ["d"]]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="found nothing"):
        ann_recall([[]], [[]])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        ann_recall([["a"]], [])


def test_graded_judgements_and_depth_count_as_the_metrics_define():
    queries = {"1": "first", "2": "second", "3": "third"}
    relevant = {"1": {"a": 2, "b": 1}, "2": {"c": 1}, "3": {"a": 1}}
    ranking = rank_documents(
        queries, searcher({"first": ["b", "a"], "second": ["x", "x", "c"], "third": []}), k=2
    )
    assert ranking.documents["2"] == {"x": 2.0, "c": 1.0}
    values = query_metrics({"ndcg": nDCG @ 10, "recall": R @ 1, "mrr": RR @ 10}, relevant, ranking)
    second = 1 / math.log2(3)
    assert values["ndcg"] == pytest.approx([(1 + 2 * second) / (2 + second), second, 0.0])
    assert values["recall"] == pytest.approx([0.5, 0.0, 0.0])
    assert values["mrr"] == pytest.approx([1.0, 0.5, 0.0])


def test_the_bootstrap_interval_holds_the_mean_and_narrows_with_more_queries():
    rng = np.random.default_rng(1)
    few, many = rng.normal(0.1, 1, 30), rng.normal(0.1, 1, 3000)
    for values in (few, many):
        low, high = paired_bootstrap(values)
        half_width = 1.96 * values.std() / math.sqrt(len(values))
        assert (low, high) == pytest.approx(
            (values.mean() - half_width, values.mean() + half_width), abs=half_width / 5
        )
    assert paired_bootstrap(np.zeros(10)) == (0.0, 0.0)
    assert paired_bootstrap(few) == paired_bootstrap(few)
