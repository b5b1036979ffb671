"""Checks conservation: every live document is kept, a duplicate of another document, or quarantined."""

from dataclasses import dataclass

import dagster as dg

from assets.dagster.metadata import asset_key
from assets.lake.lake import Lake
from assets.lake.tables import DOCUMENTS, DUPLICATES, QUARANTINE, RAW_DOCUMENTS
from assets.sources.revisions import IS_ARCHIVE
from common.counts import counted


@dataclass(frozen=True)
class Conservation:
    """The numbers of live documents that are kept, duplicates, quarantined or lost, as distinct ids.

    Attributes:
        raw: Live documents: those whose newest revision in `bronze.raw_documents` is neither a tombstone nor
            an archive, whose files are documents in its place.
        kept: Documents in `silver.documents` that are not duplicates.
        duplicates: Documents in `silver.documents` that are duplicates of another one.
        quarantined: Documents in `silver.quarantine`.
        lost: Live documents that are none of the three.
        stray: Documents of the three that are not live, and duplicates of a document that does not exist.
        doubled: Documents that are both in `silver.documents` and in `silver.quarantine`.
    """

    raw: int
    kept: int
    duplicates: int
    quarantined: int
    lost: int = 0
    stray: int = 0
    doubled: int = 0

    @property
    def holds(self) -> bool:
        """True if raw = kept + duplicates + quarantined, and `lost`, `stray` and `doubled` are 0."""
        total = self.kept + self.duplicates + self.quarantined
        return self.raw == total and not (self.lost or self.stray or self.doubled)

    def __str__(self) -> str:
        """The equation, and what breaks it."""
        parts = f"{self.kept} kept + {counted(self.duplicates, 'duplicate')} + {self.quarantined} quarantined"
        equation = f"{self.raw} raw = {parts}"
        faults = [
            f"{count} {fault}"
            for count, fault in (
                (self.lost, "lost"),
                (self.stray, "without a live source"),
                (self.doubled, "both kept and quarantined"),
            )
            if count
        ]
        return equation if self.holds else f"does not hold: {'; '.join([equation, *faults])}"


@dg.asset_check(
    asset=asset_key(DUPLICATES.name),
    name="conservation",
    description="Raw = kept + duplicates + quarantined: no document is dropped silently.",
    blocking=True,
)
def conservation_check(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Checks that raw = kept + duplicates + quarantined documents, as of the newest deduplication."""
    counts = count_conservation(lake)
    return dg.AssetCheckResult(
        passed=counts.holds,
        description=str(counts),
        metadata={name: getattr(counts, name) for name in counts.__dataclass_fields__},
    )


def count_conservation(lake: Lake) -> Conservation:
    """Counts the live documents that are kept, duplicates, quarantined or lost, without a JVM.

    Raises:
        LookupError: Deduplication has never run.
    """
    pins = lake.pinned(DUPLICATES.name, lake.version(DUPLICATES.name))
    raw_version = pins[RAW_DOCUMENTS.name]
    # Quarantine is written beside documents, from the same versions.
    quarantine_version = next(
        commit.version
        for commit in lake.commits(QUARANTINE.name)
        if all(version <= pins.get(name, 0) for name, version in commit.lineage.inputs.items())
    )
    counts = lake.query(
        f"""
        with live as (
            select doc_id from (
                select * from raw qualify row_number() over (partition by doc_id order by revision desc) = 1
            ) where not deleted and not {IS_ARCHIVE}
        ), placed as (select doc_id from documents union select doc_id from quarantine)
        select
            (select count(*) from live) as raw,
            (select count(*) from documents anti join duplicates using (doc_id)) as kept,
            (select count(*) from duplicates) as duplicates,
            (select count(*) from quarantine) as quarantined,
            (select count(*) from live anti join placed using (doc_id)) as lost,
            (select count(*) from placed anti join live using (doc_id))
            + (select count(*) from duplicates anti join documents using (doc_id)) as stray,
            (select count(*) from quarantine semi join documents using (doc_id)) as doubled
        """,
        raw=lake.delta(RAW_DOCUMENTS.name, raw_version),
        documents=lake.delta(DOCUMENTS.name, pins[DOCUMENTS.name]),
        duplicates=lake.delta(DUPLICATES.name, pins[DUPLICATES.name]),
        quarantine=lake.delta(QUARANTINE.name, quarantine_version),
    )
    return Conservation(**counts.to_pylist()[0])
