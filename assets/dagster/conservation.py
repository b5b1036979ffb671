"""Conservation: every document that came is kept, a duplicate of another, or quarantined."""

import dagster as dg

from assets.dagster.metadata import asset_key
from assets.lake.lake import Lake
from assets.lake.tables import DOCUMENTS, DUPLICATES, QUARANTINE, RAW_DOCUMENTS
from quality.gate import Conservation


@dg.asset_check(
    asset=asset_key(DUPLICATES.name),
    name="conservation",
    description="Raw = kept + duplicates + quarantined: no document is dropped silently.",
    blocking=True,
)
def conservation(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Checks the equation over the versions that the newest deduplication was made from."""
    counts = count_conservation(lake)
    return dg.AssetCheckResult(
        passed=counts.holds,
        description=str(counts),
        metadata={name: getattr(counts, name) for name in counts.__dataclass_fields__},
    )


def count_conservation(lake: Lake) -> Conservation:
    """Counts where every live document is, without a JVM.

    Raises:
        LookupError: When deduplication has never run.
    """
    pins = lake.pinned(DUPLICATES.name, lake.version(DUPLICATES.name))
    raw_version = pins[RAW_DOCUMENTS.name]
    # Quarantine is written beside documents, from the same raw version.
    quarantine_version = next(
        commit.version
        for commit in lake.commits(QUARANTINE.name)
        if commit.lineage.inputs[RAW_DOCUMENTS.name] <= raw_version
    )
    counts = lake.query(
        """
        with live as (
            select doc_id from (select doc_id, arg_max(deleted, revision) as deleted from raw group by doc_id)
            where not deleted
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
