"""Low-rank adapters (LoRA) over a decoder's weights, several of them beside each other in one batch.

An adapter adds x A^T B^T to a product x W^T (Hu et al., 2021, "LoRA: Low-Rank Adaptation of Large Language
Models").
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from inference.engines.adapter_files import InvalidAdapter, read_adapter_files

PRODUCTS: Mapping[str, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "output": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""The modules of a layer whose products the decoder computes as one, by the name of that product."""

DecoderAdapter = Mapping[tuple[int, str], tuple[Tensor, Tensor]]
"""An adapter as the decoder applies it: by layer and product, A of shape (rank, in), and B of shape
(out, rank) times the scale. The ranks of modules that are computed as one stand beside each other."""

_PREFIX = "base_model.model.model.layers"


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
            if factors := adapter.get((layer, product)):
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
    files = read_adapter_files(folder)
    left, factors = files.weights, {}
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
                ups.append(up.float() * files.scale)
            down, up = torch.cat(downs), torch.block_diag(*ups)
            if len(down):
                factors[layer, product] = (down.to(device, dtype), up.to(device, dtype))
    if left:
        raise InvalidAdapter(
            f"the adapter {folder} changes {next(iter(left))}, which the batch decoder does not adapt, or "
            "the model does not have: it is for another base"
        )
    return factors
