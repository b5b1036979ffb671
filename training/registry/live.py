"""Which versions of models are live? The registry's folders show what the release log says."""

from collections.abc import Sequence

from retrieval.embedding.config import recorded_model_path
from retrieval.index.index import Index
from retrieval.index.release_log import NO_RECORD, Decision, ReleaseLog
from retrieval.index.types import IndexRecord
from training.registry.addresses import EMBEDDER
from training.registry.live_adapters import AdapterRecord, is_generator
from training.registry.versions import LiveVersions, ModelDecision, ModelRegistry, ModelVersion


def follow_release_log(registry: ModelRegistry, index: Index) -> list[str]:
    """Has the aliases of all models say what the release log says.

    Settings that name no embedder use the alias `live`: one that lags behind has the next run build an index
    with another model than the one that is served.

    Returns:
        The names of the models whose aliases or moves were not as the log has them.
    """
    return registry.project(lambda: live_versions(registry, index))


def adopt_live_adapters(registry: ModelRegistry, log: ReleaseLog) -> None:
    """Adds the adapters that the folders show as live to a release log that knows none of their model.

    So of before there was a log, and where PostgreSQL was lost.
    """
    decisions = list[Decision]()
    for name in filter(is_generator, registry.names()):
        aliases, before = registry.aliases(name), None
        for number in (aliases.previous, aliases.live) if aliases.live else ():
            if version := registry.version(name, number) if number else None:
                record, why = (
                    AdapterRecord(version=version.version).model_dump_json(),
                    "adopted from its folder",
                )
                decisions.append(
                    Decision("adapter", name, "promoted", version.digest, why, "", record, True, before)
                )
                before = len(decisions)
    if decisions:
        log.adopt(decisions)


def live_versions(registry: ModelRegistry, index: Index) -> dict[str, LiveVersions]:
    """Returns what the release log says about each model of the registry, by the model's name."""
    said = {name: _adapters(name, index.log) for name in registry.names() if is_generator(name)}
    if versions := registry.versions(EMBEDDER):
        said[EMBEDDER] = _embedder(registry, index, versions)
    return said


def _embedder(registry: ModelRegistry, index: Index, versions: Sequence[ModelVersion]) -> LiveVersions:
    """An embedder is live by the release of the index that was built with it.

    Of a release that is no longer kept, the log's record has the digest of its model.
    """
    numbers = {str(registry.path(each)): each.version for each in versions}
    of_digest = {each.digest: each.version for each in versions}
    of_release = {
        each.release_id: numbers.get(str(recorded_model_path(each.details.embedder.model, registry.folder)))
        for each in index.releases()
    }

    def version(move: Decision) -> int | None:
        if move.digest in of_release or move.record == NO_RECORD:
            return of_release.get(move.digest or "")
        return of_digest.get(IndexRecord.model_validate_json(move.record).model_digest)

    moves = [each for each in index.log.decisions("index") if each.moves]
    live = version(moves[-1]) if moves else None
    way = [each for each in index.log.way_back("index") if each.digest in of_release]
    changes = list[ModelDecision]()
    before: int | None = None
    for each in moves:
        if (now := version(each)) != before:
            about = before if each.decision == "rolled_back" or now is None else now
            changes += _said(each, about)
        before = now
    return LiveVersions(
        move_id=moves[-1].move_id if moves else 0,
        live=live,
        previous=next((version(each) for each in way if version(each) != live), None),
        was_live=tuple(sorted({number for each in moves if (number := version(each))})),
        moves=tuple(changes),
    )


def _adapters(name: str, log: ReleaseLog) -> LiveVersions:
    moves = [each for each in log.decisions("adapter", name) if each.moves]
    versions = [adapter_version(each) for each in moves]
    way = log.way_back("adapter", name)
    changes = list[ModelDecision]()
    for each, now, before in zip(moves, versions, [None, *versions], strict=False):
        changes += _said(each, now if each.decision == "promoted" else before)
    return LiveVersions(
        move_id=moves[-1].move_id if moves else 0,
        live=versions[-1] if versions else None,
        previous=adapter_version(way[0]) if way else None,
        was_live=tuple(sorted({number for number in versions if number})),
        moves=tuple(changes),
    )


def adapter_version(move: Decision) -> int | None:
    """Returns the version that a move made live; None for the base."""
    return AdapterRecord.model_validate_json(move.record).version if move.digest else None


def _said(move: Decision, about: int | None) -> list[ModelDecision]:
    """Returns a move as a decision about the version that it is about, if it is about one."""
    if about is None or move.at is None:
        return []
    said = {"version": about, "decision": move.decision, "reason": move.reason, "decided_by": move.decided_by}
    if move.decision == "released":  # with a new index, and by the gate alone
        said["decision"] = "promoted"
    return [ModelDecision.model_validate({**said, "decided_at": move.at})]


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
