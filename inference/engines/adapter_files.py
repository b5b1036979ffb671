"""The files of a low-rank adapter (LoRA) in PEFT's form, read without PEFT, and which base they are for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from inference.engines.digest import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from inference.engines.protocol import EngineError

BASE_DIGEST = "headwater.base_digest"
"""The key under which the weights' file names the digest of the base that the adapter was trained over."""

_UNREAD = ("use_dora", "fan_in_fan_out", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern")
_FETCH = "train it again, or fetch both its files again"


class InvalidAdapter(EngineError):
    """An adapter can not be used; the message names its folder, the fault and the cure."""


@dataclass(frozen=True, eq=False)
class AdapterFiles:
    """What an adapter's files hold.

    Attributes:
        scale: Multiplies the product of its two matrices.
        weights: Its matrices, by PEFT's names.
    """

    scale: float
    weights: dict[str, Tensor]


def require_base(folder: Path, base: Path, base_digest: str) -> None:
    """Returns if an adapter was trained over a base, or does not say over which.

    Args:
        folder: The adapter.
        base: The model, for the message.
        base_digest: Its `model_files_digest`.

    Raises:
        InvalidAdapter: It was trained over another base, or can not be read.
    """
    with _opened_weights(folder) as file:
        trained_over = (file.metadata() or {}).get(BASE_DIGEST)
    if trained_over not in (None, base_digest):
        raise InvalidAdapter(
            f"the adapter {folder} was trained over the base {trained_over[:16]}, and {base} is "
            f"{base_digest[:16]}: generate with its own base, or train an adapter over this one"
        )


def read_adapter_files(folder: Path) -> AdapterFiles:
    """Returns what the files of an adapter hold.

    Raises:
        InvalidAdapter: They can not be read, are of another kind than plain LoRA, or hold NaN.
    """
    scale = _read_scale(folder / ADAPTER_CONFIG)
    with _opened_weights(folder) as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise InvalidAdapter(f"{folder}: the weights {name} hold NaN or infinity: {_FETCH}")
    return AdapterFiles(scale, weights)


@contextmanager
def _opened_weights(folder: Path) -> Iterator[Any]:
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InvalidAdapter(f"the adapter {folder} can not be read: {error}; {_FETCH}") from error


def _read_scale(file: Path) -> float:
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
