"""What Dagster shows of a step: rows, schema, where each column comes from, versions read, a sample."""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
from dagster import MetadataValue

from assets.lake import CODE_VERSION, Lake
from assets.tables import Table

_COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "silver.documents": {
        "doc_id": ("bronze.raw_documents.doc_id",),
        "content_sha256": ("bronze.raw_documents.content_sha256",),
        "title": ("bronze.raw_documents.body", "bronze.raw_documents.title"),
        "text": ("bronze.raw_documents.body",),
        "text_sha256": ("bronze.raw_documents.body",),
        "language": ("bronze.raw_documents.body",),
        "headings": ("bronze.raw_documents.body",),
        "first_seen_at": ("bronze.raw_documents.first_seen_at",),
    },
    "silver.quarantine": {
        "doc_id": ("bronze.raw_documents.doc_id",),
        "reason": ("bronze.raw_documents.body", "bronze.raw_documents.error"),
    },
    "silver.signatures": {
        "doc_id": ("silver.documents.doc_id",),
        "signature": ("silver.documents.text",),
        "bands": ("silver.documents.text",),
    },
    "silver.duplicates": {
        "doc_id": ("silver.signatures.doc_id",),
        "canonical_id": ("silver.signatures.bands", "silver.documents.first_seen_at"),
        "jaccard": ("silver.documents.text",),
    },
    "gold.chunks": {
        "chunk_id": ("silver.documents.doc_id", "silver.documents.text"),
        "doc_id": ("silver.documents.doc_id", "silver.duplicates.doc_id"),
        "text": ("silver.documents.text",),
        "heading": ("silver.documents.headings",),
    },
    "gold.embeddings": {
        "text_sha256": ("gold.chunks.text_sha256",),
        "vector": ("gold.chunks.text",),
    },
}
"""Which columns each column is made from, for Dagster's column lineage."""

_PRIVATE = {
    "body",
    "text",
    "title",
    "question",
    "answer",
    "citations",
    "vector",
    "signature",
    "bands",
    "headings",
}
"""Columns that a sample leaves out: they can hold personal data, or are of no use to a reader."""


POLICIES: dict[str, Any] = {
    # Every day's run materializes everything, changed or not: two days without are worth a look.
    "freshness_policy": dg.FreshnessPolicy.time_window(
        fail_window=timedelta(hours=49), warn_window=timedelta(hours=25)
    ),
    # An input that says what it said before starts nothing, and nothing follows from one whose gate failed.
    "automation_condition": dg.AutomationCondition.eager().replace(
        "any_deps_updated",
        dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed()),
    )
    & dg.AutomationCondition.all_deps_blocking_checks_passed(),
}
"""When an asset is made without being asked, and when it is too old."""


def asset_key(name: str) -> dg.AssetKey:
    """The asset key of `layer.table`."""
    return dg.AssetKey(name.split("."))


def described(
    table: Table, *inputs: Table, kinds: Collection[str] = ("spark", "deltalake")
) -> dict[str, Any]:
    """What Dagster shows of the asset that makes a table: for `dg.asset` and `dg.AssetSpec`."""
    return {
        "key": asset_key(table.name),
        "deps": [asset_key(each.name) for each in inputs],
        "description": table.about,
        "group_name": table.name.partition(".")[0],
        "kinds": set(kinds),
        "owners": ["team:headwater"],
        "code_version": CODE_VERSION,
        **POLICIES,
    }


def report(lake: Lake, table: Table, *, key: dg.AssetKey | None = None, **extra: Any) -> dg.MaterializeResult:
    """The result of a step over a table, as it stands after it.

    Args:
        lake: Where the table is.
        table: The table.
        key: The asset's key where it is not the table's name.
        **extra: Further metadata, name to value.
    """
    newest = lake.delta(table.name)
    commit = lake.last_commit(table.name)
    metadata: dict[str, Any] = {
        "dagster/row_count": lake.query("select count(*) as n from t", t=newest)["n"][0].as_py(),
        "dagster/column_schema": _schema(table),
        "dagster/uri": lake.path(table.name),
        "delta_version": newest.version(),
        "sample": _sample(lake, table),
        **extra,
    }
    if table.name in _COLUMNS:
        metadata["dagster/column_lineage"] = _column_lineage(_COLUMNS[table.name])
    if commit is not None:
        metadata |= {
            "input_versions": commit.lineage.inputs,
            "code_version": commit.lineage.code_version,
            "committed_by_run": commit.lineage.run_id,
            "commit_metrics": {k: v for k, v in commit.metrics.items() if isinstance(v, int | str)},
        }
    return dg.MaterializeResult(
        asset_key=key or asset_key(table.name),
        metadata=metadata,
        data_version=dg.DataVersion(lake.content_digest(table)),
    )


def _schema(table: Table) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                field.name,
                str(field.type),
                constraints=dg.TableColumnConstraints(
                    nullable=field.nullable, unique=table.key == (field.name,)
                ),
            )
            for field in table.schema
        ]
    )


def _column_lineage(columns: Mapping[str, tuple[str, ...]]) -> dg.TableColumnLineage:
    def source(path: str) -> dg.TableColumnDep:
        name, _, column = path.rpartition(".")
        return dg.TableColumnDep(asset_key=asset_key(name), column_name=column)

    return dg.TableColumnLineage({column: [source(p) for p in paths] for column, paths in columns.items()})


def _sample(lake: Lake, table: Table) -> MetadataValue:
    columns = [name for name in table.schema.names if name not in _PRIVATE]
    quoted = ", ".join(f'"{name}"::varchar as "{name}"' for name in columns)
    key = ", ".join(f'"{name}"' for name in table.key)
    rows = lake.query(f"select {quoted} from t order by {key} limit 5", t=lake.delta(table.name)).to_pylist()
    return MetadataValue.table(
        [dg.TableRecord({k: v or "" for k, v in row.items()}) for row in rows],
        dg.TableSchema([dg.TableColumn(name) for name in columns]),
    )


def funnel(lake: Lake) -> dict[str, int]:
    """How many documents each stage kept, by the newest versions.

    Returns:
        `raw`, `exact_duplicates`, `near_duplicates`, `quarantined`, `documents`, `chunks` and `embedded`;
        `raw` is the sum of `documents`, the duplicates and `quarantined` when every stage is up to date.
    """
    counts = lake.query(
        """
        select
          (select count(*) from (select arg_max(deleted, revision) as deleted from raw group by doc_id)
           where not deleted) as raw,
          (select count(*) from duplicates where method = 'exact') as exact_duplicates,
          (select count(*) from duplicates where method <> 'exact') as near_duplicates,
          (select count(*) from quarantine) as quarantined,
          (select count(*) from documents) - (select count(*) from duplicates) as documents,
          (select count(*) from chunks) as chunks,
          (select count(*) from embeddings) as embedded
        """,
        raw=lake.delta("bronze.raw_documents"),
        **{name: lake.delta(f"silver.{name}") for name in ("duplicates", "quarantine", "documents")},
        **{name: lake.delta(f"gold.{name}") for name in ("chunks", "embeddings")},
    )
    return counts.to_pylist()[0]
