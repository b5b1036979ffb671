"""`bench generate` on a random model."""

import json
from pathlib import Path

import pytest
import torch
from tiny_decoders import byte_tokenizer, tiny_decoder
from typer.testing import CliRunner

from orchestration.bench.decoding.adapters import bench_adapters
from orchestration.bench.decoding.formats import bench_formats
from orchestration.bench.decoding.generate import NoBenchModel, bench_generate, model_to_measure
from orchestration.cli.bench import app
from orchestration.settings import Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, tokenizer = tiny_decoder(), byte_tokenizer()
    model.config.max_position_embeddings = 1024
    model.save_pretrained(tmp_path)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_generate_and_the_decoder_with_fixed_and_free_shapes_are_measured_side_by_side(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In bfloat16 the two round in other places, and a random model's tokens part soon.
    monkeypatch.setattr("inference.engines.causal_model.numeric_form", lambda device: torch.float32)
    result = bench_generate(folder, prompts=12, shared=[0.8, 1.5], max_tokens=8)
    assert result.figures["prompts"] == 12
    assert 160 < result.figures["prompt_tokens_mean"] < 724
    for name in ("generate", "headwater", "headwater_free_shapes"):
        assert result.figures[f"{name}_tokens_per_s"] > 0
        assert result.figures[f"{name}_added_mib"] >= 0
    assert result.figures["headwater_added_mib"] > 0
    for name in ("headwater", "headwater_free_shapes"):
        assert result.ratios[f"{name}_equal_to_generate"] > 0.99
    assert result.ratios["fixed_shapes_processor_s_to_free"] > 0
    for skew in ("0.8", "1.5"):
        assert result.ratios[f"shared_{skew}_equal_to_unshared"] == 1
        assert result.ratios[f"shared_{skew}_tokens_per_s_to_unshared"] > 0
    assert 0 < result.ratios["shared_0.8_chunks_saved"] < result.ratios["shared_1.5_chunks_saved"] < 1


@pytest.mark.slow
def test_each_format_of_this_machine_has_a_row_for_each_batch(folder: Path) -> None:
    table = bench_formats(folder, [1, 17], max_tokens=3)
    names = [row.format for row in table.rows]
    assert names[:4] == ["float32", "float32", "bfloat16", "bfloat16"]
    assert set(names) | set(table.unmeasured) == {"float32", "bfloat16", "int8", "fp8"}
    assert [row.batch for row in table.rows] == [1, 17] * (len(names) // 2)
    assert table.rows[0].agreement == 1
    assert 0.7 < table.rows[2].agreement < 1
    for row in table.rows:
        assert row.tokens_per_s > 0
        assert row.peak_mib > 0
        assert row.perplexity == pytest.approx(table.rows[0].perplexity, rel=0.1)
    assert json.loads(table.to_json())["rows"][1]["batch"] == 17


def test_without_a_model_it_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NoBenchModel, match="--model"):
        model_to_measure(Settings(), None)


@pytest.mark.parametrize("given", ["1,-2", "one", "nan", "0"])
def test_what_are_no_numbers_is_refused_by_the_options_name(given: str) -> None:
    result = CliRunner().invoke(app, ["generate", "--shared", given])
    assert result.exit_code == 2
    assert "--shared" in result.output


def test_adapters_in_one_batch_are_measured_beside_an_engine_for_each(folder: Path) -> None:
    result = bench_adapters(folder, adapters=2, prompts=4, max_tokens=4)
    assert result.figures["adapters"] == 2
    for name in ("one_batch", "engines", "base"):
        assert result.figures[f"{name}_tokens_per_s"] > 0
        assert result.figures[f"{name}_processor_s"] > 0
    assert result.ratios["one_batch_processor_s_to_base"] > 0


def test_json_is_all_that_standard_output_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(folder))
    options = ["--model", str(folder), "--prompts", "2", "--max-tokens", "2", "--json"]
    result = CliRunner().invoke(app, ["generate", *options])
    assert json.loads(result.stdout)["figures"]["prompts"] == 2
