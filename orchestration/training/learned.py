"""What models learned from, as commands say it; a state folder without models has no lake opened for it."""

from assets.training_sets.learned import (
    LearnedVersion,
    learned_from_source,
    learned_version,
    learned_versions,
)
from orchestration.settings import Settings, open_configured_lake
from training.registry.versions import ModelRegistry, ModelVersion


def all_learned_versions(settings: Settings) -> list[LearnedVersion]:
    """Returns every version with its aliases and what it learned from, newest first by model."""
    registry = ModelRegistry(settings.models_folder)
    return learned_versions(open_configured_lake(settings), registry) if registry.names() else []


def what_version_learned(settings: Settings, version: ModelVersion) -> LearnedVersion:
    """Returns a version with what it learned from."""
    return learned_version(open_configured_lake(settings), ModelRegistry(settings.models_folder), version)


def versions_learned_from_source(settings: Settings, source: str) -> dict[str, int]:
    """Returns how many documents of a source each version learned from, by the version's address."""
    registry = ModelRegistry(settings.models_folder)
    return learned_from_source(open_configured_lake(settings), registry, source) if registry.names() else {}
