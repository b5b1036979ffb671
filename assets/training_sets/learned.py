"""Which model versions learned from documents that were removed since.

It is computed from the ids that each version was signed with and from the documents that the lake has now,
and stored nowhere: a document that comes back is no longer removed, in every list at once.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from assets.lake.lake import Lake
from assets.lake.tables import RAW_DOCUMENTS
from assets.training_sets.snapshots import documents_no_longer_held
from common.counts import counted
from retrieval.embedding.config import EmbedderConfig, packaged_embedding_model
from training.registry.versions import ModelRegistry, ModelVersion


class BaseHasRemovedDocuments(ValueError):
    """What is to be trained from learned from removed documents; the message names it."""


@dataclass(frozen=True)
class LearnedVersion:
    """A model version, and what it learned from.

    Attributes:
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
        return f"{named} learned from {counted(len(self.removed), 'removed document')}"


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


def removed_lines(learned: Iterable[LearnedVersion]) -> list[str]:
    """Returns a sentence per version that learned from removed documents."""
    return [str(each) for each in learned if each.removed]


def learned_from_source(lake: Lake, registry: ModelRegistry, source: str) -> dict[str, int]:
    """Returns how many documents of a source each version learned from, by the version's address."""
    every = [version for name in registry.names() for version in registry.versions(name)]
    if not every:
        return {}
    rows = lake.query(
        "select distinct doc_id from raw where source = ?", [source], raw=lake.delta(RAW_DOCUMENTS.name)
    )
    ids = set(rows["doc_id"].to_pylist())
    counts = {version.address: len(ids & registry.learned_documents(version)) for version in every}
    return {address: count for address, count in counts.items() if count}


def require_base_without_removed(lake: Lake, registry: ModelRegistry, base: Path) -> None:
    """Returns unless a folder is a version that learned from removed documents: nothing is trained from it.

    Raises:
        BaseHasRemovedDocuments: It is one.
    """
    version = registry.version_at(base)
    if version is None:
        return
    learned = learned_version(lake, registry, version)
    if learned.removed:
        raise BaseHasRemovedDocuments(
            f"{learned}, which what is trained from it would have learned too: name another --base, or none"
        )


def embedder_without_removed(lake: Lake, registry: ModelRegistry, live: EmbedderConfig) -> EmbedderConfig:
    """Returns the embedder that takes over where the live version learned from removed documents.

    That is the version that was live before, unless it did too; then it is the packaged one.

    Args:
        lake: The tables.

    Returns:
        `live` itself, unless its version learned from removed documents.
    """
    for name in registry.names():
        aliases = registry.aliases(name)
        versions = {each.version: each for each in registry.versions(name)}
        # By its folder, not by its alias: that has moved on when the run that replaced it has ended.
        served = next((each for each in versions.values() if registry.path(each) == live.model), None)
        if served is None:
            continue
        if not learned_version(lake, registry, served).removed:
            return live
        before = versions.get(aliases.previous or 0)
        sound = before is not None and not learned_version(lake, registry, before).removed
        model = registry.path(before) if before is not None and sound else packaged_embedding_model()
        return live.model_copy(update={"model": model})
    return live
