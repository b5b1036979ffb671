"""Silver: normalised text with its quality signals, and which documents say the same.

`silver/documents` holds every document that was parsed and passed its filters, `silver/quarantine` every
other with the reason; `silver/duplicates` says which documents another one stands for.
"""

from collections.abc import Iterator
from functools import partial

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from assets.dagster.metadata import described, report
from assets.dedup.minhash import SIGNATURE_SCHEMA, signature_batches
from assets.dedup.near_duplicates import Duplicates, find_duplicates, find_duplicates_in_spark
from assets.engine.step import GONE, WORK_BYTES, Step, begin, mapped
from assets.lake.ids import config_digest
from assets.lake.lake import Lake
from assets.lake.tables import DOCUMENTS, DUPLICATES, QUARANTINE, RAW_DOCUMENTS, SIGNATURES
from assets.parsing.parse import PARSED_DOCUMENT_SCHEMA, PARSER_VERSION, parse_document_batches
from assets.recipe import Recipe
from assets.sources.revisions import latest_bodies, latest_bodies_here
from assets.sources.source_registry import SourceRegistry
from retrieval.access import SCOPE_SQL

DRIVER_DOCUMENT_CAP = 2_000_000
"""Documents up to which this process compares all with all: their bands take 0.3 kB each."""
DRIVER_LAKE_CAP = 20_000_000
"""Documents in whose bands this process looks a batch up: a pass over 0.3 kB each."""
SEEN_BY = SCOPE_SQL
"""A document may only stand for one that the same people see."""


def access_groups(sources: SourceRegistry) -> Column:
    """Of each row with a `source`: the groups that may see it; NULL is everybody."""
    given = [F.lit(part) for s in sources.list() if s.access_groups for part in (s.name, s.access_groups)]
    return F.create_map(*given)[F.col("source")] if given else F.lit(None).cast("string")


def _given(rows: pa.Table, sources: SourceRegistry) -> pa.Table:
    """Rows with a `source` and the groups of those, as `access_groups` gives them."""
    groups = {source.name: source.access_groups for source in sources.list()}
    place = rows.schema.get_field_index("access_groups")
    given = pa.array([groups.get(name) for name in rows["source"].to_pylist()], pa.string())
    return rows.set_column(place, "access_groups", given)


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
        parse = partial(parse_document_batches, thresholds=recipe.quality, limits=recipe.parser)
        here = kept.changed_here(RAW_DOCUMENTS, WORK_BYTES) if moved is None else None
        # The commit to documents carries the watermark, so it comes last.
        if here is not None:
            arrived = latest_bodies_here(here)
            there = arrived.filter(pc.invert(arrived["deleted"])).drop([GONE])
            found, ids = (
                _given(mapped(there, parse, PARSED_DOCUMENT_SCHEMA), sources),
                arrived.select(["doc_id"]),
            )
            refused.merge(found.filter(found["stage"].is_valid()), ids)
            kept.merge(found.filter(found["stage"].is_null()), ids)
        else:
            newest = latest_bodies(kept.changed(RAW_DOCUMENTS))
            parsed = (
                newest.where("not deleted")
                .repartition(2 * lake.spark.sparkContext.defaultParallelism)
                .mapInArrow(parse, from_arrow_schema(PARSED_DOCUMENT_SCHEMA))
                .withColumn("access_groups", access_groups(sources))
                .persist()
            )
            scope = newest.select("doc_id")
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
        columns = ["doc_id", "text", "text_sha256"]
        sign = partial(signature_batches, config=recipe.minhash)
        here = step.changed_here(DOCUMENTS)
        if here is not None:
            there = here.filter(pc.invert(here[GONE]))
            signed = mapped(there.select(columns), sign, SIGNATURE_SCHEMA)
            seen_by = there["access_groups"].take(pc.index_in(signed["doc_id"], there["doc_id"]))
            step.merge(signed.append_column("access_groups", seen_by), here.select(["doc_id"]))
        else:
            changed = step.changed(DOCUMENTS)
            texts = changed.where(~F.col(GONE)).select(columns)
            # Who may see a document decides what it is compared with.
            signed = texts.mapInArrow(sign, from_arrow_schema(SIGNATURE_SCHEMA)).join(
                changed.select("doc_id", "access_groups"), "doc_id"
            )
            step.merge(signed, changed.select("doc_id"))
    return report(lake, SIGNATURES)


@dg.asset(**described(DUPLICATES, SIGNATURES, DOCUMENTS), pool="spark")
def duplicates(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], recipe: dg.ResourceParam[Recipe]
) -> dg.MaterializeResult:
    """Compares what changed with the lake, and settles who stands for whom."""
    version = lake.version(SIGNATURES.name)
    # Documents as the signatures saw them, so that every one of them has its signature; with the columns that
    # an upgrade has added since.
    signed = lake.settled_version(DOCUMENTS.name, lake.inputs_of(SIGNATURES.name, version)[DOCUMENTS.name])
    step = begin(
        lake,
        DUPLICATES,
        {SIGNATURES: version, DOCUMENTS: signed},
        run_id=context.run_id,
        config_digest=recipe.minhash.decision_hash,
    )
    if step.idle:
        return report(lake, DUPLICATES)
    found = _found_here(step, recipe) or find_duplicates_in_spark(
        step.current(DOCUMENTS),
        step.current(SIGNATURES),
        lake.frame(DUPLICATES.name, step.version),
        recipe.minhash,
        changed=None if step.rebuild else step.changed(SIGNATURES),
        replaced=None if step.rebuild else step.replaced(SIGNATURES),
        seen_by=SEEN_BY,
    )
    step.merge(found.rows, found.affected)
    counts = {name: getattr(found, name) for name in ("candidate_pairs", "similar_pairs", "hot_buckets")}
    return report(lake, DUPLICATES, **counts)


def _found_here(step: Step, recipe: Recipe) -> Duplicates[pa.Table] | None:
    """What follows from the step's changes, without a JVM; None where they, or the lake, are too large."""
    lake, windows = step.lake, step.windows
    documents = lake.delta(DOCUMENTS.name, windows[DOCUMENTS.name].until)
    changed = replaced = None
    if not step.rebuild:
        changed, replaced = step.changed_here(SIGNATURES), step.replaced_here(SIGNATURES)
        if changed is None or replaced is None:
            return None
    if lake.query("select count(*) as n from t", t=documents)["n"][0].as_py() > (
        DRIVER_DOCUMENT_CAP if step.rebuild else DRIVER_LAKE_CAP
    ):
        return None
    return find_duplicates(
        documents,
        lake.delta(SIGNATURES.name, windows[SIGNATURES.name].until),
        lake.delta(DUPLICATES.name, step.version),
        recipe.minhash,
        changed,
        replaced,
        seen_by=SEEN_BY,
    )
