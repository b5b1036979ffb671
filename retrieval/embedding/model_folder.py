"""Reads a sentence-transformers folder: its files, their digest, and whether the embedder can run it."""

import errno
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.atomic_files import atomic_file


class UnsupportedEmbeddingModel(ValueError):
    """The folder is not a model that the embedder can run as its authors meant it."""


@dataclass(frozen=True)
class ModelFolder:
    """A sentence-transformers model folder that the embedder can run.

    Attributes:
        path: The folder.
        max_tokens: The most tokens that the model reads, the special ones included.
        files: The files that decide its vectors, relative to the folder, in order.
    """

    path: Path
    max_tokens: int
    files: tuple[str, ...]

    @property
    def tokenizer_path(self) -> Path:
        """The path of `tokenizer.json`."""
        return self.path / "tokenizer.json"


def read_model_folder(path: Path) -> ModelFolder:
    """Returns a model folder, after checking that the embedder would compute the vectors its authors meant.

    The supported models are a transformer with mean pooling, optional normalisation, and no prompt before the
    text. Nearly all small English embedders are such models.

    Raises:
        UnsupportedEmbeddingModel: A file is missing, or the model does anything else.
    """
    modules = _json(path, "modules.json")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise UnsupportedEmbeddingModel(
            f"{path} has the modules {', '.join(kinds)}; supported are Transformer, Pooling and Normalize"
        )
    transformer, pooling = modules[0]["path"], modules[1]["path"]
    if transformer:
        raise UnsupportedEmbeddingModel(
            f"{path} keeps its transformer in {transformer!r}; supported is the folder itself"
        )
    _require_mean_pooling(path, _json(path, f"{pooling}/config.json"))
    _require_no_prompt(path)
    weights = sorted(file.name for file in path.glob("*.safetensors"))
    if not weights:
        raise UnsupportedEmbeddingModel(f"{path} has no *.safetensors: save the model's weights in that form")
    if not (path / "tokenizer.json").is_file():
        raise UnsupportedEmbeddingModel(f"{path} has no tokenizer.json: save the model with a fast tokenizer")
    optional = ["sentence_bert_config.json", "config_sentence_transformers.json", "tokenizer_config.json"]
    files = ["modules.json", "config.json", f"{pooling}/config.json", "tokenizer.json", *weights]
    files += [name for name in optional if (path / name).is_file()]
    return ModelFolder(path, _max_tokens(path), tuple(sorted(files)))


def _json(path: Path, name: str) -> Any:
    try:
        return json.loads((path / name).read_text())
    except FileNotFoundError:
        raise UnsupportedEmbeddingModel(
            f"{path} has no {name}: it is not a sentence-transformers folder"
        ) from None
    except json.JSONDecodeError as error:
        raise UnsupportedEmbeddingModel(f"{path / name} is not JSON: {error}") from error


def _require_mean_pooling(path: Path, config: dict[str, Any]) -> None:
    # sentence-transformers wrote one flag a mode until version 5 and writes one name since.
    modes = [config["pooling_mode"]] if "pooling_mode" in config else []
    modes += [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    if modes not in (["mean"], ["pooling_mode_mean_tokens"]):
        raise UnsupportedEmbeddingModel(f"{path} pools by {modes}; supported is the mean over tokens")


def _require_no_prompt(path: Path) -> None:
    for name in ("config_sentence_transformers.json", "sentence_bert_config.json"):
        if not (path / name).is_file():
            continue
        config = _json(path, name)
        prompts = {key: text for key, text in config.get("prompts", {}).items() if text}
        if config.get("default_prompt_name") or prompts:
            raise UnsupportedEmbeddingModel(
                f"{path} puts a prompt before its texts ({prompts}); supported is none"
            )
        if config.get("do_lower_case"):
            raise UnsupportedEmbeddingModel(
                f"{path} lower-cases outside its tokenizer; supported is inside it"
            )


def _max_tokens(path: Path) -> int:
    positions = _json(path, "config.json").get("max_position_embeddings", 512)
    limits = [positions]
    for name, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        limit = _json(path, name).get(key) if (path / name).is_file() else None
        if limit:
            limits.append(int(limit))
    return min(limits)


def model_folder_digest(folder: ModelFolder, cache: Path) -> str:
    """Returns the hex SHA-256 of the names and bytes of the model's files, which identifies its vectors.

    The digest is cached in `cache` by the files' sizes and times, so that weights are not hashed at each
    start.
    """
    state = hashlib.sha256(str(folder.path.resolve()).encode())
    for name in folder.files:
        stat = (folder.path / name).stat()
        state.update(f"\x1f{name}\x1f{stat.st_size}\x1f{stat.st_mtime_ns}".encode())
    remembered = cache / "digests" / state.hexdigest()
    if remembered.is_file():
        return remembered.read_text()
    digest = hashlib.sha256()
    for name in folder.files:
        with (folder.path / name).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{name}\x1f{content}\n".encode())
    write_model_cache(remembered, digest.hexdigest())
    return digest.hexdigest()


def write_model_cache(path: Path, text: str) -> None:
    """Writes a small file into the cache, or does nothing if the cache may not be written.

    Raises:
        OSError: The disk is full, or there is another fault than missing permissions.
    """
    try:
        with atomic_file(path) as fresh:
            fresh.write_text(text)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
