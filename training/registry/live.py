"""Which version of the embedder is live? Aliases follow PostgreSQL's pointer, whoever moved it."""

from retrieval.embedding.config import recorded_model_path
from retrieval.index.index import Index
from training.registry.addresses import EMBEDDER
from training.registry.moves import releases_to_live
from training.registry.versions import ModelAliases, ModelRegistry


def follow_live_release(registry: ModelRegistry, index: Index) -> bool:
    """Has the aliases of the embedder say what PostgreSQL says about the live release.

    Settings that name no embedder use the alias `live`: one that lags behind has the next run build an index
    with another model than the one that is served.

    Returns:
        Whether an alias moved.
    """
    aliases = live_aliases(registry, index)
    moved = aliases is not None and aliases != registry.aliases(EMBEDDER)
    if aliases is not None and moved:
        registry.set_aliases(EMBEDDER, aliases)
    return moved


def live_aliases(registry: ModelRegistry, index: Index) -> ModelAliases | None:
    """Returns the aliases of the embedder by PostgreSQL's pointer and its history; None without a version."""
    numbers = {str(registry.path(each)): each.version for each in registry.versions(EMBEDDER)}
    if not numbers:
        return None
    releases = {
        each.release_id: numbers.get(str(recorded_model_path(each.details.embedder.model, registry.folder)))
        for each in index.releases()
    }
    history = index.live_history()
    path = releases_to_live(history, registry.decisions(EMBEDDER))
    lived = [releases[each] for each in path if each in releases]
    live = lived[-1] if lived else None
    before = [number for number in lived if number != live]
    newest, ever = max(numbers.values()), {releases.get(each.release_id) for each in history}
    return ModelAliases(
        live=live,
        previous=before[-1] if before else None,
        candidate=newest if newest not in ever else None,
    )


def approved_beside(registry: ModelRegistry, digest: str, against: str) -> bool:
    """Returns whether a version of the embedder was approved by a comparison with another model.

    Args:
        registry: The versions of models.
        digest: The digest of the version; one that the registry does not have is not approved.
        against: The digest of the other model.
    """
    found = (each for each in registry.versions(EMBEDDER) if each.digest == digest)
    verdicts = (registry.deciding_verdict(each, against) for each in found)
    return any(each is not None and each.verdict.released for each in verdicts)
