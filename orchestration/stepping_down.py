"""Adapters that learned from removed documents step down, where `live_model_with_removed_documents` says so.

An embedder steps down by another index, which the next run builds (`settings_of_next_run`); an adapter by its
alias, at once.
"""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime

from assets.lake.lake import Lake
from assets.training_sets.learned import learned_version
from orchestration.settings import Settings, open_configured_lake
from retrieval.counts import counted
from retrieval.embedding.model_signature import ModelNotTrusted
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres
from training.jobs.job import follow_models
from training.registry.live_adapters import is_generator
from training.registry.moves import versions_before
from training.registry.versions import (
    LiveModelMoved,
    ModelDecision,
    ModelRegistry,
    ModelVersion,
    UnknownModel,
)


def step_down_adapters(settings: Settings, progress: Callable[[str], None]) -> None:
    """Has adapters that learned from removed documents answer no more, where the settings say so.

    The version before answers, or the one before that if it learned from one too or its files are not those
    that were signed, or else the base. A hold keeps an adapter where it is.

    Args:
        settings: The settings of the state folder.
        progress: Takes a line about each adapter that steps down, or is held.
    """
    registry = ModelRegistry(settings.models_folder)
    live = {name: registry.aliases(name).live for name in registry.names() if is_generator(name)}
    if settings.live_model_with_removed_documents == "stays" or not any(live.values()):
        return
    lake = open_configured_lake(settings)
    for name, number in live.items():
        known = {version.version: version for version in registry.versions(name)}
        if number in known and (why := _learned_removed(lake, registry, known[number])):
            postgres = Postgres(settings.home, settings.postgres)
            with contextlib.closing(postgres):
                hold = Index(postgres).live_hold()
            if hold is None:
                _step_down(settings, registry, lake, known[number], why, progress)
            else:
                progress(f"{name}@{number} stays live, though {why}: {hold}")


def _step_down(
    settings: Settings,
    registry: ModelRegistry,
    lake: Lake,
    live: ModelVersion,
    why: str,
    progress: Callable[[str], None],
) -> None:
    passed, taken, previous = {live.version: why}, None, None
    for number in versions_before(registry.decisions(live.name), live.version):
        if taken is not None:
            previous = number
            break
        if why_not := _why_not(lake, registry, f"{live.name}@{number}"):
            passed[number] = why_not
        else:
            taken = number
    try:
        registry.move_live(live.name, live.version, taken, previous)
    except LiveModelMoved as error:  # the next run looks at that one
        progress(str(error))
        return
    for number, reason in passed.items():
        said = {"version": number, "decision": "stepped_down", "reason": reason}
        decision = ModelDecision.model_validate({**said, "decided_at": datetime.now(UTC)})
        registry.log_decision(live.name, decision)
    instead = "the base" if taken is None else f"{live.name}@{taken}"
    progress(f"{live.address} steps down, since {why}: {instead} answers")
    follow_models(settings.training_place, live.name, progress)


def _learned_removed(lake: Lake, registry: ModelRegistry, version: ModelVersion) -> str | None:
    removed = learned_version(lake, registry, version).removed
    return f"it learned from {counted(len(removed), 'removed document')}" if removed else None


def _why_not(lake: Lake, registry: ModelRegistry, address: str) -> str | None:
    """Returns why a version is not to take over; None where it may."""
    try:
        version = registry.find(address)
        registry.open(version)
    except (UnknownModel, ModelNotTrusted) as error:
        return str(error)
    return _learned_removed(lake, registry, version)
