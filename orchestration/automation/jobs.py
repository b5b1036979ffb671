"""The jobs: `refresh` makes everything, `answers` a batch, `maintenance` keeps the state folder small."""

from collections import Counter

import dagster as dg

from assets.bronze import source_documents_asset
from assets.dagster.models import MODEL_GROUP
from assets.gold import answers_asset
from assets.lake.lake import Lake
from assets.lake.maintenance import compact_and_vacuum, needed_table_versions
from assets.lake.releases import prune_releases
from assets.lake.tables import TABLES
from common.progress import Progress
from retrieval.index.index import Index

_ANSWERS = dg.AssetSelection.assets(answers_asset)
# `bronze/raw_documents` reads every source by itself.
_SINGLE_SOURCES = dg.AssetSelection.assets(source_documents_asset)

refresh_job = dg.define_asset_job(
    "refresh",
    dg.AssetSelection.all() - _ANSWERS - _SINGLE_SOURCES - dg.AssetSelection.groups(MODEL_GROUP),
    description="Everything, from the sources to the release.",
)

answers_job = dg.define_asset_job(
    "answers", _ANSWERS, description="A set of questions, answered from the live release."
)


@dg.op(pool="spark", description="Compacts tables, deletes files that nothing needs, maintains the index.")
def maintenance_op(
    context: dg.OpExecutionContext,
    lake: dg.ResourceParam[Lake],
    search_index: dg.ResourceParam[Index],
    retention_days: dg.ResourceParam[int],
    releases_kept: dg.ResourceParam[int],
) -> None:
    """Runs maintenance, which keeps the state folder small; it holds the assets' pool, so no asset writes."""
    prune_releases(search_index, releases_kept)
    state = search_index.newest_state()
    needed = needed_table_versions(lake, search_index.releases(), [state.lineage.inputs] if state else [])
    progress, done = Progress("tables tidied", len(TABLES)), []
    for name in TABLES:
        done.append(compact_and_vacuum(lake, name, needed[name], retention_days))
        progress.advance()
    totals = Counter({"files_removed": sum(each.files_removed for each in done)})
    totals |= Counter({f"{each.table} files": each.files_after for each in done})
    context.add_output_metadata({**totals, **search_index.maintain()})


@dg.job(name="maintenance", description="Nightly housekeeping; changes no row.")
def maintenance_job() -> None:
    """Runs maintenance as one op, which holds the assets' pool from start to end."""
    maintenance_op()
