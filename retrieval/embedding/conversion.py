"""Loads an embedding model with torch, which only this module needs, and converts it to OpenVINO."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from common.atomic_files import atomic_folder
from retrieval.embedding.model_folder import DenseLayer, ModelFolder, Pooling, UnsupportedEmbeddingModel
from retrieval.embedding.tokenization import load_text_tokenizer

_LEAST_COSINE = 0.9999
"""Of the converted model's vectors to those of the model itself, in float32."""

_UNUSED_WEIGHTS = ("pooler.", "decoder.")
"""Parts that folders may leave out, because no vector depends on them."""


class ConversionFault(RuntimeError):
    """The converted model does not compute what the model computes."""


class _TextEmbedder(torch.nn.Module):
    """A transformer, the pooling of its tokens' vectors, dense layers, and length 1.

    Texts of a batch are padded at their end, so that the first token is the text's own.
    """

    def __init__(self, transformer: torch.nn.Module, pooling: Pooling, dense: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.pooling = pooling
        self.dense = dense

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Vectors of shape (batch, dimension) from ids and mask of shape (batch, tokens)."""
        hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return torch.nn.functional.normalize(self.dense(self._pooled(hidden, attention_mask)), dim=-1)

    def _pooled(self, hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "lasttoken":
            last = (attention_mask.sum(1, keepdim=True) - 1).clamp(min=0).unsqueeze(-1)
            return hidden.gather(1, last.expand(-1, -1, hidden.shape[-1])).squeeze(1)
        # The mean over tokens (Reimers and Gurevych, 2019).
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)


class _Dense(torch.nn.Module):
    """A linear layer with its activation, and its input added where the model has it so."""

    def __init__(self, folder: Path, layer: DenseLayer) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)
        kind = getattr(torch.nn, layer.activation, None)
        if kind is None or not issubclass(kind, torch.nn.Module):
            raise UnsupportedEmbeddingModel(
                f"{folder / 'config.json'} has the activation {layer.activation}, which torch does not know"
            )
        self.activation = kind()
        self.residual = layer.residual
        weights = load_file(folder / "model.safetensors")
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            raise UnsupportedEmbeddingModel(
                f"{folder / 'model.safetensors'} does not hold the layer that config.json beside it "
                f"describes: {error}"
            ) from error
        self.float()

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors of shape (batch, outputs) from (batch, inputs)."""
        made = self.activation(self.linear(vectors))
        return made + vectors if self.residual else made


def load_torch_embedder(folder: ModelFolder, attention: str) -> torch.nn.Module:
    """Returns a model as torch computes it: ids and mask, (batch, tokens), to vectors, (batch, dimension).

    Args:
        folder: The model.
        attention: The name of transformers' implementation of attention, `eager` or `sdpa`.

    Raises:
        UnsupportedEmbeddingModel: The folder lacks weights, has weights that are no numbers, or needs code
            that only the folder's authors have.
    """
    dense = torch.nn.Sequential(*(_Dense(folder.path / layer.path, layer) for layer in folder.dense))
    model = _TextEmbedder(_load_transformer(folder, attention), folder.pooling, dense).eval()
    _require_numbers(folder, model)
    return model


def convert_to_openvino(folder: ModelFolder, target: Path, texts: Sequence[str]) -> None:
    """Converts a model to OpenVINO and writes it to `target` (`…/model.xml`) atomically.

    Args:
        folder: The model.
        target: The file to write.
        texts: Texts of several lengths, on which the converted model is compared with the model itself.

    Raises:
        UnsupportedEmbeddingModel: The folder lacks weights, has weights that are no numbers, or needs code or
            a tokenizer that only the folder's authors have.
        ConversionFault: The converted model makes other vectors.
    """
    # Eager attention traces to a graph that OpenVINO fuses itself.
    model = load_torch_embedder(folder, attention="eager")
    batches = _tokenize(folder, texts)
    expected = [_vectors(model, batch) for batch in batches]
    if expected[0].shape[1] != folder.dimension:
        raise UnsupportedEmbeddingModel(
            f"{folder.path} makes vectors of {expected[0].shape[1]} values, and its configuration says "
            f"{folder.dimension}: its files are of different models, fetch it anew"
        )
    with atomic_folder(target.parent) as scratch:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns of each shape that transformers checks
            converted = _convert(folder, model, batches[0])
        openvino.save_model(converted, scratch / target.name, compress_to_fp16=False)
        compiled = openvino.Core().compile_model(
            str(scratch / target.name), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        found = [compiled({name: each.numpy() for name, each in batch.items()})[0] for batch in batches]
        _require_equal(folder, torch.cat([torch.from_numpy(each) for each in found]), torch.cat(expected))


def _convert(folder: ModelFolder, model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> "openvino.Model":
    try:
        return openvino.convert_model(model, example_input=batch)
    except RuntimeError:
        pass  # Gemma's attention masks can not be traced; the exporter is slower and takes them
    sizes = {0: torch.export.Dim("texts", min=1), 1: torch.export.Dim("tokens", min=1, max=folder.max_tokens)}
    try:
        exported = torch.export.export(
            model, (), kwargs=batch, dynamic_shapes=dict.fromkeys(batch, sizes), strict=False
        )
        return openvino.convert_model(exported)
    except Exception as error:
        # Whatever it is: the exporter and OpenVINO raise errors of many kinds for what they do not know.
        raise ConversionFault(
            f"{folder.path} can not be converted to OpenVINO {openvino.__version__} "
            f"({str(error).strip().splitlines()[0][:200]}): choose another model, or serve this one and set "
            "HEADWATER_RECIPE__EMBEDDER__ENDPOINT__URL"
        ) from error


def _vectors(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        vectors: torch.Tensor = model(**batch)
    return vectors


def _load_transformer(folder: ModelFolder, attention: str) -> torch.nn.Module:
    disable_progress_bar()  # a bar for what takes a second, in logs too
    set_verbosity_error()  # it warns of what a saved model never said
    try:
        # Files on this machine only.
        transformer, found = AutoModel.from_pretrained(
            folder.transformer,
            attn_implementation=attention,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (ValueError, RuntimeError, KeyError, ImportError) as error:
        raise UnsupportedEmbeddingModel(
            f"transformers can not load {folder.transformer}: {error}. The folder's own code is never run; "
            "choose a model whose architecture transformers has"
        ) from error
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(_UNUSED_WEIGHTS))
    if missing:
        raise UnsupportedEmbeddingModel(
            f"{folder.transformer} lacks {len(missing)} weights of the model that config.json beside them "
            f"describes, the first {missing[0]}: fetch the model anew"
        )
    if transformer.config.is_encoder_decoder:
        transformer = transformer.get_encoder()
    if hasattr(transformer.config, "use_cache"):
        transformer.config.use_cache = False  # keys and values of one pass are of no use to another
    return transformer.eval()


def _require_numbers(folder: ModelFolder, model: torch.nn.Module) -> None:
    for name, weights in model.named_parameters():
        if not torch.isfinite(weights).all():
            raise UnsupportedEmbeddingModel(
                f"{folder.path} holds values that are no finite numbers in the weights {name}: each vector "
                "would be NaN. Fetch the model anew, or choose another one"
            )


def _tokenize(folder: ModelFolder, texts: Sequence[str]) -> list[dict[str, torch.Tensor]]:
    """Returns a padded batch of the shorter texts and one of the longest, which has another length.

    Raises:
        UnsupportedEmbeddingModel: The tokenizer is not the one that transformers loads.
    """
    own = [encoding.ids for encoding in load_text_tokenizer(folder).encode_batch_fast(list(texts))]
    tokenizer: Any = AutoTokenizer.from_pretrained(
        folder.transformer, local_files_only=True, trust_remote_code=False
    )
    theirs = tokenizer(list(texts), truncation=True, max_length=folder.max_tokens)["input_ids"]
    for text, ours, other in zip(texts, own, theirs, strict=True):
        if ours != other:
            raise UnsupportedEmbeddingModel(
                f"{folder.tokenizer_path} and the tokenizer that transformers makes of {folder.transformer} "
                f"divide {text[:40]!r} differently ({ours[:8]}… and {other[:8]}…): save the tokenizer anew "
                "with transformers' save_pretrained"
            )
    own.sort(key=len)
    return [_padded(folder, own[: len(own) // 2]), _padded(folder, own[-1:])]


def _padded(folder: ModelFolder, rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[folder.pad_id] * (width - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }


def _require_equal(folder: ModelFolder, found: torch.Tensor, expected: torch.Tensor) -> None:
    cosine = float((found * expected).sum(1).min())
    if not cosine >= _LEAST_COSINE:
        raise ConversionFault(
            f"{folder.path}, converted to OpenVINO {openvino.__version__}, makes vectors of cosine "
            f"{cosine:.4f} to its own, and {_LEAST_COSINE} is wanted: choose another model, or serve this "
            "one and set HEADWATER_RECIPE__EMBEDDER__ENDPOINT__URL"
        )
