"""The digest of an engine: what decides its answers beside the question and the passages."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import common
import inference
import retrieval
from inference.engines.protocol import EngineChanged

if TYPE_CHECKING:  # a worker's environment need not have pydantic
    from pydantic import BaseModel

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
"""The two files of an adapter in PEFT's form."""
_READ_BYTES = 1 << 20
_DECIDING = {
    inference: ("answering", "engines", "engines/torch", "engines/worker", "prompting", "routing", "scoring"),
    common: ("citation_markers.py", "scripts.py"),
    retrieval: ("chunking/sentences.py", "embedding", "language", "rerank", "search", "support"),
}
"""Modules, and folders of them, by the package that they are in."""


@cache
def code_digest() -> str:
    """Returns the hex SHA-256 over the sources that decide what is answered to a question and passages.

    That is the code that searches, embeds and reranks, writes prompts, decodes, scores and reads replies. Not
    in it are training and the making of an index, whose results have digests of their own; commands, tables
    and jobs, which pass on what was answered; and libraries: their versions are locked, and whoever changes
    the lock has to measure anew.

    It is computed once for each process, from the files that are installed then.
    """
    digest = hashlib.sha256()
    for package, places in _DECIDING.items():
        root = Path(package.__path__[0])
        for file in sorted(file for place in places for file in _modules(root / place)):
            content = file.read_bytes()
            digest.update(f"{package.__name__}/{file.relative_to(root)}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def _modules(place: Path) -> list[Path]:
    return [place] if place.suffix else list(place.glob("*.py"))


def engine_digest(name: str, *settings: "BaseModel | str | int") -> str:
    """Returns 16 hex digits of a hash over an engine's name, the code, and what else decides its answers.

    Args:
        name: The engine's name.
        settings: Its settings, its prompt and the digests of its models.
    """
    parts = [each if isinstance(each, str | int) else each.model_dump(mode="json") for each in settings]
    return hashlib.sha256(json.dumps([name, code_digest(), *parts], sort_keys=True).encode()).hexdigest()[:16]


def model_files_digest(path: Path) -> str:
    """Returns the hex SHA-256 over the files of a model: one file, or all of a folder with their names."""
    return _files_digest(path, _files(path))


class ModelFiles:
    """The files of a model as an engine was made of them, which nobody may replace while it answers.

    Attributes:
        digest: `model_files_digest` of them.
    """

    def __init__(self, path: Path) -> None:
        """Reads them all.

        Args:
            path: A file or a folder.
        """
        self._path = path
        self._state = _state(path)
        self.digest = model_files_digest(path)

    def require_unchanged(self) -> None:
        """Returns if they are the same; they are read again only where sizes, times or inodes differ.

        Raises:
            EngineChanged: They are not.
        """
        try:
            state = _state(self._path)
            found = self.digest if state == self._state else model_files_digest(self._path)
        except OSError as error:
            raise EngineChanged(f"{self._path} can not be read any more: {error}; put it back") from error
        if found != self.digest:
            raise EngineChanged(
                f"the files of {self._path} were replaced while it answers: {self.digest[:16]} was loaded, "
                f"and {found[:16]} is there now; put back what was there, or start again with another engine"
            )
        self._state = state


def adapter_digest(folder: Path) -> str:
    """Returns the hex SHA-256 over the two files of an adapter, with their names."""
    return _files_digest(folder, [folder / ADAPTER_CONFIG, folder / ADAPTER_WEIGHTS])


def _files(path: Path) -> list[Path]:
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def _state(path: Path) -> list[tuple[str, int, int, int]]:
    stats = [(str(file), file.stat()) for file in _files(path)]
    return [(name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats]


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
