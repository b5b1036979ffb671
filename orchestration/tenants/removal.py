"""A tenant ends: everything of it goes in one release, and what stays for a while is told."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from assets.lake.maintenance import erase_rows
from assets.lake.tables import ANSWER_RATINGS, ANSWERS, RAW_DOCUMENTS, TRAINING_SPLITS
from assets.sources.source_registry import SourceRegistry
from common.counts import counted
from orchestration.operations.runs import RunFailed, execute_run
from orchestration.settings import Settings, open_configured_lake
from orchestration.tenants.holdings import TenantHoldings, list_tenants, show_tenant
from retrieval.index.index import Index
from retrieval.index.release_log import GATE, Decision, ReleaseHeld
from retrieval.store.postgres import Postgres
from training.datasets.requests import DatasetRequests
from training.jobs.job import follow_models
from training.registry.live import follow_release_log
from training.registry.live_adapters import generator_name


class OnlyTenant(ValueError):
    """A tenant has the whole lake: without it there is nothing to release."""


_ERASED = (RAW_DOCUMENTS, ANSWERS, ANSWER_RATINGS, TRAINING_SPLITS)
"""The tables that keep rows of documents which are gone; a run removes them from all the others."""


@dataclass(frozen=True)
class Remainder:
    """What physically remains of a tenant after its removal.

    Attributes:
        what: What it is, and where.
        until: When it goes, or what makes it go.
    """

    what: str
    until: str


@dataclass(frozen=True)
class TenantRemoval:
    """The outcome of a removal.

    Attributes:
        held: What the tenant held before.
        release: The release that is live now, which has nothing of it; None if nothing is released.
        run_id: The run that made it.
        remaining: What physically remains, and until when.
    """

    held: TenantHoldings
    release: str | None
    run_id: str
    remaining: list[Remainder]


def remove_tenant(settings: Settings, tenant: str, progress: Callable[[str], None]) -> TenantRemoval:
    """Removes a tenant: its sources, training sets, documents with all revisions, and answers.

    Other tenants' documents keep their ids, and the gates decide as of every run. After it was killed it is
    called again: it does what is missing.

    Args:
        settings: The settings of the state folder.
        tenant: The tenant.
        progress: Called with a line for each step that begins or ends.

    Raises:
        UnknownTenant: Nothing is held for it.
        OnlyTenant: No other tenant has a document; nothing was removed.
        ReleaseHeld: Somebody holds the live release, so that none without the tenant can go live; nothing was
            removed.
        RunFailed: The run that makes the release failed; what was live stays live. Call it again.
        WriteConflict: A run wrote at the same time. Call it again.
    """
    held = show_tenant(settings, tenant)
    others = [each for each in list_tenants(settings) if each.tenant != tenant]
    if not any(RAW_DOCUMENTS.name in each.rows for each in others):
        raise OnlyTenant(
            f"no other tenant than {tenant} has a document, so no release would be left: `headwater down`, "
            f"and delete the state folder {settings.home}"
        )
    lake, index = open_configured_lake(settings), Index(Postgres(settings.home, settings.postgres))
    hold = index.live_hold()
    if hold is not None and held.live is not None:
        raise ReleaseHeld(
            f"{hold}: no release without {tenant} can go live; `headwater hold --off` ends that. Nothing was "
            "removed"
        )
    _take_adapters_down(settings, index, tenant, progress)  # which a hold refuses, before anything is removed
    sources = SourceRegistry(settings.sources_file)
    for source in held.sources:
        sources.remove(source)
    requests = DatasetRequests(settings.datasets_folder)
    for request in requests.all():
        if request.tenant == tenant:
            requests.remove(request.name)
    run_id = f"removal of a tenant at {datetime.now(UTC).isoformat(timespec='seconds')}"
    for table in _ERASED:
        erased = erase_rows(lake, table, "tenant", tenant, run_id)
        progress(f"{table.name}: {counted(erased, 'row')} deleted")
    outcome = execute_run(settings, None, progress)
    if outcome.failures:
        again = f"what is live serves {tenant} until `headwater tenant remove {tenant}` has gone on from here"
        raise RunFailed("\n".join([*outcome.failures, again]))
    live = index.live()
    left = list(_remaining(settings, held, [each.release_id for each in index.releases()]))
    return TenantRemoval(held, live.release_id if live else None, outcome.run_id, left)


def _take_adapters_down(
    settings: Settings, index: Index, tenant: str, progress: Callable[[str], None]
) -> None:
    """Has the base answer where an adapter of the tenant did."""
    name = generator_name(tenant)
    live = index.log.live("adapter", name)
    if live is not None and live.digest is not None:
        decision = Decision("adapter", name, "stepped_down", None, "its tenant was removed", GATE)
        index.log.move_back(decision, None, live.digest)
        follow_release_log(settings.training_place.registry, index)
        follow_models(settings.training_place, name, progress)


def _remaining(settings: Settings, held: TenantHoldings, kept: list[str]) -> Iterator[Remainder]:
    """Yields what physically remains of what was held, given the releases that are kept now."""
    if serving := [release for release in held.releases if release in kept]:
        newer = settings.releases_kept - kept.index(serving[0])
        yield Remainder(
            f"its chunks in the index, in earlier releases ({', '.join(serving)}), which `--as-of` and "
            "`headwater rollback` reach",
            f"{counted(max(newer, 1), 'newer release')}; `HEADWATER_RELEASES_KEPT=1 headwater run` removes "
            "them at once",
        )
    if held.rows:
        day = datetime.now(UTC) + timedelta(days=settings.retention_days)
        yield Remainder(
            f"files of earlier versions of {', '.join(held.rows)}, below {settings.lake_root}",
            f"{day:%Y-%m-%d} (HEADWATER_RETENTION_DAYS), and no kept release needs them: the job "
            "`maintenance` deletes them then, each night while `headwater up` runs",
        )
    yield Remainder(
        "its documents in backups that were made before", "the backup files are deleted, wherever they are"
    )
    yield Remainder(
        f"names of its documents in the events of earlier runs, in {settings.dagster_home}",
        "the runs are deleted in the web UI",
    )
    if held.models:
        yield Remainder(
            f"models that learned from its documents: {', '.join(held.models)}",
            "`headwater models rollback` has another answer, and their folders in "
            f"{settings.models_folder / 'registry'} are deleted",
        )
    if held.question_sets:
        yield Remainder(
            f"questions that it asks in batches: {', '.join(held.question_sets)}",
            f"their folders in {settings.batches_dir} are deleted",
        )
    if held.sources:
        yield Remainder(
            f"what its sources ({', '.join(held.sources)}) were read from", "nothing here touches it"
        )
