"""Silver: normalised text with quality signals, and which documents are duplicates.

`silver/documents` holds every readable document, with whether it is fit for training, `silver/quarantine`
every other document with the reason, and `silver/duplicates` every duplicate with the document that is kept
for it.
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
from assets.engine.local_relations import LocalRelations
from assets.engine.relations import IS_DELETED, Relations
from assets.engine.step import begin_step
from assets.lake.audits import readable_version
from assets.lake.lake import Lake
from assets.lake.quarantine_decisions import quarantine_decisions_version
from assets.lake.tables import (
    DOCUMENTS,
    DUPLICATES,
    QUARANTINE,
    QUARANTINE_DECISIONS,
    RAW_DOCUMENTS,
    SIGNATURES,
)
from assets.parsing.parse import PARSED_DOCUMENT_SCHEMA, PARSER_VERSION, parse_document_batches
from assets.recipe import Recipe
from assets.sources.revisions import IS_ARCHIVE, define_latest_revisions
from assets.sources.source_registry import SourceRegistry
from assets.text.license import license_unfit_reason
from assets.text.training_fit import TrainingThresholds, training_unfit_sql
from common.ids import config_digest
from common.progress import Progress
from retrieval.access import SCOPE_SQL

LOCAL_DOCUMENTS = 2_000_000
"""Documents up to which this process compares all with all: their bands take 0.3 kB each."""
LOCAL_LOOKUP_DOCUMENTS = 20_000_000
"""Documents in whose bands this process looks a batch up: a pass over 0.3 kB each."""

_DOCUMENT_COLUMNS = [name for name in DOCUMENTS.schema.names if name != "OpenLineage_RunId"]
_STATED_COLUMNS = {
    "access_groups": "new_groups",
    "training_fit": "unfit = ''",
    "training_unfit_reasons": "array_remove(split(unfit, ','), '')",
}
"""The columns of `silver.documents` that depend on settings, as SQL over `_stated`."""


def _source_settings(sources: SourceRegistry, training: TrainingThresholds) -> pa.Table:
    """Returns a table of what each source says of its documents: `source`, `source_groups`, `license_reason`.

    The groups are those that may read them, the reason is why their licence keeps them out of training sets.
    """
    found = sources.list()
    reasons = [license_unfit_reason(source.license, training.licenses) for source in found]
    return pa.table(
        {
            "source": pa.array([source.name for source in found], pa.string()),
            "source_groups": pa.array([source.access_groups for source in found], pa.string()),
            "license_reason": pa.array(reasons, pa.string()),
        }
    )


def _stated(rows: str, training: TrainingThresholds, stored: bool) -> str:
    """Returns SQL for documents with what the settings say of them: `new_groups` and `unfit`.

    Args:
        rows: The name of the relation with the documents.
        training: What is fit for training.
        stored: Whether they are rows of `silver.documents`, which have groups and reasons already.
    """
    columns = [f"d.{name}" for name in _DOCUMENT_COLUMNS if stored or name not in _STATED_COLUMNS]
    # The documents of a source that is gone keep their groups until they go too.
    groups = "CASE WHEN g.source IS NULL THEN d.access_groups ELSE g.source_groups END"
    columns.append(f"{groups if stored else 'g.source_groups'} AS new_groups")
    columns.append(f"{training_unfit_sql(training, 'g.license_reason')} AS unfit")
    return f"""
        SELECT /*+ BROADCAST(g) */ {", ".join(columns)}
        FROM {{{rows}}} AS d LEFT JOIN {{source_settings}} AS g ON d.source = g.source
    """


_RESTATED = " OR ".join(f"{name} IS DISTINCT FROM ({sql})" for name, sql in _STATED_COLUMNS.items())
_NEW_COLUMNS = ", ".join(
    f"{_STATED_COLUMNS[name]} AS {name}" if name in _STATED_COLUMNS else name for name in _DOCUMENT_COLUMNS
)


def has_silver_restated(lake: Lake, version: int, settings: pa.Table, training: TrainingThresholds) -> bool:
    """Returns whether settings say other things of documents than `silver.documents` does.

    These are the groups that may read them, and why they are not fit for training.
    """
    with LocalRelations() as on:
        on.add_stored("documents", lake, DOCUMENTS.name, version)
        on.add("source_settings", settings)
        stated = _stated("documents", training, stored=True)
        return bool(on.row(f"SELECT count(*) FROM ({stated}) AS stated WHERE {_RESTATED}")[0])


def define_silver_documents(on: Relations, parsed: str, training: TrainingThresholds, restated: bool) -> None:
    """Defines `parsed_well`, new rows of `silver.documents`, and `documents_scope`, the rows they replace.

    Args:
        on: The relations `source_settings` and `latest_revisions`, and `documents` if `restated` is true.
        parsed: The name of the relation with the parser's results for the latest revisions.
        training: What is fit for training.
        restated: Whether documents of which the settings now say other things are updated.
    """
    on.define("parsed_readable", f"SELECT * FROM {{{parsed}}} WHERE stage IS NULL")
    stated = _stated("parsed_readable", training, stored=False)
    well = f"SELECT {_NEW_COLUMNS} FROM ({stated}) AS stated"
    scope = "SELECT doc_id FROM {latest_revisions}"
    if restated:
        stated = _stated("documents", training, stored=True)
        on.define(
            "restated",
            f"""
            SELECT /*+ BROADCAST(r) */ {_NEW_COLUMNS} FROM ({stated}) AS stated
            ANTI JOIN {{latest_revisions}} AS r ON stated.doc_id = r.doc_id WHERE {_RESTATED}
            """,
            reused=True,
        )
        well += f" UNION ALL SELECT {', '.join(_DOCUMENT_COLUMNS)} FROM {{restated}}"
        scope += " UNION ALL SELECT doc_id FROM {restated}"
    on.define("parsed_well", well)
    on.define("documents_scope", scope)


def define_revisions_to_parse(on: Relations, retried: bool) -> None:
    """Defines `latest_revisions`, the newest revision of each new, changed or decided-about document.

    Defines `released` too: the documents that a person released from the quarantine.

    Args:
        on: The relations `changed_raw_documents`, `quarantine_decisions` and `changed_quarantine_decisions`,
            and `raw_documents` if `retried` is true.
        retried: Whether there are new decisions about documents that may not have changed.
    """
    on.define("released", "SELECT DISTINCT doc_id FROM {quarantine_decisions} WHERE decision = 'release'")
    columns = ", ".join(RAW_DOCUMENTS.schema.names)
    appended = "changed_raw_documents"
    if on.row(f"SELECT count(*) FROM {{changed_raw_documents}} WHERE {IS_DELETED}")[0]:
        # Revisions are only deleted with all others of their document: it is gone, unless it came back since.
        gone = columns.replace(" deleted", f" {IS_DELETED} AS deleted")
        there = f"FROM {{changed_raw_documents}} WHERE NOT {IS_DELETED}"
        on.define("there_again", f"SELECT DISTINCT doc_id {there}", reused=True)
        appended = "appended_or_gone"
        on.define(
            appended,
            f"""
            SELECT {columns} {there} UNION ALL
            SELECT {gone} FROM {{changed_raw_documents}} ANTI JOIN {{there_again}} USING (doc_id)
            WHERE {IS_DELETED}
            """,
        )
    if retried:
        on.define("retried", "SELECT DISTINCT doc_id FROM {changed_quarantine_decisions}", reused=True)
        on.define(
            "appended_or_retried",
            f"""
            SELECT {columns} FROM {{{appended}}} ANTI JOIN {{retried}} USING (doc_id)
            UNION ALL SELECT {columns} FROM {{raw_documents}} SEMI JOIN {{retried}} USING (doc_id)
            """,
        )
        appended = "appended_or_retried"
    define_latest_revisions(on, "latest_revisions", appended)


def documents_digest(recipe: Recipe, parser_version: str = PARSER_VERSION) -> str:
    """Returns a digest of what decides which text a document has, besides its bytes."""
    return config_digest(config_digest(parser_version, recipe.parser), recipe.readability)


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
    """Parses new and changed documents; those of which nothing useful can be made are quarantined."""
    inputs = {
        RAW_DOCUMENTS: readable_version(lake, RAW_DOCUMENTS),
        QUARANTINE_DECISIONS: quarantine_decisions_version(lake),
    }
    digest = documents_digest(recipe)
    kept, refused = (
        begin_step(lake, table, inputs, run_id=context.run_id, config_digest=digest)
        for table in (DOCUMENTS, QUARANTINE)
    )
    settings = _source_settings(sources, recipe.training)
    restated = not kept.rebuild and has_silver_restated(lake, kept.version, settings, recipe.training)
    if not (kept.idle and refused.idle and not restated):
        limits = LocalLimits(change_bytes=PARSED_BYTES)
        decisions = kept.windows[QUARANTINE_DECISIONS.name]
        retried = not kept.rebuild and decisions.since != decisions.until
        with kept.relations(
            (RAW_DOCUMENTS, QUARANTINE_DECISIONS),
            (QUARANTINE_DECISIONS, *((RAW_DOCUMENTS,) if retried else ())),
            worked_on=(DOCUMENTS,) if restated else (),
            limits=limits,
        ) as on:
            on.add("source_settings", settings)
            define_revisions_to_parse(on, retried)
            parse = partial(parse_document_batches, thresholds=recipe.readability, limits=recipe.parser)
            there = f"""
                SELECT /*+ BROADCAST(a) */ r.*, a.doc_id IS NOT NULL AS released
                FROM {{latest_revisions}} AS r LEFT JOIN {{released}} AS a ON r.doc_id = a.doc_id
                WHERE NOT deleted AND NOT {IS_ARCHIVE}
            """
            on.map_batches(
                "parsed",
                there,
                parse,
                PARSED_DOCUMENT_SCHEMA,
                Progress("documents parsed"),
                spread=True,
                reused=True,
            )
            on.define("refused", "SELECT * FROM {parsed} WHERE stage IS NOT NULL")
            on.define("quarantine_scope", "SELECT doc_id FROM {latest_revisions}")
            define_silver_documents(on, "parsed", recipe.training, restated)
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
            on.map_batches("signed", texts, sign, SIGNATURE_SCHEMA, Progress("documents signed"))
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
