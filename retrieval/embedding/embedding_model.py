"""The embedding model of a state folder, which is loaded only when a text has to be embedded."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from retrieval.embedding.config import (
    DEFAULT_MODEL_CACHE,
    EmbedderConfig,
    installable_embedding_models,
    packaged_embedding_model,
)
from retrieval.embedding.embedder import (
    Embedder,
    converted_digest,
    converted_model_path,
    embedding_digest,
)
from retrieval.embedding.model_folder import ModelFolder, read_model_folder
from retrieval.embedding.model_signature import require_trusted_model


class TextEmbedder(Protocol):
    """A model that turns texts into unit vectors: `Embedder` here, or `EndpointEmbedder` at a service.

    Attributes:
        digest: Hex SHA-256 that identifies the vectors.
        dimension: The length of a vector.
    """

    digest: str
    dimension: int

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the unit vectors of documents' texts: float32 of shape (texts, dimension)."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """Returns the unit vectors of questions: float32 of shape (texts, dimension)."""
        ...

    def has_words_of(self, text: str) -> bool:
        """Returns whether the model's vocabulary has the words of a text; else its vectors say little."""
        ...


def load_embedder(config: EmbedderConfig, cache: Path, threads: int | None = None) -> TextEmbedder:
    """Returns the embedder that a configuration names, which `EmbeddingModel.prepare` has prepared."""
    if config.endpoint.url:
        from retrieval.embedding.endpoint_embedder import EndpointEmbedder  # imports HTTP, which few need

        return EndpointEmbedder(config, cache)
    return Embedder(config, cache, threads)


@dataclass(frozen=True)
class EmbeddingModel:
    """The embedding model of one state folder.

    Attributes:
        config: The model and its limits.
        cache: The folder of the converted model, or of an endpoint's identity.
    """

    config: EmbedderConfig
    cache: Path

    @classmethod
    def of(cls, config: EmbedderConfig, state: Path) -> "EmbeddingModel":
        """Returns a configuration's model: one that was converted at set-up, or another one."""
        at_set_up = {packaged_embedding_model(), *map(Path, installable_embedding_models())}
        shared = config.model in at_set_up and not config.endpoint.url
        return cls(config, DEFAULT_MODEL_CACHE if shared else state / "models")

    @property
    def name(self) -> str:
        """What the model is called in reports: its folder, or its name at an endpoint."""
        endpoint = self.config.endpoint
        return f"{endpoint.model} at {endpoint.url}" if endpoint.url else str(self.config.model)

    @cached_property
    def _folder(self) -> ModelFolder:
        require_trusted_model(self.config.model_path, self.cache)
        return read_model_folder(self.config.model_path)

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 over weights, tokenizer, configuration and quantisation, or an endpoint's identity."""
        if self.config.endpoint.url:
            return self.embedder.digest
        return embedding_digest(self._folder, self.cache, self.config)

    @property
    def tokenizer_path(self) -> Path:
        """The model's `tokenizer.json`; that of `model` where an endpoint makes the vectors."""
        return self._folder.tokenizer_path

    @property
    def converted_path(self) -> Path:
        """The file of the model, converted for OpenVINO; it may not be there yet."""
        digest = converted_digest(self._folder, self.cache, self.config.quantization)
        return converted_model_path(self.cache, digest)

    def prepare(self) -> None:
        """Converts the model unless that has been done, or asks an endpoint for its identity."""
        if self.config.endpoint.url:
            load_embedder(self.config, self.cache)
        else:
            Embedder.prepare(self.config, self.cache)

    @cached_property
    def embedder(self) -> TextEmbedder:
        """The model ready to run; it is converted and loaded at the first use."""
        if not self.config.endpoint.url:
            require_trusted_model(self.config.model_path, self.cache)
            Embedder.prepare(self.config, self.cache)
        return load_embedder(self.config, self.cache)
