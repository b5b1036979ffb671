"""The products with a model's weights: in the model's own numbers, in int8 on a CPU, in fp8 on a GPU."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.engines.generation import Quantization
from inference.engines.protocol import EngineError

Linear = Callable[[Tensor], Tensor]
"""Takes x of shape (rows, in) and returns x W^T + b, (rows, out), in the dtype of x. What a row becomes
depends on no other row, as long as the number of rows is the same."""

_INT8_MOST, _FP8_MOST = 127.0, 448.0
_LEAST = 1e-20  # in place of the largest number of a row of zeros
_FP8_CAPABILITY = (8, 9)


class UnavailableQuantization(EngineError):
    """This machine does not compute in these numbers; the message says what it needs."""


def check_quantization(quantization: Quantization | None, device: str) -> None:
    """Refuses a quantization that this machine's device can not, or not well, compute in.

    Args:
        quantization: Which; None is the model's own numbers.
        device: The kind of device, `cpu` or `cuda`.

    Raises:
        UnavailableQuantization: It can not.
    """
    has = torch.cpu.get_capabilities()
    if quantization == "int8" and (device != "cpu" or not (has.get("avx512_vnni") or has.get("avx_vnni"))):
        raise UnavailableQuantization(
            "quantization int8 is for a machine with VNNI in its processor and without a GPU: do not set "
            "HEADWATER_GENERATOR__QUANTIZATION"
        )
    if quantization == "fp8" and (device != "cuda" or torch.cuda.get_device_capability() < _FP8_CAPABILITY):
        raise UnavailableQuantization(
            "quantization fp8 is for a GPU of compute capability 8.9 or more (Ada, Hopper): do not set "
            "HEADWATER_GENERATOR__QUANTIZATION"
        )


def build_linear(weight: Tensor, bias: Tensor | None, rows: int, quantization: Quantization | None) -> Linear:
    """Returns the product with weights, which are copied where that makes it faster.

    Args:
        weight: Of shape (out, in).
        bias: Of shape (out,), or None.
        rows: The number of rows that it is made for; others are right too.
        quantization: The numbers that it computes in; None for those of the weights.
    """
    if quantization == "int8":
        return _Int8Linear(weight, bias, rows)
    if quantization == "fp8":
        return _Fp8Linear(weight, bias)
    if weight.device.type == "cpu" and torch.backends.mkldnn.is_available():
        # oneDNN repacks plain weights at every call, which costs as much as the product of a small batch.
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return lambda x: F.linear(x, weight, bias)


class _Int8Linear:
    """Weights in int8 with a scale for each output, rows of x with a scale for each row; the sums are exact.

    A scale of all rows together would make a row depend on its neighbours.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, rows: int) -> None:
        scale = weight.abs().amax(1).float().clamp_(min=_LEAST) / _INT8_MOST
        quantized = (weight.float() / scale[:, None]).round_().to(torch.int8)
        self._bias, self._scale = bias, scale / _INT8_MOST
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._packed = torch.ops.onednn.qlinear_prepack(quantized, [rows, weight.shape[1]])

    def __call__(self, x: Tensor) -> Tensor:
        largest = x.abs().amax(-1, keepdim=True).float().clamp_(min=_LEAST)
        rounded = (x.float() * (_INT8_MOST / largest)).round_().to(torch.int8)
        shifted = rounded.view(torch.uint8).bitwise_xor_(128)  # VNNI multiplies unsigned by signed numbers
        product = torch.ops.onednn.qlinear_pointwise(
            *(shifted, 1.0, 128, self._packed, self._scale, self._zeros, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        ).mul_(largest)
        return (product if self._bias is None else product.add_(self._bias)).to(x.dtype)


class _Fp8Linear:
    """Weights and rows in float8 (e4m3) with a scale for each output and each row."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        scale = weight.abs().amax(1, keepdim=True).float().clamp_(min=_LEAST) / _FP8_MOST
        self._weight = (weight.float() / scale).to(torch.float8_e4m3fn).t()
        self._scale, self._bias = scale.t(), bias

    def __call__(self, x: Tensor) -> Tensor:
        scale = x.abs().amax(-1, keepdim=True).float().clamp_(min=_LEAST) / _FP8_MOST
        by_row = F.ScalingType.RowWise  # beyond the torch of some workers
        return F.scaled_mm(
            *((x / scale).to(torch.float8_e4m3fn), self._weight, scale, by_row, self._scale, by_row),
            bias=self._bias,
            output_dtype=x.dtype,
        )
