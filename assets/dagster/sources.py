"""Sources in the asset graph: an external asset and a partition for each.

The external asset says where documents come from. The partition, of `bronze/source_documents`, says when the
source was last read, and is materialized to read it alone. Partitions follow the registry of sources by
themselves; external assets are those that there were when the definitions were loaded.
"""

import hashlib
import warnings
from collections.abc import Collection, Mapping, Sequence

import dagster as dg

from assets.sources.source_config import Source

SOURCES_GROUP = "sources"
# Dagster may yet change how backfills are asked for; its version is pinned.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)

SOURCE_DOCUMENTS = dg.AssetKey(["bronze", "source_documents"])
"""The key of the asset with a partition per source."""
SOURCES = dg.DynamicPartitionsDefinition(name="sources")
"""A partition per source, by its name."""
_KINDS = {"sitemap": "web", "python-environment": "python", "rows": "table"}
"""What the web UI calls a kind of sources, and has a picture for; others have their own name."""


AS_READ = "local_sources_as_read"
"""The metadata of a materialization of `bronze/raw_documents` that says what its run has read."""


def sources_state_digest(digests: Mapping[str, str]) -> str:
    """Returns the SHA-256 (hex) of the digests of sources by their names."""
    lines = [f"{name}={digest}" for name, digest in sorted(digests.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def source_key(name: str) -> dg.AssetKey:
    """Returns the asset key of a source; its name holds letters, digits, - and _ only."""
    return dg.AssetKey([SOURCES_GROUP, name])


def source_asset_specs(sources: Sequence[Source]) -> list[dg.AssetSpec]:
    """Returns an external asset per source: what is read, of which tenant, and who may read it.

    A location holds no credentials: a source that is given some is refused.
    """
    return [
        dg.AssetSpec(
            source_key(source.name),
            group_name=SOURCES_GROUP,
            description=f"Documents of the tenant {source.tenant}, read from {source.location}.",
            kinds={_KINDS.get(source.kind, source.kind)},
            tags={"headwater/holds_texts": "yes"},
            metadata={
                "location": source.location,
                "files": source.glob,
                "kind": source.kind,
                "tenant": source.tenant,
                "groups": ", ".join(source.groups) or "everybody of the tenant",
                "licence": source.license or "not known",
            },
        )
        for source in sources
    ]


def follow_sources(instance: dg.DagsterInstance, names: Collection[str]) -> None:
    """Makes the partitions those of the sources with these names."""
    there = set(instance.get_dynamic_partitions(str(SOURCES.name)))
    if new := [name for name in names if name not in there]:
        instance.add_dynamic_partitions(str(SOURCES.name), new)
    for name in there.difference(names):
        instance.delete_dynamic_partition(str(SOURCES.name), name)


def record_sources(
    context: dg.AssetExecutionContext,
    sources: Sequence[Source],
    read: Collection[str],
    changed: Collection[str],
    reasons: Mapping[str, str],
) -> None:
    """Records in Dagster which sources a run has read, and which it could not.

    A source that was read before and in which nothing was new gets no event: there can be hundreds.

    Args:
        context: Of the step that has read them.
        sources: The sources that were to be read.
        read: The names of those that could be read.
        changed: The names of those of them in which something was new.
        reasons: Why one could not be read, in whole or in part, by its name.
    """
    known = context.instance.get_materialized_partitions(SOURCE_DOCUMENTS)
    for source in sources:
        if source.name in reasons:
            failed = {"not_read": reasons[source.name]}
            context.log_event(dg.AssetObservation(source_key(source.name), metadata=failed))
        if source.name in changed or (source.name in read and source.name not in known):
            place = {"location": source.location}
            context.log_event(
                dg.AssetMaterialization(SOURCE_DOCUMENTS, partition=source.name, metadata=place)
            )


def materialization_of(made: dg.MaterializeResult) -> dg.AssetMaterialization:
    """Returns the event of a result, for an asset that is not the one whose step writes it."""
    tags = {"dagster/data_version": made.data_version.value} if made.data_version else {}
    return dg.AssetMaterialization(made.asset_key or "", metadata=dict(made.metadata or {}), tags=tags)
