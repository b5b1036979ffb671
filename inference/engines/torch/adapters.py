"""Low-rank adapters (LoRA) over a decoder's weights, several of them beside each other in one batch.

An adapter adds x A^T B^T to a product x W^T (Hu et al., 2021, "LoRA: Low-Rank Adaptation of Large Language
Models"). It is read from a folder in PEFT's form, without PEFT.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inference.engines.digest import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from inference.engines.protocol import EngineError

PRODUCTS: Mapping[str, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "output": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""The modules of a layer whose products the decoder computes as one, by the name of that product."""
BASE_DIGEST = "headwater.base_digest"
"""The key under which the weights' file names the digest of the base that the adapter was trained over."""

_PREFIX = "base_model.model.model.layers"
_UNREAD = ("use_dora", "fan_in_fan_out", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern")
_FETCH = "train it again, or fetch both its files again"


class InvalidAdapter(EngineError):
    """An adapter can not be used; the message names its folder, the fault and the cure."""


@dataclass(frozen=True, eq=False)
class DecoderAdapter:
    """An adapter as the decoder applies it.

    Attributes:
        factors: By layer and product: A of shape (rank, in) and B of shape (out, rank), times the scale. The
            ranks of modules that are computed as one stand beside each other.
    """

    factors: Mapping[tuple[int, str], tuple[Tensor, Tensor]]


class RowAdapters:
    """Which adapter each row of a computation has.

    Each adapter is computed for all rows, and taken where it is theirs. So its products have one number of
    rows, and a row's sum has the same bits whichever adapters its neighbours have.

    Args:
        adapters: The adapters.
        rows: Number of rows.
        device: Where the rows are.
    """

    def __init__(self, adapters: Sequence[DecoderAdapter], rows: int, device: torch.device) -> None:
        self._adapters = adapters
        self._theirs = torch.zeros(len(adapters), rows, 1, dtype=torch.bool, device=device)

    def assign(self, numbers: npt.NDArray[np.int64]) -> None:
        """Gives each row the adapter of a number, or none where it is -1."""
        theirs = numbers[None, :, None] == np.arange(len(self._adapters))[:, None, None]
        self._theirs.copy_(torch.from_numpy(theirs))

    def add(self, layer: int, product: str, x: Tensor, y: Tensor) -> Tensor:
        """Returns y, the product of x, with what each row's adapter adds; x (rows, in), y (rows, out)."""
        for adapter, theirs in zip(self._adapters, self._theirs, strict=True):
            if factors := adapter.factors.get((layer, product)):
                down, up = factors
                y = torch.where(theirs, y + F.linear(F.linear(x, down), up), y)
        return y


def present_adapters(
    adapters: Sequence[DecoderAdapter], numbers: npt.NDArray[np.int64], device: torch.device
) -> RowAdapters | None:
    """Returns the adapters that some rows have, with their rows; None if no row has one.

    Args:
        adapters: The adapters.
        numbers: Which of them each row has, of shape (rows,); -1 for none.
        device: Where the rows are.
    """
    present, places = np.unique(numbers, return_inverse=True)
    skipped = int(np.count_nonzero(present < 0))
    if skipped == len(present):
        return None
    rows = RowAdapters([adapters[number] for number in present[skipped:]], len(numbers), device)
    rows.assign(places.astype(np.int64) - skipped)
    return rows


def require_base(folder: Path, base: Path, base_digest: str) -> None:
    """Returns if an adapter was trained over a base, or does not say over which.

    Args:
        folder: The adapter.
        base: The model, for the message.
        base_digest: Its `model_files_digest`.

    Raises:
        InvalidAdapter: It was trained over another base, or can not be read.
    """
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
            trained_over = (file.metadata() or {}).get(BASE_DIGEST)
    except (SafetensorError, OSError) as error:
        raise InvalidAdapter(f"the adapter {folder} can not be read: {error}; {_FETCH}") from error
    if trained_over not in (None, base_digest):
        raise InvalidAdapter(
            f"the adapter {folder} was trained over the base {trained_over[:16]}, and {base} is "
            f"{base_digest[:16]}: generate with its own base, or train an adapter over this one"
        )


def read_adapter(
    folder: Path, shapes: Mapping[str, tuple[int, int]], layers: int, dtype: torch.dtype, device: torch.device
) -> DecoderAdapter:
    """Returns the adapter in a folder.

    Args:
        folder: A folder in PEFT's form: `adapter_config.json` and `adapter_model.safetensors`.
        shapes: Of each module in `PRODUCTS`, the numbers of values that come out of it and go in.
        layers: The decoder's number of layers.
        dtype: The type of the decoder's weights.
        device: Where they are.

    Raises:
        InvalidAdapter: It can not be read, is of a kind that the decoder does not know, or does not fit it.
    """
    scale = _read_scale(folder)
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
            left = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InvalidAdapter(f"the adapter {folder} can not be read: {error}; {_FETCH}") from error
    for name, tensor in left.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InvalidAdapter(f"{folder}: the weights {name} hold NaN or infinity: {_FETCH}")
    factors = {}
    for layer in range(layers):
        for product, modules in PRODUCTS.items():
            downs, ups = [], []
            for module in modules:
                out_in = shapes[module]
                down = left.pop(f"{_PREFIX}.{layer}.{module}.lora_A.weight", torch.zeros(0, out_in[1]))
                up = left.pop(f"{_PREFIX}.{layer}.{module}.lora_B.weight", torch.zeros(out_in[0], 0))
                if (up.shape[0], down.shape[1]) != out_in or up.shape[1] != down.shape[0]:
                    raise InvalidAdapter(
                        f"the adapter {folder} does not fit the model: layer {layer}'s {module} is "
                        f"{tuple(up.shape)} by {tuple(down.shape)} there, and {out_in} here: it is for "
                        "another base"
                    )
                downs.append(down)
                ups.append(up.float() * scale)
            down, up = torch.cat(downs), torch.block_diag(*ups)
            if len(down):
                factors[layer, product] = (down.to(device, dtype), up.to(device, dtype))
    if left:
        raise InvalidAdapter(
            f"the adapter {folder} changes {next(iter(left))}, which the batch decoder does not adapt, or "
            "the model does not have: it is for another base"
        )
    return DecoderAdapter(factors)


def _read_scale(folder: Path) -> float:
    file = folder / ADAPTER_CONFIG
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        rank, alpha, kind = int(config["r"]), float(config["lora_alpha"]), config["peft_type"]
        root = bool(config.get("use_rslora"))
        unread = [name for name in _UNREAD if config.get(name)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidAdapter(f"{file} can not be read: {error!r}; {_FETCH}") from error
    if kind != "LORA" or unread or config.get("bias", "none") != "none" or rank < 1:
        what = ", ".join(unread) or f"peft_type {kind}, bias {config.get('bias')}"
        raise InvalidAdapter(
            f"{file} is of a kind that the batch decoder does not read ({what}): train a plain LoRA"
        )
    return alpha / (rank**0.5 if root else rank)
