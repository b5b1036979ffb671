from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retrieval.embedding.quantization import (
    _best_steps,
    _Channels,
    calibration_texts,
    int8_model_digest,
    quantize_model,
)

LEVELS = 256


def linear(path: Path, weight: np.ndarray, sizes: np.ndarray) -> None:
    """A model of one linear layer over embeddings: token i is `table[i]`, its values of these sizes."""
    import openvino
    from openvino import opset13 as ops

    random = np.random.default_rng(0)
    table = random.normal(size=(50, weight.shape[1])).astype(np.float32) * sizes
    ids, mask = (ops.parameter([-1, -1], np.int64, name) for name in ("input_ids", "attention_mask"))
    for parameter, name in ((ids, "input_ids"), (mask, "attention_mask")):
        parameter.output(0).set_names({name})
    rows = ops.gather(ops.constant(table.astype(np.float32)), ids, ops.constant(np.int64(0)))
    weights = ops.unsqueeze(ops.convert(mask, np.float32), ops.constant(np.int64(2)))
    masked = ops.multiply(rows, weights)
    out = ops.matmul(masked, ops.constant(weight.astype(np.float32)), False, True)
    model = openvino.Model([ops.result(out)], [ids, mask], "linear")
    openvino.save_model(model, path, compress_to_fp16=False)


def outputs(model: Any) -> np.ndarray:
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"}
    compiled = openvino.Core().compile_model(model, "CPU", options)
    ids = np.arange(50, dtype=np.int64)[None, :]
    return compiled({"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0]


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ops()]


@pytest.mark.parametrize(
    "largest", [1.0, 40.0], ids=["even channels", "one channel is forty times the others"]
)
def test_a_layer_in_eight_bits_gives_nearly_what_it_gave(tmp_path: Path, largest: float) -> None:
    random = np.random.default_rng(1)
    channels = np.ones(64, np.float32)
    channels[7] = largest
    weight = random.normal(size=(32, 64)).astype(np.float32)
    weight[:, 7] /= largest
    linear(tmp_path / "model.xml", weight, channels)
    model = quantize_model(tmp_path / "model.xml", [list(range(50))])
    assert kinds(model).count("FakeQuantize") == 2
    exact, quantised = outputs(tmp_path / "model.xml"), outputs(model)
    error = np.sqrt(((exact - quantised) ** 2).mean() / (exact**2).mean())
    assert 0 < error < 0.03


def test_a_layer_that_would_lose_too_much_stays_in_floats(tmp_path: Path) -> None:
    sizes = np.ones((50, 64), np.float32)
    sizes[0] = 1000  # one rare token whose every channel takes all the steps
    weight = np.random.default_rng(2).normal(size=(32, 64)).astype(np.float32)
    linear(tmp_path / "model.xml", weight, sizes)
    model = quantize_model(tmp_path / "model.xml", [[0], *[list(range(1, 50))] * 40])
    assert "FakeQuantize" not in kinds(model)
    np.testing.assert_array_equal(outputs(model), outputs(tmp_path / "model.xml"))


finite = st.floats(-1e4, 1e4, width=32)


@given(values=arrays(np.float32, (5, 6), elements=finite), weight=arrays(np.float32, (3, 6), elements=finite))
def test_zero_is_a_step_and_all_that_was_seen_is_within_half_a_step_of_one(
    values: np.ndarray, weight: np.ndarray
) -> None:
    seen = _Channels.none(6)
    seen.see(values)
    steps = _best_steps(seen, weight)
    assert (steps.scale >= 1).all()
    step = (steps.high - steps.low) / (LEVELS - 1)
    assert step > 0
    assert abs(steps.low / step - round(steps.low / step)) < 1e-6 * LEVELS
    scaled = values / steps.scale
    slack = 0.51 * step + 1e-5 * np.abs(scaled).max()
    assert scaled.min() >= steps.low - slack
    assert scaled.max() <= steps.high + slack


def test_the_identity_of_int8_vectors_is_not_that_of_the_float_ones_and_follows_it() -> None:
    assert int8_model_digest("a") not in ("a", int8_model_digest("b"))
    assert int8_model_digest("a") == int8_model_digest("a")


def test_ranges_are_taken_from_texts_of_every_length() -> None:
    words = sorted(len(text.split()) for text in calibration_texts())
    assert words[0] == 1
    assert words[-1] > 200
    assert len(words) > 100
