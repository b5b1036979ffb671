"""The release gate's figures, over every tenant's questions."""

import time
from dataclasses import dataclass

import pytest

from quality.evaluation.questions import Question
from quality.evaluation.release_metrics import release_metrics


@dataclass
class Found:
    doc_id: str

    @property
    def chunk_id(self) -> str:
        return self.doc_id


CANONICAL = {tenant: {"a": "a", "b": "b"} for tenant in ("large", "small")}


def right(tenant: str, question: str, k: int) -> list[Found]:
    return [Found(question)]


def wrong(tenant: str, question: str, k: int) -> list[Found]:
    return [Found("x")]


def test_every_question_counts_alike_whatever_its_tenant() -> None:
    def right_for_the_small_tenant(tenant: str, question: str, k: int) -> list[Found]:
        return right(tenant, question, k) if tenant == "small" else wrong(tenant, question, k)

    found = release_metrics(
        {"large": [Question("a", ("a",))] * 3, "small": [Question("b", ("b",))]},
        CANONICAL,
        {"hybrid": right_for_the_small_tenant, "vector": right, "lexical": wrong},
        right_for_the_small_tenant,
    )
    figures = found.metrics
    assert {tenant: each.tolist() for tenant, each in found.ndcg.items()} == {
        "large": [0, 0, 0],
        "small": [1],
    }
    assert figures["questions"] == 4
    assert figures["ndcg@10"] == figures["recall@10"] == figures["rr@10"] == pytest.approx(1 / 4)
    assert figures["ndcg@10/vector"] == 1
    assert figures["ndcg@10/lexical"] == 0
    assert figures["ann_recall@10"] == pytest.approx(1 / 4)


def test_p95_is_a_percentile_over_all_searches_and_no_mean_of_percentiles() -> None:
    def slow_for_the_small_tenant(tenant: str, question: str, k: int) -> list[Found]:
        time.sleep(0.2 if tenant == "small" else 0)
        return right(tenant, question, k)

    figures = release_metrics(
        {"large": [Question("a", ("a",))] * 90, "small": [Question("b", ("b",))] * 10},
        CANONICAL,
        {"hybrid": slow_for_the_small_tenant, "vector": right},
        right,
    ).metrics
    # One search in ten is slow, so the slow ones begin at the 90th percentile; the mean of both tenants' 95th
    # percentiles, weighted by their questions, would be a tenth of that.
    assert figures["p95_ms"] >= 200
    assert figures["p50_ms"] < 100
    assert figures["p95_ms/vector"] < 100
