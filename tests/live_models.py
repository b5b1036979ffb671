"""Makes versions of models live, as commands and runs do, or as a registry without a database shows it."""

from orchestration.settings import Settings
from retrieval.index.index import Index
from retrieval.index.release_log import Decision, ReleaseLog
from retrieval.store.postgres import Postgres
from training.registry.live import follow_release_log
from training.registry.live_adapters import AdapterRecord
from training.registry.versions import LiveVersions, ModelRegistry


def show_live(registry: ModelRegistry, name: str, live: int | None, previous: int | None = None) -> None:
    """Has the registry's folder say that a version is live, whatever a release log says."""
    was_live = tuple(sorted(number for number in (live, previous) if number))
    said = LiveVersions(move_id=1, live=live, previous=previous, was_live=was_live)
    registry.project(lambda: {name: said})


def log_of(settings: Settings) -> ReleaseLog:
    return ReleaseLog(Postgres(settings.home, settings.postgres))


def make_adapter_live(settings: Settings, name: str, number: int | None) -> None:
    """Has a version of an adapter answer, or the base, with no question asked."""
    registry, index = settings.training_place.registry, Index(Postgres(settings.home, settings.postgres))
    live = index.log.live("adapter", name)
    version = registry.version(name, number) if number else None
    decision = Decision(
        *("adapter", name, "promoted", version.digest if version else None, "", "ada"),
        record=AdapterRecord(version=number).model_dump_json() if number else "{}",
    )
    index.log.move(decision, live.digest if live else None)
    follow_release_log(registry, index)
