"""Addresses of models in settings: NAME@VERSION, NAME@live and digests stand for folders of the registry."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retrieval.embedding.config import (
    EmbedderConfig,
    embedding_model_command,
    installable_embedding_models,
    packaged_embedding_model,
)
from training.registry.versions import ModelRegistry, ModelVersion, SharedDigest, UnknownModel

EMBEDDER = "embedder"
PACKAGED_EMBEDDER = "all-MiniLM-L6-v2"
_ADDRESS = re.compile(r"[A-Za-z0-9_-]+@[A-Za-z0-9]+|[0-9a-f]{64}")


def is_address(named: str) -> bool:
    """Returns whether a name is an address or a digest of the registry, and no path that is there."""
    return bool(_ADDRESS.fullmatch(named)) and not Path(named).exists()


def registered_embedder(models: Path, named: str | None) -> Path | None:
    """Returns the folder of the embedder that the registry means, or None if the settings mean another.

    Where the settings name none, the one that was promoted is meant.

    Args:
        models: The folder of models of the state folder.
        named: The embedder that the settings name; None if they name none.

    Raises:
        UnknownModel: The registry has no version of that address.
    """
    registry = ModelRegistry(models)
    if named is None:
        live = registry.aliases(EMBEDDER).live
        # Also where its files are gone: what needs the model says so, and the way back stays open.
        return registry.version_path(EMBEDDER, live) if live is not None else None
    if not is_address(named):
        return None
    return registry.path(registry.find(named))


def embedder_version(registry: ModelRegistry, embedder: EmbedderConfig) -> ModelVersion | None:
    """Returns the version that an embedder is; None if it is not of the registry."""
    return None if embedder.endpoint.url else registry.version_at(embedder.model_path)


def questions_learned(
    registry: ModelRegistry, embedder: EmbedderConfig, questions: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Returns which questions an embedder learned from, or nearly the same; (questions,).

    Raises:
        LearnedQuestionsUnknown: It, or one below it, was made before its questions were kept.
    """
    version = embedder_version(registry, embedder)
    return registry.learned_questions(version, questions) if version else np.zeros(len(questions), bool)


def registered_address(folder: Path) -> str | None:
    """Returns the address of the version whose folder in a registry a path is, also where it is gone."""
    registry, name, version = folder.parts[-4:-1] if len(folder.parts) > 3 else ("", "", "")
    return f"{name}@{version}" if registry == "registry" else None


def embedder_folder(models: Path, name: str) -> Path:
    """Returns the folder of an embedder: NAME@VERSION, NAME@live, a digest, a model of set-up, or a folder.

    Args:
        models: The folder of models of the state folder.
        name: What the user calls it.

    Raises:
        UnknownModel: There is none of that name; the message lists what can be given.
        SharedDigest: Several versions have a digest that begins so.
        EmbeddingModelNotInstalled: Set-up has not installed the named model.
        ModelNotTrusted: Its files are not those that were signed.
    """
    folder, registry = Path(name).expanduser(), ModelRegistry(models)
    if name == PACKAGED_EMBEDDER:
        return packaged_embedding_model()
    if name in installable_embedding_models():
        return EmbedderConfig(model=Path(name)).model_path
    if folder.is_dir():
        return folder
    try:
        return registry.open(registry.find(name))
    except SharedDigest:
        raise
    except UnknownModel as error:
        of_setup = [
            each if path.is_dir() else f"{each} (after `{embedding_model_command(each)}`)"
            for each, path in installable_embedding_models().items()
        ]
        versions = [each.address for each in registry.versions(EMBEDDER)]
        known = ", ".join([PACKAGED_EMBEDDER, *of_setup, *versions])
        raise UnknownModel(
            f"no embedder is called {name!r}: give the path of a folder that is there, or one of {known}"
        ) from error
