"""`bench embed --formats` on a random embedder: each form is computed, and near float32."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_embedders import make_tiny_embedder

from orchestration.bench.embedding.formats import EmbedderForm, EmbedderFormRow, FormNotComputed, measure_form
from orchestration.bench.report import BenchTable
from retrieval.embedding.config import EmbedderConfig


def test_forms_of_one_embedder_make_the_same_vectors_but_for_rounding(tmp_path: Path) -> None:
    config = EmbedderConfig(model=make_tiny_embedder(tmp_path / "model"))
    forms = [EmbedderForm("OpenVINO", "float32"), EmbedderForm("torch", "float32")]
    forms.append(EmbedderForm("torch", "bfloat16"))
    has = torch.cpu.get_capabilities()
    if has.get("avx512_vnni") or has.get("avx_vnni"):
        forms.append(EmbedderForm("torch", "int8"))
    measured = [measure_form(form, config, tmp_path, "cpu", (1, 65), None) for form in forms]
    for form, each in zip(forms, measured, strict=True):
        cosines = (each.vectors * measured[0].vectors).sum(1)
        assert cosines.min() > {"float32": 0.9999, "bfloat16": 0.99}.get(form.format, 0.9)
        assert [speed.batch for speed in each.speeds] == [1, 65]
        assert [speed.texts for speed in each.speeds] == [64, 65]
        assert all(speed.processor_s > 0 and speed.first_result_s > 0 for speed in each.speeds)
    assert not np.array_equal(measured[0].vectors, measured[2].vectors)


def test_what_torch_does_not_compile_is_told_and_ends_no_bench(tmp_path: Path) -> None:
    config = EmbedderConfig(model=make_tiny_embedder(tmp_path / "model"))
    if not torch.cpu.get_capabilities().get("avx512_vnni"):
        pytest.skip("int8 needs a processor with VNNI")
    with pytest.raises(FormNotComputed, match=r"torch does not compile it: .*graph constant"):
        measure_form(EmbedderForm("torch compiled", "int8"), config, tmp_path, "cpu", (1,), None)


def test_a_table_shows_what_was_not_measured_and_why() -> None:
    row = EmbedderFormRow("torch", "int8", 16, 20.0, 10.0, 0.5, 300.0, 0.99, 0.98, None)
    table = BenchTable("embed --formats", [row], {"torch fp8": "is for a GPU"})
    assert asdict(row).keys() == {str(column.header).replace(" ", "_") for column in table.__rich__().columns}
    assert "torch fp8: is for a GPU" in str(table.__rich__().caption)
    assert '"ndcg10": null' in table.to_json()
