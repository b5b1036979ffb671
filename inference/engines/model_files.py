"""What is wrong with the files of a causal language model, as far as it shows before anything is loaded."""

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from inference.engines.protocol import EngineError

_LAYER = re.compile(r"\.(\d+)\.")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class InvalidModel(EngineError):
    """A model can not be used; the message names the model, the place of the fault and the cure."""


def check_model_files(path: Path) -> None:
    """Refuses what can be refused without loading anything.

    Args:
        path: A folder in transformers' form, or a `.gguf` file.

    Raises:
        InvalidModel: There is no model, or it can not be used.
    """
    if not path.exists():
        raise InvalidModel(f"no model at {path}: name a model's folder or a .gguf file")
    if path.is_dir():
        _check_folder(path)
    elif path.suffix != ".gguf":
        raise InvalidModel(f"{path} is no model: name a model's folder or a .gguf file")
    elif lacking := [name for name in ("gguf", "accelerate") if find_spec(name) is None]:
        raise InvalidModel(
            f"{path} is a GGUF file, which can not be read without the packages {' and '.join(lacking)}: "
            f"`{sys.executable} -m pip install {' '.join(lacking)}`"
        )


def _check_folder(folder: Path) -> None:
    config = _read_json(folder / "config.json", "it describes the model")
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).exists() and "auto_map" in _read_json(folder / name, ""):
            raise InvalidModel(
                f"{folder / name} asks for code of its own (auto_map), and such code is never run: use a "
                "model whose architecture transformers knows"
            )
    kind, named = config.get("model_type"), config.get("architectures") or []
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    classes = {each for value in known.values() for each in ([value] if isinstance(value, str) else value)}
    if kind not in known or (named and not classes & set(named)):
        raise InvalidModel(
            f"{folder / 'config.json'} names the kind {kind} ({', '.join(map(str, named))}), which "
            "is no causal language model that this transformers knows: use another model, or a newer "
            "transformers"
        )
    layers = config.get("num_hidden_layers")
    numbers = {int(each[1]) for name in _tensor_names(folder) if (each := _LAYER.search(name))}
    if isinstance(layers, int) and numbers and layers != len(numbers):
        raise InvalidModel(
            f"{folder / 'config.json'} says {layers} layers and the weights have {len(numbers)}: fetch both "
            "files of one model again"
        )


def _read_json(file: Path, what: str) -> dict[str, Any]:
    if not file.is_file():
        raise InvalidModel(f"{file.parent} has no {file.name}, {what}: fetch the whole model")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is no JSON object")
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{file} can not be read: {error}; fetch it again") from error
    return found


def _tensor_names(folder: Path) -> list[str]:
    """Returns the names of all tensors, after a look whether each file of them is whole."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        weight_map = _read_json(index, "").get("weight_map")
        wanted = weight_map.values() if isinstance(weight_map, dict) else [None]
        files = []
        for name in dict.fromkeys(wanted):
            if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
                raise InvalidModel(
                    f"{index} names {name!r}, which is no file beside it: fetch the whole model"
                )
            files.append(folder / name)
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(each.name for each in folder.iterdir() if each.suffix in _PICKLED)
        if pickled:
            raise InvalidModel(
                f"{folder} has its weights in {pickled[0]}, a pickle, which can run code when it is read: "
                "fetch the model in safetensors or GGUF"
            )
        raise InvalidModel(f"{folder} has no weights (*.safetensors): fetch the whole model")
    names: list[str] = []
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                names += tensors.keys()
        except (SafetensorError, OSError) as error:
            raise InvalidModel(f"{file} is damaged or cut off ({error}): fetch it again") from error
    return names
