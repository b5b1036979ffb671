"""From paths to a release: folders become sources, and everything is brought up to date with them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assets.dagster.metadata import document_funnel
from assets.sources.source_config import Source
from assets.sources.source_reader import list_local_source
from assets.sources.source_registry import SourceRegistry
from orchestration.operations.ask import open_ask_service
from orchestration.operations.runs import RunFailed, execute_run
from orchestration.settings import Settings, open_configured_lake


@dataclass(frozen=True)
class IngestResult:
    """The result of an ingest, as `headwater ingest --json` prints it.

    Attributes:
        funnel: Documents by what became of them, and chunks.
        release: The id of the live release.
        metrics: Its measured quality, such as `ndcg@10`.
        seconds: Wall time of each asset and gate.
        run_id: Of the run, as the web UI shows it.
        unread_sources: Why a source could not be read, by its name; its documents are as they were.
    """

    funnel: dict[str, int]
    release: str
    metrics: dict[str, float]
    seconds: dict[str, float]
    run_id: str
    unread_sources: dict[str, str]


def ingest_source_name(location: str, taken: set[str]) -> str:
    """Returns a name for a source that was given only a location: its last part, numbered where taken."""
    stem = location.rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:48] or "documents"
    candidates = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)


def add_ingest_sources(registry: SourceRegistry, paths: Sequence[str], tenant: str) -> list[Source]:
    """Adds a source for each path that has none yet: for all of them, or for none if one can not be read.

    Returns:
        The sources that were added.

    Raises:
        SourceError: A path of this machine is missing, can not be listed, or holds no document.
    """
    known, added = registry.list(), list[Source]()
    for path in paths:
        taken = {source.name for source in (*known, *added)}
        wanted = Source(name=ingest_source_name(path, taken), location=path, tenant=tenant)
        place = (wanted.location, wanted.glob, wanted.tenant)
        if all((s.location, s.glob, s.tenant) != place for s in (*known, *added)):
            added.append(wanted)
    for source in added:
        list_local_source(source)
    for source in added:
        registry.add(source)
    return added


def ingest_and_release(settings: Settings, progress: Callable[[str], None]) -> IngestResult:
    """Brings everything up to date, from the sources to the release.

    Args:
        settings: The settings of the state folder.
        progress: Called with a line for each step that begins or ends.

    Raises:
        RunFailed: A step or a gate failed; what was live stays live.
    """
    outcome = execute_run(settings, None, progress)
    if outcome.failures:
        raise RunFailed("\n".join(outcome.failures))
    release = open_ask_service(settings).live_release()
    return IngestResult(
        funnel=document_funnel(open_configured_lake(settings)),
        release=release.release_id,
        metrics=release.details.metrics,
        seconds=outcome.seconds,
        run_id=outcome.run_id,
        unread_sources=outcome.unread_sources,
    )
