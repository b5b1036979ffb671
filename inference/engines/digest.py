"""The digest of an engine: what decides its answers beside the question and the passages."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a worker's environment need not have pydantic
    from pydantic import BaseModel

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""The two files of an adapter in PEFT's form."""
_READ_BYTES = 1 << 20


def engine_digest(name: str, *settings: "BaseModel | str | int") -> str:
    """Returns 16 hex digits of a hash over an engine's name, settings, prompt and the digest of its model."""
    parts = [each if isinstance(each, str | int) else each.model_dump(mode="json") for each in settings]
    return hashlib.sha256(json.dumps([name, *parts], sort_keys=True).encode()).hexdigest()[:16]


def model_files_digest(path: Path) -> str:
    """Returns the hex SHA-256 over the files of a model: one file, or all of a folder with their names."""
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return _files_digest(path, files)


def adapter_digest(folder: Path) -> str:
    """Returns the hex SHA-256 over the two files of an adapter, with their names."""
    return _files_digest(folder, [folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS])


def _files_digest(path: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        name = str(file.relative_to(path)) if file != path else ""
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while part := content.read(_READ_BYTES):
                digest.update(part)
    return digest.hexdigest()


def model_name(path: Path) -> str:
    """Returns the name of a model: its folder's, or its GGUF file's without the ending."""
    return path.name.removesuffix(".gguf")
