"""Dagster metadata of assets: rows, bytes, seconds, schema, column lineage, versions, a sample, charts."""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster import MetadataValue

from assets.columns import Table, column_comment
from assets.dagster.charts import bar_chart, chart_markdown, histogram_chart
from assets.dagster.column_lineage import column_sources, dagster_column_lineage
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import TABLES
from assets.sources.revisions import IS_ARCHIVE

logger = logging.getLogger(__name__)

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
    "positive",
    "negatives",
}
"""Columns that a sample leaves out: they can hold personal data, or are of no use to a reader."""


def _bars(title: str, rows: pa.Table) -> str:
    values = dict(zip(*(column.to_pylist() for column in rows.columns), strict=True))
    return chart_markdown(bar_chart(title, values))


def _histogram(title: str, rows: pa.Table) -> str:
    return chart_markdown(histogram_chart(title, rows.column(0).to_numpy()))


def _log_histogram(title: str, rows: pa.Table) -> str:
    return chart_markdown(histogram_chart(title, rows.column(0).to_numpy(), log=True))


_CHARTS: dict[str, dict[str, tuple[Callable[[str, pa.Table], str], str]]] = {
    "bronze.raw_documents": {
        "documents per media type": (
            _bars,
            """
            select coalesce(media_type, 'unknown') as kind, count(*) as n from (
                select arg_max(media_type, revision) as media_type, arg_max(deleted, revision) as deleted
                from t group by doc_id
            ) where not deleted group by 1 order by n desc, kind limit 12
            """,
        ),
    },
    "silver.documents": {
        "characters per document": (_log_histogram, "select char_count::double from t"),
        "documents per language": (
            _bars,
            "select language, count(*) as n from t group by 1 order by n desc, language limit 12",
        ),
        "documents that are not fit for training, per reason": (
            _bars,
            """
            select reason, count(*) as n from (select unnest(training_unfit_reasons) as reason from t)
            group by 1 order by n desc, reason limit 15
            """,
        ),
        "share of the source's words that arrived": (
            _histogram,
            "select text_coverage from t where text_coverage is not null",
        ),
        "share of words with a letter": (_histogram, "select alphabetic_word_ratio::double from t"),
        "share of characters in repeated lines": (
            _histogram,
            "select duplicate_line_char_fraction::double from t",
        ),
    },
    "silver.quarantine": {
        "documents per reason": (
            _bars,
            """
            select stage || ': ' || expectation as why, count(*) as n from t
            group by 1 order by n desc, why limit 15
            """,
        ),
    },
    "silver.duplicates": {
        "Jaccard similarity to the document kept": (
            _histogram,
            "select jaccard from t where method <> 'exact'",
        ),
    },
    "gold.chunks": {"tokens per chunk": (_histogram, "select token_count::double from t")},
    "gold.training_examples": {
        "examples per kind": (
            _bars,
            "select kind, count(*) as n from t where left_out is null group by 1 order by n desc, kind",
        ),
        "questions per kind": (
            _bars,
            """
            select query_kind, count(*) as n from t where left_out is null and kind = 'retrieval_pair'
            group by 1 order by n desc, query_kind
            """,
        ),
    },
}
"""What is drawn of each table: a title, how, and the query over the table `t`."""

_ROWS = "dagster/row_count"
_SAMPLE_CHARS = 48
"""Of a value in a sample: one cell of JSON would fill the page."""


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
    """Returns the asset key of the table `layer.table`."""
    return dg.AssetKey(name.split("."))


def dagster_asset_options(
    table: Table, *inputs: Table, kinds: Collection[str] = ("spark", "deltalake")
) -> dict[str, Any]:
    """Returns the arguments of `dg.asset` or `dg.AssetSpec` that describe a table's asset."""
    return {
        "key": asset_key(table.name),
        "deps": [asset_key(each.name) for each in inputs],
        "description": table.about,
        "group_name": table.name.partition(".")[0],
        "kinds": set(kinds),
        "tags": _tags(table),
        "metadata": {
            "dagster/column_schema": dagster_table_schema(table, column_sources(table, inputs)),
            "dagster/table_name": table.name,
        },
        "code_version": CODE_VERSION,
        **POLICIES,
    }


def _tags(table: Table) -> dict[str, str]:
    """What a person looks for in the catalog: tables behind a gate, and those that hold texts."""
    return {
        **({"headwater/gate": "yes"} if table.gated else {}),
        **({"headwater/holds_texts": "yes"} if _PRIVATE.intersection(table.schema.names) else {}),
    }


def dagster_result(
    lake: Lake, table: Table, *, key: dg.AssetKey | None = None, **extra: Any
) -> dg.MaterializeResult:
    """Returns the Dagster result of an asset, with the table's state after the step as metadata.

    Args:
        key: The asset's key, if it differs from the table's name.
        **extra: Further metadata by name.
    """
    newest = lake.delta(table.name)
    commit = lake.last_commit(table.name)
    inputs = [TABLES[name] for name in commit.lineage.inputs if name in TABLES] if commit else []
    files = pa.table(newest.get_add_actions())
    metadata: dict[str, Any] = {
        "seconds": _seconds(),
        "size_bytes": sum(files["size_bytes"].to_pylist()),
        "files": files.num_rows,
        "delta_version": newest.version(),
        **extra,
        "sample": _sample(lake, table),
        _ROWS: lake.query("select count(*) as n from t", t=newest)["n"][0].as_py(),
        "dagster/column_schema": dagster_table_schema(table, column_sources(table, inputs)),
        "dagster/uri": lake.path(table.name),
        "last_release": _last_release(lake),
    }
    if table.name in _CHARTS:
        drawn = [
            draw(title, rows)
            for title, (draw, query) in _CHARTS[table.name].items()
            if (rows := lake.query(query, t=newest)).num_rows
        ]
        metadata = {"charts": MetadataValue.md("\n\n".join(drawn) or "nothing to draw")} | metadata
    logger.info("%s has %s rows in %s files", table.name, f"{metadata[_ROWS]:,}", f"{files.num_rows:,}")
    if commit is not None:
        lineage = dagster_column_lineage(table, inputs)
        metadata |= {
            **({"dagster/column_lineage": lineage} if lineage else {}),
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


def _seconds() -> float:
    """Returns how long the running step has taken so far."""
    context = dg.AssetExecutionContext.get()
    [step] = context.instance.get_run_step_stats(
        context.run_id, [context.get_step_execution_context().step.key]
    )
    return round(time.time() - (step.start_time or time.time()), 2)


def _last_release(lake: Lake) -> str:
    """Returns the newest release; what is materialized now is in the next one, except for `ops/release`."""
    rows = lake.query(
        "select release_id from releases where decision = 'released' order by decided_at desc limit 1",
        releases=lake.delta("ops.releases"),
    )
    return rows["release_id"][0].as_py() if rows.num_rows else "none"


def dagster_table_schema(
    table: Table, sources: Mapping[str, Collection[str]] | None = None
) -> dg.TableSchema:
    """Returns the columns of a table as the web UI lists them: name, type, comment and constraints.

    Args:
        sources: From which columns a column is made, of `column_sources`; they are named after its comment,
            since the open web UI draws no lineage of columns.
    """
    made = {name: f" Made from {', '.join(paths)}." for name, paths in (sources or {}).items()}
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                field.name,
                str(field.type),
                description=column_comment(field) + made.get(field.name, ""),
                constraints=dg.TableColumnConstraints(
                    nullable=field.nullable, unique=table.key == (field.name,)
                ),
            )
            for field in table.schema
        ]
    )


def _sample(lake: Lake, table: Table) -> MetadataValue:
    columns = [name for name in table.schema.names if name not in _PRIVATE]
    quoted = ", ".join(f'left("{name}"::varchar, {_SAMPLE_CHARS}) as "{name}"' for name in columns)
    key = ", ".join(f'"{name}"' for name in table.key)
    rows = lake.query(f"select {quoted} from t order by {key} limit 5", t=lake.delta(table.name)).to_pylist()
    return MetadataValue.table(
        [dg.TableRecord({k: v or "" for k, v in row.items()}) for row in rows],
        dg.TableSchema([dg.TableColumn(name) for name in columns]),
    )


def document_funnel(lake: Lake) -> dict[str, int]:
    """Counts what the newest version of each table holds.

    Returns:
        Numbers of documents: `raw`, `exact_duplicates`, `near_duplicates`, `quarantined` and `documents`, the
        canonical ones. If every table is up to date, `raw` is the sum of the other four. Then the number of
        `chunks`, and of chunk texts that are `embedded`.
    """
    counts = lake.query(
        f"""
        select
          (select count(*) from (
             select * from raw qualify row_number() over (partition by doc_id order by revision desc) = 1
           ) where not deleted and not {IS_ARCHIVE}) as raw,
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
