import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from ir_measures import RR, R, nDCG

from quality.evaluation.questions import Question
from quality.evaluation.retrieval_metrics import (
    ann_recall,
    evaluate_search,
    query_metrics,
    rank_for_evaluation,
)


@dataclass(frozen=True)
class Found:
    doc_id: str
    chunk_id: str = "of this document"


def searcher(results: dict[str, list[str]]) -> Callable[[str, int], list[Found]]:
    return lambda question, k: [Found(doc) for doc in results[question]][:k]


CANONICAL = {name: name for name in ("a", "b", "c")} | {"file:///a": "a", "file:///copy-of-a": "a"}


def test_metrics_are_those_of_the_ranking() -> None:
    questions = [Question("first", ("file:///a",)), Question("second", ("b",)), Question("none", ("c",))]
    result = evaluate_search(
        questions, searcher({"first": ["a", "b"], "second": ["a", "b"], "none": ["a"]}), CANONICAL
    )
    assert result.metrics["recall@10"] == pytest.approx(2 / 3)
    assert result.metrics["rr@10"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert result.metrics["ndcg@10"] == pytest.approx((1 + 1 / 1.584962500721156 + 0) / 3)
    assert result.milliseconds.shape == (3,)
    assert (result.milliseconds >= 0).all()


def test_a_document_counts_once_however_many_chunks_were_found() -> None:
    result = evaluate_search([Question("q", ("b",))], searcher({"q": ["a"] * 30 + ["b"]}), CANONICAL)
    assert result.metrics["rr@10"] == pytest.approx(1 / 2)


def test_a_duplicates_uri_stands_for_the_document_that_was_kept() -> None:
    result = evaluate_search([Question("q", ("file:///copy-of-a",))], searcher({"q": ["a"]}), CANONICAL)
    assert result.metrics["ndcg@10"] == 1.0
    assert result.unmatched == ()


def test_a_document_that_the_lake_lost_lowers_the_figure_and_is_named() -> None:
    questions = [Question("q", ("file:///gone",)), Question("r", ("a",))]
    result = evaluate_search(questions, searcher({"q": ["a"], "r": ["a"]}), CANONICAL)
    assert result.metrics["recall@10"] == 0.5
    assert result.unmatched == ("file:///gone",)


def test_a_search_that_finds_nothing_scores_zero() -> None:
    result = evaluate_search([Question("q", ("a",))], searcher({"q": []}), CANONICAL)
    assert set(result.metrics.values()) == {0.0}


def test_no_questions_is_an_error() -> None:
    with pytest.raises(ValueError, match="no questions"):
        evaluate_search([], searcher({}), CANONICAL)


def test_recall_against_the_exact_search_ignores_order() -> None:
    assert ann_recall([["a", "b"], ["c"]], [["b", "a"], ["d"]]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="found nothing"):
        ann_recall([[]], [[]])
    with pytest.raises(ValueError, match=r"shorter|longer"):
        ann_recall([["a"]], [])


def test_graded_judgements_and_depth_count_as_the_metrics_define() -> None:
    queries = {"1": "first", "2": "second", "3": "third"}
    relevant = {"1": {"a": 2, "b": 1}, "2": {"c": 1}, "3": {"a": 1}}
    ranking = rank_for_evaluation(
        queries, searcher({"first": ["b", "a"], "second": ["x", "x", "c"], "third": []}), k=2
    )
    assert ranking.documents["2"] == {"x": 2.0, "c": 1.0}
    values = query_metrics({"ndcg": nDCG @ 10, "recall": R @ 1, "mrr": RR @ 10}, relevant, ranking)
    second = 1 / math.log2(3)
    assert values["ndcg"] == pytest.approx([(1 + 2 * second) / (2 + second), second, 0.0])
    assert values["recall"] == pytest.approx([0.5, 0.0, 0.0])
    assert values["mrr"] == pytest.approx([1.0, 0.5, 0.0])
