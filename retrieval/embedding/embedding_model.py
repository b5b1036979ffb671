"""The embedding model of a state folder, which is loaded only when a text has to be embedded."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from retrieval.embedding.embedder import (
    DEFAULT_MODEL_CACHE,
    Embedder,
    EmbedderConfig,
    embedding_digest,
    packaged_embedding_model,
)
from retrieval.embedding.model_folder import ModelFolder, read_model_folder


@dataclass(frozen=True)
class EmbeddingModel:
    """The embedding model of one state folder.

    Attributes:
        config: The model and its limits.
        cache: The folder of the converted model.
    """

    config: EmbedderConfig
    cache: Path

    @classmethod
    def of(cls, config: EmbedderConfig, state: Path) -> "EmbeddingModel":
        """Returns a configuration's model: the packaged one, converted at set-up, or another one."""
        packaged = config.model == packaged_embedding_model()
        return cls(config, DEFAULT_MODEL_CACHE if packaged else state / "models")

    @cached_property
    def _folder(self) -> ModelFolder:
        return read_model_folder(self.config.model)

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 over weights, tokenizer, configuration and quantisation."""
        return embedding_digest(self._folder, self.cache, self.config.quantization)

    @property
    def tokenizer_path(self) -> Path:
        """The model's `tokenizer.json`."""
        return self._folder.tokenizer_path

    def prepare(self) -> None:
        """Converts the model unless that has been done; see `Embedder.prepare`."""
        Embedder.prepare(self.config, self.cache)

    @cached_property
    def embedder(self) -> Embedder:
        """The model ready to run; it is converted and loaded at the first use."""
        self.prepare()
        return Embedder(self.config, self.cache)
