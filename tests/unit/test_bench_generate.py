"""`bench generate` on a random model."""

from pathlib import Path

import pytest
import torch
from tiny_decoders import byte_tokenizer, tiny_decoder

from orchestration.bench.decoding.generate import NoBenchModel, bench_generate
from orchestration.settings import Settings


def test_generate_and_the_decoder_with_and_without_sharing_are_measured_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In bfloat16 the two round in other places, and a random model's tokens part soon.
    monkeypatch.setattr("inference.engines.causal_model.numeric_form", lambda device: torch.float32)
    model, tokenizer = tiny_decoder(), byte_tokenizer()
    model.config.max_position_embeddings = 1024
    model.save_pretrained(tmp_path)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    result = bench_generate(Settings(), tmp_path, prompts=12, shared=1.5, max_tokens=8)
    assert result.figures["prompts"] == 12
    assert 160 < result.figures["prompt_tokens_mean"] < 724
    for name in ("generate", "headwater", "headwater_shared"):
        assert result.figures[f"{name}_tokens_per_s"] > 0
    assert result.ratios["headwater_shared_equal_to_headwater"] == 1
    assert result.ratios["headwater_equal_to_generate"] > 0.99


def test_without_a_model_it_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NoBenchModel, match="--model"):
        bench_generate(Settings())
