"""Sources in the asset graph: an external asset for each, which says where documents come from."""

from collections.abc import Sequence

import dagster as dg

from assets.sources.source_config import Source

SOURCES_GROUP = "sources"
_KINDS = {"sitemap": "web", "python-environment": "python", "rows": "table"}
"""What the web UI calls a kind of sources, and has a picture for; others have their own name."""


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
