"""Adapters that learned from removed documents step down, where `live_model_with_removed_documents` says so.

An embedder steps down by another index, which the next run builds (`settings_of_next_run`); an adapter by a
move in the release log, at once.
"""

import contextlib
from collections.abc import Callable

from assets.lake.lake import Lake
from assets.training_sets.learned import learned_version
from common.counts import counted
from orchestration.settings import Settings, open_configured_lake
from retrieval.embedding.model_signature import ModelNotTrusted
from retrieval.index.index import Index
from retrieval.index.release_log import GATE, Decision, ReleaseConflict, ReleaseHeld
from retrieval.store.postgres import Postgres
from training.jobs.job import follow_models
from training.registry.live import adapter_version, follow_release_log
from training.registry.live_adapters import is_generator
from training.registry.versions import ModelRegistry, ModelVersion, UnknownModel


def step_down_adapters(settings: Settings, progress: Callable[[str], None]) -> None:
    """Has adapters that learned from removed documents answer no more, where the settings say so.

    The version before answers, or the one before that if it learned from one too or its files are not those
    that were signed, or else the base. A hold keeps an adapter where it is.

    Args:
        settings: The settings of the state folder.
        progress: Takes a line about each adapter that steps down, or is held.
    """
    registry = ModelRegistry(settings.models_folder)
    names = [name for name in registry.names() if is_generator(name)]
    if settings.live_model_with_removed_documents == "stays" or not names:
        return
    lake = open_configured_lake(settings)
    with contextlib.closing(Postgres(settings.home, settings.postgres)) as postgres:
        index = Index(postgres)
        for live in index.log.live_of_kind("adapter"):
            if live.digest is not None and live.subject in names:
                _look_at(settings, index, registry, lake, live, progress)


def _look_at(
    settings: Settings,
    index: Index,
    registry: ModelRegistry,
    lake: Lake,
    live: Decision,
    progress: Callable[[str], None],
) -> None:
    name = live.subject
    version = registry.version(name, adapter_version(live) or 0)
    why = _learned_removed(lake, registry, version) if version else None
    if version is None or why is None:
        return
    way = index.log.way_back("adapter", name)
    sound = (each for each in way if each.digest and not _why_not(lake, registry, each))
    to = next(sound, None)
    decision = Decision("adapter", name, "stepped_down", None, why, GATE)
    try:
        index.log.move_back(decision, to, live.digest)
    except ReleaseHeld as error:
        progress(f"{version.address} stays live, though {why}: {error}")
        return
    except ReleaseConflict as error:  # the next run looks at that one
        progress(str(error))
        return
    follow_release_log(registry, index)
    instead = f"{name}@{adapter_version(to)}" if to else "the base"
    progress(f"{version.address} steps down, since {why}: {instead} answers")
    follow_models(settings.training_place, name, progress)


def _learned_removed(lake: Lake, registry: ModelRegistry, version: ModelVersion) -> str | None:
    removed = learned_version(lake, registry, version).removed
    return f"it learned from {counted(len(removed), 'removed document')}" if removed else None


def _why_not(lake: Lake, registry: ModelRegistry, move: Decision) -> str | None:
    """Returns why the version of a move is not to take over; None where it may."""
    try:
        version = registry.find(f"{move.subject}@{adapter_version(move)}")
        registry.open(version)
    except (UnknownModel, ModelNotTrusted) as error:
        return str(error)
    return _learned_removed(lake, registry, version)
