"""Reads a sentence-transformers folder: its files, their digest, and whether the embedder can run it."""

import errno
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.atomic_files import atomic_file


class UnsupportedEmbeddingModel(ValueError):
    """The folder is not a model that the embedder can run as its authors meant it."""


Pooling = Literal["mean", "cls", "lasttoken"]

# sentence-transformers wrote one flag a mode until version 5 and writes one name since.
_POOLING_FLAGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
}

_OFFSET_POSITIONS = frozenset(
    ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text")
)
"""Model types that count positions from one after the padding's id: as many fewer tokens fit."""

_ALWAYS_ONE_OF: dict[str, tuple[object, ...]] = {
    "transformer_task": ("feature-extraction",),
    "module_output_name": ("token_embeddings",),
    "do_lower_case": (False,),
    "query_expansion": (None,),
    "query_length": (None,),
    "document_length": (None,),
}
"""Keys of `sentence_bert_config.json` that change the vectors, and the values that the embedder computes."""


@dataclass(frozen=True)
class DenseLayer:
    """A linear layer with its activation, after the pooling.

    Attributes:
        path: Its folder, relative to the model's.
        inputs: Length of the vector that goes in.
        outputs: Length of the vector that comes out.
        bias: Whether it adds one.
        activation: The name of a class of `torch.nn`.
        residual: Whether its input is added to its output.
    """

    path: str
    inputs: int
    outputs: int
    bias: bool
    activation: str
    residual: bool


@dataclass(frozen=True)
class ModelFolder:
    """A sentence-transformers model folder that the embedder can run.

    Attributes:
        path: The folder.
        transformer: The folder of the transformer and its tokenizer, which may be the same.
        max_tokens: The most tokens that the model reads, the special ones included.
        pad_id: The token that fills up shorter texts of a batch.
        pooling: How one vector is made from those of the tokens.
        dense: Layers after the pooling, in order.
        dimension: Length of a vector, before it is truncated.
        truncated_dimension: How many leading values are kept; None for all.
        query_prompt: The text before each question.
        document_prompt: The text before each other text.
        files: The files that decide its vectors, relative to the folder, in order.
    """

    path: Path
    transformer: Path
    max_tokens: int
    pad_id: int
    pooling: Pooling
    dense: tuple[DenseLayer, ...]
    dimension: int
    truncated_dimension: int | None
    query_prompt: str
    document_prompt: str
    files: tuple[str, ...]

    @property
    def tokenizer_path(self) -> Path:
        """The path of `tokenizer.json`."""
        return self.transformer / "tokenizer.json"


def read_model_folder(path: Path) -> ModelFolder:
    """Returns a model folder, after checking that the embedder would compute the vectors its authors meant.

    The supported models are a transformer, pooling by the mean, the first or the last token, dense layers and
    normalisation, with prompts before questions and documents.

    Raises:
        UnsupportedEmbeddingModel: A file is missing, or the model does anything else.
    """
    modules = _json(path, "modules.json")
    kinds = [module["type"].rpartition(".")[2] for module in modules]
    after = [kind for kind in kinds[2:] if kind not in ("Dense", "Normalize", "Dropout")]
    if kinds[:2] != ["Transformer", "Pooling"] or after:
        raise UnsupportedEmbeddingModel(
            f"{path / 'modules.json'} has the modules {', '.join(kinds)}; supported are Transformer, "
            "Pooling, and then Dense and Normalize: choose a model with these"
        )
    inside, pooling = modules[0]["path"], modules[1]["path"]
    transformer = path / inside if inside else path
    pooled = _json(path, f"{pooling}/config.json")
    prompts, truncated = _prompts(path)
    _require_known_settings(transformer)
    if not pooled.get("include_prompt", True):
        raise UnsupportedEmbeddingModel(
            f"{path / pooling / 'config.json'} leaves prompts out of the pooling (include_prompt: false), "
            "which is not supported: choose another model"
        )
    dense = tuple(
        _dense_layer(path, module["path"]) for module in modules[2:] if module["type"].endswith("Dense")
    )
    dimension = pooled.get("embedding_dimension") or pooled.get("word_embedding_dimension") or 0
    for layer in dense:
        if layer.inputs != dimension:
            raise UnsupportedEmbeddingModel(
                f"{path / layer.path / 'config.json'} takes vectors of {layer.inputs} values, and what comes "
                f"before it makes {dimension}: files of different models lie in one folder, fetch it anew"
            )
        dimension = layer.outputs
    config = _json(transformer, "config.json")
    return ModelFolder(
        path=path,
        transformer=transformer,
        max_tokens=_max_tokens(transformer, config),
        pad_id=config.get("pad_token_id") or 0,
        pooling=_pooling(path / pooling / "config.json", pooled),
        dense=dense,
        dimension=dimension,
        truncated_dimension=truncated,
        query_prompt=prompts[0],
        document_prompt=prompts[1],
        files=_files(path, inside, pooling, dense),
    )


def _files(path: Path, inside: str, pooling: str, dense: Sequence[DenseLayer]) -> tuple[str, ...]:
    transformer = path / inside if inside else path
    before = f"{inside}/" if inside else ""
    weights = sorted(file.name for file in transformer.glob("*.safetensors"))
    if not weights:
        raise UnsupportedEmbeddingModel(
            f"{transformer} has no *.safetensors: save the model's weights in that form"
        )
    if not (transformer / "tokenizer.json").is_file():
        raise UnsupportedEmbeddingModel(
            f"{transformer} has no tokenizer.json: save the model with a fast tokenizer"
        )
    files = ["modules.json", f"{pooling}/config.json"]
    files += [before + name for name in ("config.json", "tokenizer.json", *weights)]
    for layer in dense:
        files += [f"{layer.path}/{name}" for name in ("config.json", "model.safetensors")]
    optional = ["config_sentence_transformers.json"]
    optional += [before + name for name in ("sentence_bert_config.json", "tokenizer_config.json")]
    return tuple(sorted({*files, *(name for name in optional if (path / name).is_file())}))


def _json(path: Path, name: str) -> Any:
    try:
        return json.loads((path / name).read_text())
    except FileNotFoundError:
        raise UnsupportedEmbeddingModel(
            f"{path} has no {name}: it is not a sentence-transformers folder"
        ) from None
    except ValueError as error:
        raise UnsupportedEmbeddingModel(f"{path / name} is not JSON: {error}") from error


def _pooling(path: Path, config: dict[str, Any]) -> Pooling:
    modes = [config["pooling_mode"]] if "pooling_mode" in config else []
    modes += [
        _POOLING_FLAGS.get(name, name)
        for name, on in config.items()
        if name.startswith("pooling_mode_") and on is True
    ]
    modes = list(dict.fromkeys(str(mode) for mode in modes))
    for known in _POOLING_FLAGS.values():
        if modes == [known]:
            return known
    raise UnsupportedEmbeddingModel(
        f"{path} pools by {' and '.join(modes) or 'nothing'}; supported is one of "
        f"{', '.join(_POOLING_FLAGS.values())}: choose another model"
    )


def _prompts(path: Path) -> tuple[tuple[str, str], int | None]:
    """The prompts of questions and of documents, and the dimension that vectors are truncated to."""
    name = "config_sentence_transformers.json"
    config = _json(path, name) if (path / name).is_file() else {}
    prompts = config.get("prompts") or {}
    # By the names that sentence-transformers' encode_query and encode_document look for, in their order.
    query = prompts.get("query") or ""
    document = next(filter(None, (prompts.get(each) for each in ("document", "passage", "corpus"))), "")
    return (query, document), config.get("truncate_dim")


def _require_known_settings(transformer: Path) -> None:
    name = "sentence_bert_config.json"
    config = _json(transformer, name) if (transformer / name).is_file() else {}
    for key, known in _ALWAYS_ONE_OF.items():
        if config.get(key, known[0]) not in known:
            raise UnsupportedEmbeddingModel(
                f"{transformer / name} has {key} {config[key]!r}; supported is {known[0]!r}"
            )
    reads = config.get("modality_config", {}).get("text", {"method_output_name": "last_hidden_state"})
    if reads.get("method_output_name") != "last_hidden_state":
        raise UnsupportedEmbeddingModel(
            f"{transformer / name} reads {reads.get('method_output_name')!r} of the transformer; supported "
            "is 'last_hidden_state'"
        )


def _dense_layer(path: Path, name: str) -> DenseLayer:
    config = _json(path, f"{name}/config.json")
    place = path / name / "config.json"
    module, _, activation = config.get("activation_function", "torch.nn.modules.activation.Tanh").rpartition(
        "."
    )
    if not module.startswith("torch.nn.modules."):  # nothing else is imported: it would run foreign code
        raise UnsupportedEmbeddingModel(f"{place} has the activation {module}.{activation}, not torch's own")
    between = {config.get(key) or "sentence_embedding" for key in ("module_input_name", "module_output_name")}
    if between != {"sentence_embedding"}:
        raise UnsupportedEmbeddingModel(f"{place} reads or writes {between}; supported is sentence_embedding")
    if config.get("use_residual") and config["in_features"] != config["out_features"]:
        raise UnsupportedEmbeddingModel(f"{place} has a residual of another length, which is not supported")
    if not (path / name / "model.safetensors").is_file():
        raise UnsupportedEmbeddingModel(
            f"{path / name} has no model.safetensors: save the model's weights in that form"
        )
    return DenseLayer(
        name,
        config["in_features"],
        config["out_features"],
        config.get("bias", True),
        activation,
        bool(config.get("use_residual")),
    )


def _max_tokens(transformer: Path, config: dict[str, Any]) -> int:
    positions = config.get("max_position_embeddings") or 512
    if config.get("model_type") in _OFFSET_POSITIONS:
        positions -= (config.get("pad_token_id") or 0) + 1
    limits = [positions]
    for name, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        limit = _json(transformer, name).get(key) if (transformer / name).is_file() else None
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
