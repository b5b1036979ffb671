"""The digest of retrieval settings: whatever can change the passages of a question changes it."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from inference.answering.retrieval_settings import RetrievalSettings
from retrieval.rerank.reranker import RerankerConfig, RerankError
from retrieval.search.searcher import SearchConfig


def test_what_can_change_the_passages_changes_the_digest(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"one")
    model, service = RerankerConfig(model=tmp_path), RerankerConfig(endpoint="http://127.0.0.1:9/rerank")
    settings = [
        RetrievalSettings(SearchConfig(), RerankerConfig()),
        RetrievalSettings(SearchConfig(vector_weight=0.5), RerankerConfig()),
        RetrievalSettings(SearchConfig(), RerankerConfig(), passages_per_question=8),
        RetrievalSettings(SearchConfig(), model),
        RetrievalSettings(SearchConfig(), model.model_copy(update={"candidates": 20})),
        RetrievalSettings(SearchConfig(), service),
    ]
    digests = [each.digest for each in settings]
    assert len(set(digests)) == len(settings)
    assert [each.mode for each in settings] == ["hybrid"] * 3 + ["reranked"] * 3
    (tmp_path / "model.safetensors").write_bytes(b"two")
    assert RetrievalSettings(SearchConfig(), model).digest not in digests


def test_a_key_does_not_and_a_place_of_the_same_model_neither(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"one")
    here, there = (
        RetrievalSettings(SearchConfig(), RerankerConfig(model=tmp_path / name)) for name in ("here", "there")
    )
    assert here.digest == there.digest
    asked = RerankerConfig(endpoint="http://127.0.0.1:9/rerank")
    with_key = asked.model_copy(update={"api_key": SecretStr("sk-secret")})
    assert (
        RetrievalSettings(SearchConfig(), asked).digest == RetrievalSettings(SearchConfig(), with_key).digest
    )
    with pytest.raises(RerankError, match="no reranker at"):
        _ = RetrievalSettings(SearchConfig(), RerankerConfig(model=tmp_path / "none")).digest
