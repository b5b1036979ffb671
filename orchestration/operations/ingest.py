"""From paths to a release: folders become sources, everything is brought up to date, and what stands then."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from assets.dagster.metadata import document_funnel
from assets.lake.tables import CHUNKS
from assets.sources.source_config import Source, SourceError
from assets.sources.source_reader import list_local_source
from assets.sources.source_registry import SourceRegistry
from assets.training_sets.learned import learned_versions, removed_lines
from orchestration.operations.quarantine import QuarantinedDocument, count_kept_out, quarantined_by_run
from orchestration.operations.runs import RunFailed, RunOutcome, execute_run
from orchestration.settings import Settings, open_configured_lake
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres
from training.registry.versions import ModelRegistry

_RELEASING = ("serving", "ops")
"""The beginnings of the steps that build the index and make a release live."""


def ingest_source_name(location: str, taken: set[str]) -> str:
    """Returns a name for a source that was given only a location: its last part, numbered where taken."""
    stem = location.rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:48] or "documents"
    candidates = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 3))]
    return next(candidate for candidate in candidates if candidate not in taken)


def ingest_sources(known: Sequence[Source], paths: Sequence[str], tenant: str) -> list[Source]:
    """Returns the source of each path: the one that it is already, or a new one.

    Raises:
        SourceError: A path is a web address, or one of this machine that is missing, can not be listed, or
            holds no document.
    """
    found = list[Source]()
    for path in paths:
        if path.lower().startswith(("http://", "https://")):
            raise SourceError(
                f"{path} is a web address: `headwater source add sitemap {path}` reads a website by its "
                "sitemap, `headwater source add git` a repository"
            )
        every = [*known, *found]
        wanted = Source(
            name=ingest_source_name(path, {source.name for source in every}), location=path, tenant=tenant
        )
        place = (wanted.location, wanted.glob, wanted.tenant)
        source = next((s for s in every if (s.location, s.glob, s.tenant) == place), wanted)
        if source is wanted:
            list_local_source(source)
        if source not in found:
            found.append(source)
    return found


def add_ingest_sources(registry: SourceRegistry, paths: Sequence[str], tenant: str) -> list[Source]:
    """Adds a source for each path that has none yet: for all of them, or for none if one can not be read.

    Returns:
        The sources that were added.

    Raises:
        SourceError: A path is a web address, or one of this machine that is missing, can not be listed, or
            holds no document.
    """
    known = registry.list()
    added = [source for source in ingest_sources(known, paths, tenant) if source not in known]
    for source in added:
        registry.add(source)
    return added


@dataclass(frozen=True)
class RunSummary:
    """What stands after a run, as `headwater run --json` and `ingest --json` print it.

    Attributes:
        run_id: Of the run, as the web UI shows it.
        seconds: Wall time of each asset and gate.
        unread_sources: Why a source could not be read, by its name; its documents are as they were.
        funnel: Documents by what became of them, and chunks.
        quarantined: The documents that this run quarantined.
        kept_out: How many documents are quarantined in all.
        unfit: How many others are not fit for training.
        verdict: The release gate's newest verdict, such as "r1.2 approved: …".
        release: The live release.
        held: Who holds it, since when and why, so that no other goes live.
        metrics: Its measured quality, such as `ndcg@10`.
        searchable: How many `documents` and `chunks` a search finds in it.
        models: Which model versions learned from documents that were removed since, a sentence each.
    """

    run_id: str
    seconds: dict[str, float]
    unread_sources: dict[str, str]
    funnel: dict[str, int]
    quarantined: Sequence[QuarantinedDocument]
    kept_out: int
    unfit: int
    verdict: str | None = None
    release: str | None = None
    held: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    searchable: dict[str, int] = field(default_factory=dict)
    models: Sequence[str] = ()


def ingest_and_release(settings: Settings, progress: Callable[[str], None]) -> RunSummary:
    """Brings everything up to date, from the sources to the release, and returns what stands then.

    Args:
        settings: The settings of the state folder.
        progress: Called with a line for each step that begins or ends.

    Raises:
        RunFailed: A step or a gate failed; what was live stays live.
    """
    outcome = execute_run(settings, None, progress)
    if outcome.failures:
        raise RunFailed("\n".join(outcome.failures))
    return summarize_run(settings, outcome)


def summarize_run(settings: Settings, outcome: RunOutcome) -> RunSummary:
    """Returns what stands after a run, whether it succeeded or not.

    Verdict and release are None after a run of a few assets, which need not start PostgreSQL, and before the
    first release.
    """
    lake = open_configured_lake(settings)
    kept_out, unfit = count_kept_out(lake)
    summary = RunSummary(
        run_id=outcome.run_id,
        seconds=outcome.seconds,
        unread_sources=outcome.unread_sources,
        funnel=document_funnel(lake),
        quarantined=quarantined_by_run(settings, outcome.run_id),
        kept_out=kept_out,
        unfit=unfit,
        models=removed_lines(learned_versions(lake, ModelRegistry(settings.models_folder))),
    )
    if not any(step.startswith(_RELEASING) for step in outcome.seconds):
        return summary
    index = Index(Postgres(settings.home, settings.postgres))
    newest, live, hold = index.log.newest_verdict("index"), index.live(), index.live_hold()
    if newest is not None:
        summary = replace(summary, verdict=f"{newest.digest} {newest.decision}: {newest.reason}")
    if live is None:
        return summary
    chunks = lake.delta(CHUNKS.name, live.details.versions[CHUNKS.name])
    counted = "select count(distinct doc_id) as documents, count(*) as chunks from chunks"
    return replace(
        summary,
        release=live.release_id,
        held=str(hold) if hold else None,
        metrics=live.details.metrics,
        searchable=lake.query(counted, chunks=chunks).to_pylist()[0],
    )
