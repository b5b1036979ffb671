"""Silver: normalised text with its quality signals, and which documents say the same.

`silver/documents` holds every document that was parsed and passed its filters, `silver/quarantine` every
other with the reason; `silver/duplicates` says which documents another one stands for.
"""

from collections.abc import Iterator
from functools import partial

import dagster as dg
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from assets.ids import config_digest
from assets.lake import Lake
from assets.recipe import Recipe
from assets.report import described, report
from assets.step import GONE, begin
from assets.tables import DOCUMENTS, DUPLICATES, QUARANTINE, RAW_DOCUMENTS, SIGNATURES
from assets.transforms.minhash import SIGNATURE_SCHEMA, signature_batches
from assets.transforms.near_duplicates import find_duplicates
from assets.transforms.parse import PARSED_SCHEMA, PARSER_VERSION, parse_batches
from assets.transforms.registry import SourceRegistry
from assets.transforms.revisions import latest_bodies
from retrieval.access import SEPARATOR


def access_groups(sources: SourceRegistry) -> Column:
    """Of each row with a `source`: the groups that may see it; NULL is everybody."""
    given = [F.lit(part) for s in sources.list() if s.access_groups for part in (s.name, s.access_groups)]
    return F.create_map(*given)[F.col("source")] if given else F.lit(None).cast("string")


def given_to_others(lake: Lake, version: int, sources: SourceRegistry) -> DataFrame | None:
    """Rows of `silver.documents` whose source has other groups by now, with those; None without any."""
    wanted = {source.name: source.access_groups for source in sources.list()}
    there = lake.query(
        "select distinct source, access_groups from documents",
        documents=lake.delta(DOCUMENTS.name, version),
    ).to_pylist()
    stale = {row["source"] for row in there if row["access_groups"] != wanted.get(row["source"])}
    if not (stale := stale & wanted.keys()):
        return None
    rows = lake.frame(DOCUMENTS.name, version).where(F.col("source").isin(*stale))
    return rows.withColumn("access_groups", access_groups(sources))


@dg.multi_asset(
    specs=[dg.AssetSpec(**described(table, RAW_DOCUMENTS)) for table in (QUARANTINE, DOCUMENTS)],
    pool="spark",
)
def documents(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    sources: dg.ResourceParam[SourceRegistry],
) -> Iterator[dg.MaterializeResult]:
    """Parses what arrived; what can not be parsed or fails a filter is quarantined with the reason."""
    raw = {RAW_DOCUMENTS: lake.readable_version(RAW_DOCUMENTS)}
    digest = config_digest(config_digest(PARSER_VERSION, recipe.parser), recipe.quality)
    kept, refused = (
        begin(lake, table, raw, run_id=context.run_id, config_digest=digest)
        for table in (DOCUMENTS, QUARANTINE)
    )
    moved = None if kept.rebuild else given_to_others(lake, kept.version, sources)
    if not (kept.idle and refused.idle and moved is None):
        newest = latest_bodies(kept.changed(RAW_DOCUMENTS))
        parsed = (
            newest.where("not deleted")
            .repartition(2 * lake.spark.sparkContext.defaultParallelism)
            .mapInArrow(
                partial(parse_batches, thresholds=recipe.quality, limits=recipe.parser),
                from_arrow_schema(PARSED_SCHEMA),
            )
            .withColumn("access_groups", access_groups(sources))
            .persist()
        )
        scope = newest.select("doc_id")
        # The commit to documents carries the watermark, so it comes last.
        refused.merge(parsed.where("stage is not null"), scope)
        parsed_well = parsed.where("stage is null")
        if moved is not None:
            moved = moved.join(F.broadcast(scope), "doc_id", "left_anti")
            parsed_well = parsed_well.unionByName(moved, allowMissingColumns=True)
            scope = scope.unionByName(moved.select("doc_id"))
        kept.merge(parsed_well, scope)
        parsed.unpersist()
    yield report(lake, QUARANTINE)
    yield report(lake, DOCUMENTS)


@dg.asset(**described(SIGNATURES, DOCUMENTS), pool="spark")
def signatures(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], recipe: dg.ResourceParam[Recipe]
) -> dg.MaterializeResult:
    """Signs each new or changed text."""
    step = begin(
        lake,
        SIGNATURES,
        {DOCUMENTS: lake.readable_version(DOCUMENTS)},
        run_id=context.run_id,
        config_digest=recipe.minhash.config_hash,
    )
    if not step.idle:
        changed = step.changed(DOCUMENTS)
        signed = (
            changed.where(~F.col(GONE))
            .select("doc_id", "text", "text_sha256")
            .mapInArrow(
                partial(signature_batches, config=recipe.minhash), from_arrow_schema(SIGNATURE_SCHEMA)
            )
            # Who may see a document decides what it is compared with.
            .join(changed.select("doc_id", "access_groups"), "doc_id")
        )
        step.merge(signed, changed.select("doc_id"))
    return report(lake, SIGNATURES)


@dg.asset(**described(DUPLICATES, SIGNATURES, DOCUMENTS), pool="spark")
def duplicates(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], recipe: dg.ResourceParam[Recipe]
) -> dg.MaterializeResult:
    """Compares what changed with the lake, and settles who stands for whom."""
    version = lake.version(SIGNATURES.name)
    step = begin(
        lake,
        DUPLICATES,
        # Documents as the signatures saw them, so that every one of them has its signature.
        {SIGNATURES: version, DOCUMENTS: lake.inputs_of(SIGNATURES.name, version)[DOCUMENTS.name]},
        run_id=context.run_id,
        config_digest=recipe.minhash.decision_hash,
    )
    found = None
    if not step.idle:
        # A document may only stand for one that the same people see.
        seen_by = F.concat_ws(SEPARATOR, "tenant", "access_groups")
        found = find_duplicates(
            step.current(DOCUMENTS).withColumn("tenant", seen_by),
            step.current(SIGNATURES),
            lake.frame(DUPLICATES.name, step.version),
            recipe.minhash,
            changed=None if step.rebuild else step.changed(SIGNATURES).select("doc_id"),
            replaced=None if step.rebuild else step.replaced(SIGNATURES).select("doc_id", "bands"),
        )
        step.merge(found.rows, found.affected)
    if found is None:
        return report(lake, DUPLICATES)
    return report(lake, DUPLICATES, candidate_pairs=found.candidate_pairs, hot_buckets=found.hot_buckets)
