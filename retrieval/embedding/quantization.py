"""Quantises a converted model, so that its linear layers multiply 8-bit integers.

Weights get one scale per output, activations one range per layer (Jacob et al., 2018, arXiv:1712.05877).
Before that, the few channels of a layer's input that are far larger than the others are scaled down, and
their weights are scaled up by the same factor (Xiao et al., 2022, arXiv:2211.10438): one such channel would
otherwise take nearly all of the 256 steps. The factor is the one with the least expected error; a layer whose
expected error is still large is not quantised.

The steps are written into the graph as `FakeQuantize`, so that they are the same on every processor: a
processor with int8 instructions computes in integers, any other rounds float32 to the same steps.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import openvino

_TEXTS = Path(__file__).with_name("calibration.txt")
"""Passages of many kinds, written for this: the same on every machine, so that ranges are."""

_METHOD = "1"
"""Changes when this module gives other steps for the same model and texts."""

_MAX_ERROR = 0.03
"""Expected error of a layer's output, relative to its size, above which the layer stays in floats."""

_QUANTILES = (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 1.0)
"""Of a layer's channel maxima: where scaling down may begin."""

_LEVELS = 256

Array = npt.NDArray[np.float32]


def int8_model_digest(float_digest: str) -> str:
    """Returns the hex SHA-256 that identifies the vectors of a model's int8 form."""
    texts = hashlib.sha256(_TEXTS.read_bytes()).hexdigest()
    return hashlib.sha256(f"{float_digest}\x1fint8\x1f{_METHOD}\x1f{texts}".encode()).hexdigest()


def calibration_texts() -> list[str]:
    """Returns the calibration texts, from one word to more than most models read.

    Short texts are among them because they reach more extreme values.
    """
    passages = _TEXTS.read_text(encoding="utf-8").strip().split("\n\n")
    following = passages[1:] + passages[:2]
    long = [" ".join((passage, *following[i : i + 2])) for i, passage in enumerate(passages)]
    short = [
        " ".join(passage.split()[:words])
        for i, passage in enumerate(passages)
        for words in (1, 3 + i % 9, 12 + i)
    ]
    return passages + long + short


@dataclass
class _Channels:
    """The values seen in a layer's input, one entry per channel."""

    low: Array
    high: Array
    square_sum: Array
    tokens: int = 0

    def see(self, values: Array) -> None:
        """Takes in values of shape (tokens, channels)."""
        np.minimum(self.low, values.min(axis=0), out=self.low)
        np.maximum(self.high, values.max(axis=0), out=self.high)
        self.square_sum += (values * values).sum(axis=0)
        self.tokens += len(values)

    @classmethod
    def none(cls, channels: int) -> "_Channels":
        """Nothing seen yet; the range holds zero, which padding and masks need exactly."""
        low, high, square_sum = np.zeros((3, channels), np.float32)
        return cls(low, high, square_sum)


@dataclass(frozen=True)
class _Steps:
    """How a layer's input is quantised: divided by `scale` (channels,), in steps from `low` to `high`."""

    scale: Array
    low: float
    high: float
    error: float


def quantize_model(source: Path, tokens: Sequence[Sequence[int]]) -> "openvino.Model":
    """Returns the int8 form of a converted model.

    Args:
        source: The path of the model in floats, `….xml`.
        tokens: Token ids of the calibration texts, from which the activations' ranges are measured.

    Returns:
        A model with the same inputs and output; inputs and outputs of its layers remain floats.
    """
    import openvino

    core = openvino.Core()
    seen = _observe(core, source, tokens)
    model = core.read_model(source)
    for name, layers in _linear_layers(model).items():
        weights = [layer.input_value(1).get_node().data.astype(np.float32) for layer in layers]
        steps = _best_steps(seen[name], np.concatenate(weights))
        if steps.error > _MAX_ERROR:
            continue
        quantised = _quantised_input(layers[0].input_value(0), steps)
        for layer, weight in zip(layers, weights, strict=True):
            layer.input(0).replace_source_output(quantised)
            layer.input(1).replace_source_output(_quantised_weight(weight * steps.scale))
    model.validate_nodes_and_infer_types()
    return model


def _linear_layers(model: "openvino.Model") -> dict[str, list["openvino.Node"]]:
    """The products of tokens' activations with constant matrices, by the name of what they multiply.

    Those of whole texts, after the pooling, are few and stay in floats.
    """
    layers: dict[str, list[openvino.Node]] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        source, weight = (node.input_value(i).get_node() for i in range(2))
        transposed = node.get_attributes() == {"transpose_a": False, "transpose_b": True}
        of_tokens = node.get_input_partial_shape(0).rank == 3
        matrix = weight.get_type_name() == "Constant" and len(weight.get_output_shape(0)) == 2
        if of_tokens and matrix and transposed:
            layers.setdefault(source.get_friendly_name(), []).append(node)
    return layers


def _observe(core: "openvino.Core", source: Path, tokens: Sequence[Sequence[int]]) -> dict[str, _Channels]:
    model = core.read_model(source)
    layers = _linear_layers(model)
    model.add_outputs([group[0].input_value(0) for group in layers.values()])
    compiled = core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
    )
    request = compiled.create_infer_request()
    seen = {name: _Channels.none(group[0].input_value(1).get_shape()[1]) for name, group in layers.items()}
    for each in tokens:
        ids = np.asarray([each], dtype=np.int64)
        outputs = request.infer({"input_ids": ids, "attention_mask": np.ones_like(ids)})
        for place, channels in enumerate(seen.values(), start=1):  # output 0 is the vector
            channels.see(outputs[place][0])
    return seen


def _best_steps(seen: _Channels, weight: Array) -> _Steps:
    """The scaling of least expected error.

    An error of rounding is uniform within a step: its variance is a twelfth of the step's square, through
    the weights for an activation, through the mean square of the activations for a weight.

    Args:
        seen: The layer's input.
        weight: Of shape (outputs, channels).
    """
    largest = np.maximum(-seen.low, seen.high)
    mean_square = seen.square_sum / max(seen.tokens, 1)
    size = float(((weight * weight) @ mean_square).sum())
    tried = []
    for bound in np.unique(np.quantile(largest, _QUANTILES)):
        scale = np.maximum(1, largest / max(float(bound), 1e-6)).astype(np.float32)
        low, high = float((seen.low / scale).min()), float((seen.high / scale).max())
        step = max(high - low, 1e-6) / (_LEVELS - 1)
        scaled = weight * scale
        weight_steps = np.abs(scaled).max(axis=1) / (_LEVELS // 2 - 1)
        of_input = step**2 * float((scaled * scaled).sum())
        of_weight = float((weight_steps**2).sum()) * float((mean_square / scale**2).sum())
        error = float(np.sqrt((of_input + of_weight) / 12 / max(size, 1e-12)))
        zero = round(-low / step)  # zero is on a step
        tried.append(_Steps(scale, -zero * step, (_LEVELS - 1 - zero) * step, error))
    return min(tried, key=lambda steps: steps.error)


def _quantised_input(source: "openvino.Output", steps: _Steps) -> "openvino.Output":
    from openvino import opset13 as ops

    if steps.scale.max() > 1:
        source = ops.multiply(source, _constant(1 / steps.scale[None, None, :])).output(0)
    low, high = (_constant(np.full((1, 1, 1), bound)) for bound in (steps.low, steps.high))
    return ops.fake_quantize(source, low, high, low, high, _LEVELS).output(0)


def _quantised_weight(weight: Array) -> "openvino.Output":
    from openvino import opset13 as ops

    largest = np.maximum(np.abs(weight).max(axis=1, keepdims=True), 1e-12)
    low, high = _constant(-largest), _constant(largest)
    return ops.fake_quantize(_constant(weight), low, high, low, high, _LEVELS - 1).output(0)


def _constant(values: npt.NDArray[np.floating]) -> "openvino.Node":
    from openvino import opset13 as ops

    return ops.constant(values.astype(np.float32))
