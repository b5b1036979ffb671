"""Addresses of models in settings: NAME@VERSION, NAME@live and digests stand for folders of the registry."""

import re
from pathlib import Path

from training.registry.versions import ModelRegistry

EMBEDDER = "embedder"
_ADDRESS = re.compile(r"[A-Za-z0-9_-]+@[A-Za-z0-9]+|[0-9a-f]{64}")


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
    if not _ADDRESS.fullmatch(named) or Path(named).exists():
        return None
    return registry.path(registry.find(named))
