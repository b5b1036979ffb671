"""What each tenant holds: sources, rows of tables, releases, training sets, models and question sets."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from assets.answers.batches import AnswerBatches
from assets.lake.lake import Lake
from assets.lake.tables import CHUNKS, RAW_DOCUMENTS, TABLES
from assets.sources.source_registry import SourceRegistry
from orchestration.settings import Settings, open_configured_lake
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres
from training.datasets.requests import DatasetRequests
from training.datasets.training_set import dataset_headers
from training.registry.versions import ModelRegistry

TENANT_TABLES = tuple(table for table in TABLES.values() if "tenant" in table.schema.names)
"""The tables whose rows belong to a tenant."""


class UnknownTenant(LookupError):
    """Nothing is held for a tenant of that name; the message lists those there are."""


@dataclass(frozen=True)
class TenantHoldings:
    """What a lake holds for one tenant.

    Attributes:
        tenant: The tenant.
        sources: The names of its sources.
        rows: How many rows each table has of it, by `layer.table`; tables without any are left out.
        size_bytes: The bytes of its documents as they came, of every revision, deleted ones included.
        releases: How many of its chunks each kept release serves, newest first; those without are left out.
        live: The live release, where that serves any of its chunks.
        training_sets: The training sets that were asked for, and the addresses of their snapshots.
        models: The addresses of the versions of models that are its own or learned from its documents, also
            those that were trained from such a version.
        question_sets: The batches whose questions it asks.
    """

    tenant: str
    sources: list[str]
    rows: dict[str, int]
    size_bytes: int
    releases: dict[str, int]
    live: str | None
    training_sets: list[str]
    models: list[str]
    question_sets: list[str]

    @property
    def is_gone(self) -> bool:
        """Whether only earlier releases still hold something of it."""
        held = (self.sources, self.rows, self.live, self.training_sets, self.models, self.question_sets)
        return not any(held)

    @property
    def searchable(self) -> int:
        """How many of its chunks a search finds."""
        return self.releases.get(self.live or "", 0)


def list_tenants(settings: Settings) -> list[TenantHoldings]:
    """Returns what every tenant holds, by name."""
    found = _Holdings(settings)
    return [found.of(tenant) for tenant in found.tenants()]


def show_tenant(settings: Settings, tenant: str) -> TenantHoldings:
    """Returns what one tenant holds.

    Raises:
        UnknownTenant: Nothing is held for it.
    """
    found = _Holdings(settings)
    if tenant not in (known := found.tenants()):
        raise UnknownTenant(
            f"nothing is held for a tenant {tenant!r}; there are: {', '.join(known) or 'none yet'}"
        )
    return found.of(tenant)


class _Holdings:
    """What a state folder holds, counted once for all tenants."""

    def __init__(self, settings: Settings) -> None:
        lake = open_configured_lake(settings)
        index = Index(Postgres(settings.home, settings.postgres))
        live, kept = index.live(), index.releases()
        self._live = live.release_id if live else None
        self._rows = {table.name: _rows_by_tenant(lake, table.name) for table in TENANT_TABLES}
        self._size_bytes = _bytes_by_tenant(lake)
        versions = {each.release_id: each.details.versions.get(CHUNKS.name) for each in kept}
        counted = {at: _rows_by_tenant(lake, CHUNKS.name, at) for at in versions.values() if at is not None}
        self._served = {name: counted[at] for name, at in versions.items() if at is not None}
        self._sources = defaultdict[str, list[str]](list)
        for source in SourceRegistry(settings.sources_file).list():
            self._sources[source.tenant].append(source.name)
        self._sets = defaultdict[str, list[str]](list)
        for request in DatasetRequests(settings.datasets_folder).all():
            self._sets[request.tenant].append(request.name)
        for header in dataset_headers(settings.datasets_folder):
            self._sets[header.tenant].append(header.address)
        self._models = defaultdict[str, list[str]](list)
        registry = ModelRegistry(settings.models_folder)
        for version in (each for name in registry.names() for each in registry.versions(name)):
            lineages = (each.lineage for each in registry.with_bases(version))
            for tenant in {tenant for each in lineages for tenant in each.tenants}:
                self._models[tenant].append(version.address)
        self._asked = defaultdict[str, list[str]](list)
        batches = AnswerBatches(settings.batches_dir)
        for name in batches.names():
            for tenant in sorted({question.tenant for question in batches.questions(name).questions}):
                self._asked[tenant].append(name)

    def tenants(self) -> list[str]:
        """Returns the names of all tenants for which anything is held."""
        held: list[Mapping[str, object]] = [self._sources, self._sets, self._models, self._asked]
        held += [*self._rows.values(), *self._served.values()]
        return sorted({tenant for each in held for tenant in each})

    def of(self, tenant: str) -> TenantHoldings:
        """Returns what one tenant holds."""
        served = {name: count[tenant] for name, count in self._served.items() if tenant in count}
        return TenantHoldings(
            tenant=tenant,
            sources=self._sources.get(tenant, []),
            rows={name: count[tenant] for name, count in self._rows.items() if tenant in count},
            size_bytes=self._size_bytes[tenant],
            releases=served,
            live=self._live if self._live in served else None,
            training_sets=self._sets.get(tenant, []),
            models=self._models.get(tenant, []),
            question_sets=self._asked.get(tenant, []),
        )


def _rows_by_tenant(lake: Lake, name: str, version: int | None = None) -> Counter[str]:
    rows = lake.query("select tenant, count(*) as n from t group by 1", t=lake.delta(name, version))
    return Counter(dict(zip(rows["tenant"].to_pylist(), rows["n"].to_pylist(), strict=True)))


def _bytes_by_tenant(lake: Lake) -> Counter[str]:
    """The bytes of all revisions that are stored; a row that only records a file's time has none."""
    rows = lake.query(
        "select tenant, sum(size_bytes)::bigint as n from t where body is not null group by 1",
        t=lake.delta(RAW_DOCUMENTS.name),
    )
    return Counter(dict(zip(rows["tenant"].to_pylist(), rows["n"].to_pylist(), strict=True)))
