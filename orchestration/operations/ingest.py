"""From paths to a release: folders become sources, and everything is brought up to date with them."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from assets.dagster.metadata import funnel
from assets.sources.source_config import Source
from assets.sources.source_reader import list_local_source
from assets.sources.source_registry import SourceRegistry
from orchestration.operations.ask import open_query_service
from orchestration.operations.runs import RunFailed, execute_run
from orchestration.settings import Settings, open_lake


def source_name(location: str, taken: set[str]) -> str:
    """A name for a source that was only given a place: its last part, numbered when taken."""
    stem = location.rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:48] or "documents"
    candidates = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)


def add_sources(registry: SourceRegistry, paths: Sequence[str], tenant: str) -> list[Source]:
    """Makes a source of each path that is none yet: all of them, or none where one can not be read.

    Returns:
        The sources that were added.

    Raises:
        SourceError: A path of this machine is missing, can not be listed, or holds no document.
    """
    known, added = registry.list(), list[Source]()
    for path in paths:
        taken = {source.name for source in (*known, *added)}
        wanted = Source(name=source_name(path, taken), location=path, tenant=tenant)
        place = (wanted.location, wanted.glob, wanted.tenant)
        if all((s.location, s.glob, s.tenant) != place for s in (*known, *added)):
            added.append(wanted)
    for source in added:
        list_local_source(source)
    for source in added:
        registry.add(source)
    return added


def ingest_and_release(settings: Settings, progress: Callable[[str], None]) -> dict[str, Any]:
    """Brings everything up to date from the sources to the release.

    Returns:
        `funnel`, `release`, `metrics` and `seconds` as `headwater ingest --json` prints them.

    Raises:
        RunFailed: When a step failed or a gate held; what was live stays live.
    """
    outcome = execute_run(settings, None, progress)
    if outcome.failures:
        raise RunFailed("\n".join(outcome.failures))
    release = open_query_service(settings).live_release()
    return {
        "funnel": funnel(open_lake(settings)),
        "release": release.release_id,
        "metrics": release.details.metrics,
        "seconds": outcome.seconds,
        "run_id": outcome.run_id,
    }
