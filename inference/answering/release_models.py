"""The embedding models of releases: the model in use and older ones, each loaded only once."""

from functools import lru_cache
from pathlib import Path

from retrieval.embedding.config import EmbedderConfig, recorded_model_path
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.types import IndexRelease
from retrieval.search.searcher import QueryModelMismatch

MAX_OLD_MODELS = 2
"""How many models of earlier releases stay loaded; the least recently used goes first."""


class ReleaseModels:
    """The embedding models of releases, by digest.

    Args:
        current: The embedding model in use.
        state: The state folder, which holds converted models.
    """

    def __init__(self, current: EmbeddingModel, state: Path) -> None:
        self.current = current
        self._state = state
        self._old = lru_cache(maxsize=MAX_OLD_MODELS)(self._find)

    def model_of(self, release: IndexRelease) -> EmbeddingModel:
        """Returns the model that made a release's vectors.

        Raises:
            QueryModelMismatch: The model is not where it was when the release was made.
        """
        digest = release.details.model_digest
        if digest == self.current.digest:
            return self.current
        config = release.details.embedder
        try:
            return self._old(digest, config.model_dump_json())
        except FileNotFoundError as error:
            raise QueryModelMismatch(
                f"release {release.release_id} was made with model {digest}, which is no longer at "
                f"{config.model}: put it back there, or search with --mode lexical"
            ) from error

    def _find(self, digest: str, config_json: str) -> EmbeddingModel:
        # An exception is not kept, so a model that is put back is found.
        config = EmbedderConfig.model_validate_json(config_json)
        model_path = recorded_model_path(config.model, self._state / "models")
        config = config.model_copy(update={"model": model_path})
        if not config.model_path.is_dir():
            raise FileNotFoundError(config.model)
        model = EmbeddingModel.of(config, self._state)
        if model.digest != digest:
            raise FileNotFoundError(config.model)
        return model
