"""Silver: normalised text with quality signals, and which documents are duplicates.

`silver/documents` holds every document that was parsed and passed the filters, `silver/quarantine` every
other document with the reason, and `silver/duplicates` every duplicate with the document that is kept for it.
"""

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

import dagster as dg
import pyarrow as pa

from assets.dagster.metadata import dagster_asset_options, dagster_result
from assets.dedup.minhash import SIGNATURE_SCHEMA, signature_batches
from assets.dedup.near_duplicates import find_duplicates
from assets.engine.limits import PARSED_BYTES, LocalLimits
from assets.engine.relations import Relations
from assets.engine.step import begin_step
from assets.lake.audits import readable_version
from assets.lake.ids import config_digest
from assets.lake.lake import Lake
from assets.lake.tables import DOCUMENTS, DUPLICATES, QUARANTINE, RAW_DOCUMENTS, SIGNATURES
from assets.parsing.parse import PARSED_DOCUMENT_SCHEMA, PARSER_VERSION, parse_document_batches
from assets.recipe import Recipe
from assets.sources.revisions import IS_ARCHIVE, define_latest_revisions
from assets.sources.source_registry import SourceRegistry
from retrieval.access import SCOPE_SQL

LOCAL_DOCUMENTS = 2_000_000
"""Documents up to which this process compares all with all: their bands take 0.3 kB each."""
LOCAL_LOOKUP_DOCUMENTS = 20_000_000
"""Documents in whose bands this process looks a batch up: a pass over 0.3 kB each."""

_DOCUMENT_COLUMNS = [name for name in DOCUMENTS.schema.names if name != "OpenLineage_RunId"]


def _source_groups(sources: SourceRegistry) -> pa.Table:
    """Returns a table of the groups that may read each source's documents: `source`, `access_groups`."""
    found = sources.list()
    return pa.table(
        {
            "source": pa.array([source.name for source in found], pa.string()),
            "access_groups": pa.array([source.access_groups for source in found], pa.string()),
        }
    )


def has_silver_regrouped(lake: Lake, version: int, groups: pa.Table) -> bool:
    """Returns whether the groups of a source have changed since rows of `silver.documents` were written."""
    found = lake.query(
        """
        select count(*) as n from (select distinct source, access_groups from documents) as d
        join groups as g on d.source = g.source and d.access_groups is distinct from g.access_groups
        """,
        documents=lake.delta(DOCUMENTS.name, version),
        groups=groups,
    )
    return bool(found["n"][0].as_py())


def define_silver_documents(on: Relations, parsed: str, regrouped: bool) -> None:
    """Defines `parsed_well`, new rows of `silver.documents`, and `documents_scope`, the rows they replace.

    Args:
        on: The relations `source_groups` and `latest_revisions`, and `documents` if `regrouped` is true.
        parsed: The name of the relation with the parser's results for the latest revisions.
        regrouped: Whether documents whose source now has other groups are updated.
    """
    columns = ", ".join("g.access_groups" if c == "access_groups" else f"d.{c}" for c in _DOCUMENT_COLUMNS)
    well = f"""
        SELECT /*+ BROADCAST(g) */ {columns} FROM {{{parsed}}} AS d
        LEFT JOIN {{source_groups}} AS g ON d.source = g.source WHERE d.stage IS NULL
    """
    scope = "SELECT doc_id FROM {latest_revisions}"
    if regrouped:
        on.define(
            "regrouped",
            f"""
            SELECT /*+ BROADCAST(g), BROADCAST(r) */ {columns} FROM {{documents}} AS d
            ANTI JOIN {{latest_revisions}} AS r ON d.doc_id = r.doc_id
            JOIN {{source_groups}} AS g ON d.source = g.source
            WHERE d.access_groups IS DISTINCT FROM g.access_groups
            """,
            reused=True,
        )
        well += f" UNION ALL SELECT {', '.join(_DOCUMENT_COLUMNS)} FROM {{regrouped}}"
        scope += " UNION ALL SELECT doc_id FROM {regrouped}"
    on.define("parsed_well", well)
    on.define("documents_scope", scope)


@dg.multi_asset(
    name="documents",
    specs=[dg.AssetSpec(**dagster_asset_options(table, RAW_DOCUMENTS)) for table in (QUARANTINE, DOCUMENTS)],
    pool="spark",
)
def documents_asset(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    sources: dg.ResourceParam[SourceRegistry],
) -> Iterator[dg.MaterializeResult]:
    """Parses new and changed documents; those that can not be parsed or fail a filter are quarantined."""
    raw = {RAW_DOCUMENTS: readable_version(lake, RAW_DOCUMENTS)}
    digest = config_digest(config_digest(PARSER_VERSION, recipe.parser), recipe.quality)
    kept, refused = (
        begin_step(lake, table, raw, run_id=context.run_id, config_digest=digest)
        for table in (DOCUMENTS, QUARANTINE)
    )
    groups = _source_groups(sources)
    regrouped = not kept.rebuild and has_silver_regrouped(lake, kept.version, groups)
    if not (kept.idle and refused.idle and not regrouped):
        limits = LocalLimits(change_bytes=PARSED_BYTES)
        regrouped_in = (DOCUMENTS,) if regrouped else ()
        with kept.relations((RAW_DOCUMENTS,), worked_on=regrouped_in, limits=limits) as on:
            on.add("source_groups", groups)
            define_latest_revisions(on, "latest_revisions", "changed_raw_documents")
            parse = partial(parse_document_batches, thresholds=recipe.quality, limits=recipe.parser)
            there = f"SELECT * FROM {{latest_revisions}} WHERE NOT deleted AND NOT {IS_ARCHIVE}"
            on.map_batches("parsed", there, parse, PARSED_DOCUMENT_SCHEMA, spread=True, reused=True)
            on.define("refused", "SELECT * FROM {parsed} WHERE stage IS NOT NULL")
            on.define("quarantine_scope", "SELECT doc_id FROM {latest_revisions}")
            define_silver_documents(on, "parsed", regrouped)
            # The commit to documents carries the watermark, so it comes last.
            refused.merge(on, "refused", "quarantine_scope")
            kept.merge(on, "parsed_well", "documents_scope")
    yield dagster_result(lake, QUARANTINE)
    yield dagster_result(lake, DOCUMENTS)


@dg.asset(**dagster_asset_options(SIGNATURES, DOCUMENTS), pool="spark")
def signatures_asset(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], recipe: dg.ResourceParam[Recipe]
) -> dg.MaterializeResult:
    """Computes the MinHash signature of each new or changed text."""
    step = begin_step(
        lake,
        SIGNATURES,
        {DOCUMENTS: readable_version(lake, DOCUMENTS)},
        run_id=context.run_id,
        config_digest=recipe.minhash.config_hash,
    )
    if not step.idle:
        with step.relations((DOCUMENTS,)) as on:
            sign = partial(signature_batches, config=recipe.minhash)
            texts = "SELECT doc_id, text, text_sha256 FROM {changed_documents} WHERE NOT is_deleted"
            on.map_batches("signed", texts, sign, SIGNATURE_SCHEMA)
            # Who may read a document decides what it is compared with.
            on.define(
                "signatures",
                f"""
                SELECT {", ".join(f"s.{name}" for name in SIGNATURE_SCHEMA.names)}, d.access_groups
                FROM {{signed}} AS s JOIN {{changed_documents}} AS d ON s.doc_id = d.doc_id
                """,
            )
            on.define("scope", "SELECT doc_id FROM {changed_documents}", reused=True)
            step.merge(on, "signatures", "scope")
    return dagster_result(lake, SIGNATURES)


@dg.asset(**dagster_asset_options(DUPLICATES, SIGNATURES, DOCUMENTS), pool="spark")
def duplicates_asset(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], recipe: dg.ResourceParam[Recipe]
) -> dg.MaterializeResult:
    """Compares new and changed documents with all others, and decides which are duplicates of which."""
    version = lake.version(SIGNATURES.name)
    # Documents as the signatures saw them, so that every one of them has its signature; with the columns that
    # an upgrade has added since.
    signed = lake.settled_version(DOCUMENTS.name, lake.inputs_of(SIGNATURES.name, version)[DOCUMENTS.name])
    step = begin_step(
        lake,
        DUPLICATES,
        {SIGNATURES: version, DOCUMENTS: signed},
        run_id=context.run_id,
        config_digest=recipe.minhash.decision_hash,
    )
    if step.idle:
        return dagster_result(lake, DUPLICATES)
    incremental = not step.rebuild
    with step.relations(
        changes_of=(SIGNATURES,) if incremental else (),
        tables=(DOCUMENTS, SIGNATURES, DUPLICATES),
        limits=LocalLimits(table_rows=LOCAL_LOOKUP_DOCUMENTS if incremental else LOCAL_DOCUMENTS),
    ) as on:
        if incremental:
            step.define_replaced(on, SIGNATURES)
        counts = find_duplicates(on, recipe.minhash, SCOPE_SQL, incremental)
        step.merge(on, "found_duplicates", "affected_documents")
    return dagster_result(lake, DUPLICATES, **asdict(counts))
