"""A query service with a reranker: the real index and embedder, and a cross-encoder or an endpoint."""

import logging
from pathlib import Path
from typing import Any

import pytest
from cross_encoders import save_cross_encoder
from small_release import TEXTS

from inference.answering.retrieval_settings import SearchMode
from orchestration.operations.ask import open_ask_service
from orchestration.settings import Settings
from retrieval.rerank.reranker import RerankerConfig


@pytest.fixture(scope="module")
def settings(small_release: Settings) -> Settings:
    return small_release


@pytest.fixture(scope="module")
def cross_encoder(module_folder: Path) -> Path:
    return save_cross_encoder(module_folder / "cross-encoder")


def asked(settings: Settings, mode: SearchMode | None, **options: Any) -> list[tuple[str, int, float]]:
    service = open_ask_service(settings.model_copy(update={"reranker": RerankerConfig(**options)}))
    hits = service.search("Where does the Danube rise?", 2, mode or service.retrieval.mode, "acme")
    return [(hit.text, hit.rank, round(hit.score, 4)) for hit in hits]


def test_a_configured_reranker_orders_unless_another_mode_is_asked_for(
    settings: Settings, cross_encoder: Path
) -> None:
    fused = asked(settings, "hybrid")
    assert fused[0][0] == TEXTS["danube"]
    assert asked(settings, None) == fused
    reranked = asked(settings, "reranked", model=cross_encoder, budget_s=60)
    assert asked(settings, None, model=cross_encoder, budget_s=60) == reranked
    assert [rank for _, rank, _ in reranked] == [1, 2]
    assert {score for _, _, score in reranked}.isdisjoint(score for _, _, score in fused)
    assert asked(settings, "hybrid", model=cross_encoder) == fused


def test_an_endpoint_that_is_not_there_leaves_the_fused_order_and_says_so(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        hits = asked(settings, "reranked", endpoint="http://127.0.0.1:9/rerank", api_key="sk-secret")
    assert hits == asked(settings, "hybrid")
    assert "the fused order stands: http://127.0.0.1:9/rerank" in caplog.text
    assert "sk-secret" not in caplog.text
