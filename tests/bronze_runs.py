"""Reads the sources of a state folder into its bronze table, by the asset alone: nothing else is made."""

from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from assets.bronze import SOURCES_READ, raw_documents_asset
from assets.sources.source_registry import SourceRegistry
from orchestration.settings import Settings, open_configured_lake


@dataclass(frozen=True)
class SourcesRead:
    """What became of a reading: why it failed, and by source what could not be read."""

    failure: str | None = None
    unread: dict[str, str] = field(default_factory=dict)


def read_sources(settings: Settings) -> SourcesRead:
    """Materializes `bronze/raw_documents`."""
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [raw_documents_asset],
            instance=instance,
            resources={
                "lake": open_configured_lake(settings),
                "sources": SourceRegistry(settings.sources_file),
                "max_shrink": settings.max_shrink,
                "recipe": settings.recipe,
            },
            raise_on_error=False,
        )
    failed = [event.step_failure_data.error for event in done.all_events if event.is_step_failure]
    if failed and failed[0] is not None:
        return SourcesRead(failure=str((failed[0].cause or failed[0]).message))
    [check] = done.get_asset_check_evaluations()
    assert check.check_name == SOURCES_READ
    return SourcesRead(unread={name: str(reason.value) for name, reason in check.metadata.items()})


def raw_rows(settings: Settings, source: str) -> list[dict[str, Any]]:
    """Returns the rows of `bronze.raw_documents` of a source, a document's revisions in order."""
    lake = open_configured_lake(settings)
    raw = lake.delta("bronze.raw_documents")
    return lake.query(
        "select * from raw where source = $source order by uri, revision", {"source": source}, raw=raw
    ).to_pylist()
