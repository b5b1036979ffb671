"""Which model versions learned from documents that were removed since.

It is computed from the ids that each version was signed with and from the documents that the lake has now,
and stored nowhere: a document that comes back is no longer removed, in every list at once.
"""

from dataclasses import dataclass

from assets.lake.lake import Lake
from assets.training_sets.snapshots import documents_no_longer_held
from training.registry.versions import ModelRegistry, ModelVersion


@dataclass(frozen=True)
class LearnedVersion:
    """A model version, and what it learned from.

    Attributes:
        version: The version.
        aliases: The names that it has, such as `live`.
        documents: How many of the lake's documents it, or what it was trained from, learned from.
        removed: The ids of those that the lake has no more, sorted.
    """

    version: ModelVersion
    aliases: list[str]
    documents: int
    removed: list[str]

    @property
    def is_live(self) -> bool:
        """Whether the live release is served by it."""
        return "live" in self.aliases

    def __str__(self) -> str:
        """Returns in a sentence how many removed documents it learned from."""
        named = (
            f"{self.version.address} ({', '.join(self.aliases)})" if self.aliases else self.version.address
        )
        count = len(self.removed)
        return f"{named} learned from {count:,} removed document{'' if count == 1 else 's'}"


def learned_versions(lake: Lake, registry: ModelRegistry) -> list[LearnedVersion]:
    """Returns every version of every model with what it learned from, newest first by model."""
    return [
        learned_version(lake, registry, version)
        for name in registry.names()
        for version in registry.versions(name)
    ]


def learned_version(lake: Lake, registry: ModelRegistry, version: ModelVersion) -> LearnedVersion:
    """Returns a version with what it learned from."""
    learned = registry.learned_documents(version)
    removed = documents_no_longer_held(lake, learned)
    return LearnedVersion(version, registry.aliases_of(version), len(learned), removed)
