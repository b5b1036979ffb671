"""A query service with a reranker: the real index and embedder, and a cross-encoder or an endpoint."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cross_encoders import save_cross_encoder
from index_rows import NO_LINEAGE, Chunk, batch, made_with

from inference.answering.query_service import SearchMode
from orchestration.operations.ask import open_ask_service
from orchestration.settings import Settings
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.rerank.reranker import RerankerConfig

TEXTS = {
    "danube": "The Danube rises in the Black Forest in Germany.",
    "bread": "Bread is baked from flour, water and salt.",
    "rivers": "Rivers rise in hills and end in the sea.",
}


@pytest.fixture(scope="module")
def settings(module_folder: Path) -> Iterator[Settings]:
    settings = Settings(home=module_folder / "reranked")
    settings.home.mkdir()
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    vectors = model.embedder.encode(list(TEXTS.values()))
    rows = [
        replace(Chunk(name, text), vector=tuple(vector.tolist()))
        for (name, text), vector in zip(TEXTS.items(), vectors, strict=True)
    ]
    service = open_ask_service(settings)
    built = service.index.build(model.digest, "chunker", vectors.shape[1], [batch(rows)], NO_LINEAGE)
    service.index.release("live", built, None, made_with(model.digest))
    yield settings
    service._searcher._postgres.stop()


@pytest.fixture(scope="module")
def cross_encoder(module_folder: Path) -> Path:
    return save_cross_encoder(module_folder / "cross-encoder")


def asked(settings: Settings, mode: SearchMode | None, **options: Any) -> list[tuple[str, int, float]]:
    service = open_ask_service(settings.model_copy(update={"reranker": RerankerConfig(**options)}))
    hits = service.search("Where does the Danube rise?", 2, mode or service.default_mode, "acme")
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
