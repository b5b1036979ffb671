"""Drift checks: whether the distribution of new documents differs from that of earlier ones.

A window is the set of documents that a range of a table's versions wrote. Each window is compared once with
all earlier documents, without a JVM. One commit of `ops.drift` holds the findings and the version at which
the window ends, so a check without new documents reads only that commit's log entry. A batch that is too
small is not compared yet: it becomes part of the next window.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assets.columns import Table
from assets.dagster.charts import chart_markdown, line_chart
from assets.dagster.metadata import asset_key
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import CHUNKS, DOCUMENTS, DRIFT, EMBEDDINGS
from assets.recipe import Recipe
from assets.text.signals import QUALITY_SIGNALS
from common.counts import counted
from common.ids import config_digest
from common.lineage import Lineage
from quality.drift import DriftConfig, DriftFinding, centroid_drift, column_drift
from retrieval.embedding.embedding_model import EmbeddingModel

_CATEGORIES = ("language", "source")
_BINNED = ("char_count",)
_VECTOR_DOCUMENTS = 2000
"""Documents compared by their vectors on either side: more give no surer mean, and resampling is slow."""
_SHOWN_WINDOWS = 30

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DriftWindow:
    """A comparison of the documents that a range of a table's versions wrote with all earlier documents.

    Attributes:
        since: The version at which the previous window ended; None for the first window.
        until: The version at which this window ends.
        findings: One finding per test; empty if nothing was compared.
        skipped: The reason why nothing was compared, or None.
    """

    since: int | None
    until: int
    findings: tuple[DriftFinding, ...] = ()
    skipped: str | None = None

    @property
    def drifted(self) -> tuple[DriftFinding, ...]:
        """The findings above their thresholds."""
        return tuple(each for each in self.findings if each.drifted)

    def __str__(self) -> str:
        """Returns the findings in a sentence."""
        if self.skipped:
            return self.skipped
        above = "; ".join(map(str, self.drifted))
        return above or f"{counted(len(self.findings), 'test')}, none above its threshold"


@dataclass(frozen=True)
class _Samples:
    """How many documents are new and how many earlier, and the comparison of them.

    Attributes:
        new: The number of documents that the window wrote.
        earlier: The number of the others.
        compare: Compares the two.
    """

    new: int
    earlier: int
    compare: Callable[[], list[DriftFinding]]


def compare_newest_drift_window(
    lake: Lake, table: Table, config: DriftConfig, run_id: str, model_digest: str | None = None
) -> DriftWindow:
    """Returns the comparison of a table's newest documents with the earlier ones, made now or before.

    If drift blocks, only a person can accept a window that drifted. Until then later documents are compared
    together with it, because otherwise the next batch would let it pass.

    Args:
        table: `silver.documents` or `gold.embeddings`.
        config: Thresholds, and whether drift blocks.
        model_digest: For `gold.embeddings`, the digest of the model whose vectors are compared.
    """
    until = lake.version(table.name)
    ends = [
        commit.lineage.inputs[table.name]
        for commit in lake.commits(DRIFT.name)
        if table.name in commit.lineage.inputs
    ]
    if until in ends:
        return _recorded_window(lake, table, until)
    if config.on_drift == "block" and ends:
        refused = _drifted_ends(lake, table)
        ends = [end for end in ends if end not in refused]
    since = max(ends, default=None)
    if since is None:
        window = DriftWindow(
            None, until, skipped="there are no earlier documents: the next ones are compared with these"
        )
        _record(lake, table, window, config, run_id)
        return window
    samples = (
        _documents(lake, since, until, config)
        if table == DOCUMENTS
        else _vectors(lake, since, until, config, model_digest or "")
    )
    least = config.min_documents
    if samples.new < least:
        return DriftWindow(
            since, until, skipped=f"{counted(samples.new, 'new document')}: waiting for {least}"
        )
    if samples.earlier < least:
        reason = f"{counted(samples.earlier, 'earlier document')}: {least} are needed to compare with"
        window = DriftWindow(since, until, skipped=reason)
    else:
        window = DriftWindow(since, until, tuple(samples.compare()))
    _record(lake, table, window, config, run_id)
    return window


def gate_blocked_by_drift(lake: Lake, table: str, recipe: Recipe, model: EmbeddingModel, run_id: str) -> bool:
    """Returns whether drift closes a table's gate: drift is set to block, and the newest window drifted."""
    watched = _WATCHED.get(table)
    if watched is None or recipe.drift.on_drift != "block":
        return False
    return bool(compare_newest_drift_window(lake, watched, recipe.drift, run_id, model.digest).drifted)


def _documents(lake: Lake, since: int, until: int, config: DriftConfig) -> _Samples:
    written, _ = lake.changed_keys(DOCUMENTS.name, "doc_id", since, until)
    tables = {
        "documents": lake.delta(DOCUMENTS.name, until),
        "new": pa.table({"doc_id": pa.array(written, pa.string())}),
    }
    count = lake.query("select count(*) as n from documents semi join new using (doc_id)", **tables)
    new = count["n"][0].as_py()
    total = lake.query("select count(*) as n from documents", **tables)["n"][0].as_py()

    def compared() -> list[DriftFinding]:
        columns = ", ".join(f'"{name}"' for name in (*QUALITY_SIGNALS, *_CATEGORIES, *_BINNED))
        # An id is a digest, so the first ones are a sample, and the same one each time.
        batch, reference = (
            lake.query(
                f"select {columns} from documents {join} join new using (doc_id) order by doc_id limit ?",
                [config.max_documents],
                **tables,
            )
            for join in ("semi", "anti")
        )
        return column_drift(
            batch, reference, config, numbers=tuple(QUALITY_SIGNALS), categories=_CATEGORIES, binned=_BINNED
        )

    return _Samples(new, total - new, compared)


def _vectors(lake: Lake, since: int, until: int, config: DriftConfig, model_digest: str) -> _Samples:
    written, _ = lake.changed_keys(EMBEDDINGS.name, "text_sha256", since, until)
    tables = {
        "embeddings": lake.delta(EMBEDDINGS.name, until),
        "chunks": lake.delta(CHUNKS.name, lake.inputs_of(EMBEDDINGS.name, until)[CHUNKS.name]),
        "new": pa.table({"text_sha256": pa.array(written, pa.string())}),
    }
    # A document is new when any of its texts is.
    owners = """
        with owners as (
            select doc_id, bool_or(new.text_sha256 is not null) as is_new
            from chunks left join new using (text_sha256) group by doc_id
        )
    """
    counts = lake.query(
        f"{owners} select count_if(is_new) as new, count_if(not is_new) as earlier from owners", **tables
    ).to_pylist()[0]

    def compared() -> list[DriftFinding]:
        batch, reference = (
            _means(
                lake.query(
                    f"""{owners}, chosen as (
                        select doc_id from owners where is_new = ? order by doc_id limit {_VECTOR_DOCUMENTS}
                    )
                    select c.doc_id, e.vector from chosen join chunks c using (doc_id)
                    join embeddings e on e.tenant = c.tenant and e.text_sha256 = c.text_sha256
                    where e.model_digest = ? order by c.doc_id
                    """,
                    [is_new, model_digest],
                    **tables,
                )
            )
            for is_new in (True, False)
        )
        return [centroid_drift(batch, reference, config)] if len(batch) and len(reference) else []

    return _Samples(int(counts["new"]), int(counts["earlier"]), compared)


def _means(rows: pa.Table) -> Vectors:
    """Returns the mean vector of each document, from rows of doc_id and vector in the order of doc_id."""
    if not len(rows):
        return np.empty((0, 0), np.float32)
    flat = rows["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.reshape(len(rows), -1)
    owner = rows["doc_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    starts = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
    lengths = np.diff(np.append(starts, len(owner)))
    return np.asarray(np.add.reduceat(vectors, starts, axis=0) / lengths[:, None], np.float32)


def _record(lake: Lake, table: Table, window: DriftWindow, config: DriftConfig, run_id: str) -> None:
    """Writes the findings and the new watermark in one commit."""
    rows = [
        {
            "table": table.name,
            "since": window.since,
            "until": window.until,
            "column": finding.column,
            "test": finding.test,
            "statistic": finding.statistic,
            "threshold": finding.threshold,
            "drifted": finding.drifted,
            "run_id": run_id,
            "measured_at": datetime.now(UTC),
        }
        for finding in window.findings
    ]
    lake.append(
        DRIFT,
        pa.Table.from_pylist(rows, DRIFT.schema),
        Lineage(
            run_id=run_id,
            asset="ops/drift",
            code_version=CODE_VERSION,
            config_digest=config_digest("drift", config),
            inputs={table.name: window.until},
        ),
    )


def _recorded_window(lake: Lake, table: Table, until: int) -> DriftWindow:
    rows = lake.query(
        """
        select since, "column", test, statistic, threshold from drift where "table" = ? and until = ?
        order by statistic / threshold desc
        """,
        [table.name, until],
        drift=lake.delta(DRIFT.name),
    ).to_pylist()
    if not rows:
        return DriftWindow(None, until, skipped="no documents are new since the last comparison")
    findings = (DriftFinding(row["column"], row["test"], row["statistic"], row["threshold"]) for row in rows)
    return DriftWindow(rows[0]["since"], until, tuple(findings))


def _drifted_ends(lake: Lake, table: Table) -> set[int]:
    rows = lake.query(
        'select distinct until from drift where "table" = ? and drifted',
        [table.name],
        drift=lake.delta(DRIFT.name),
    )
    return set(rows["until"].to_pylist())


def drift_windows_over_time(lake: Lake, table: Table) -> str:
    """Returns the last windows as Markdown: a chart and a table of statistics over their thresholds."""
    rows = lake.query(
        f"""
        select until, max(measured_at)::date as "day", max(statistic / threshold) as share,
               arg_max("column", statistic / threshold) as "column", count_if(drifted) as drifted
        from drift where "table" = ? group by until order by until desc limit {_SHOWN_WINDOWS}
        """,
        [table.name],
        drift=lake.delta(DRIFT.name),
    ).to_pylist()[::-1]
    if not rows:
        return "No window has been compared yet."
    chart = line_chart(
        "Each window's largest statistic over its threshold",
        [str(row["until"]) for row in rows],
        {"share": [row["share"] for row in rows]},
        limit=1,
    )
    lines = [
        f"| {row['until']} | {row['day']} | {row['column']} | {row['share']:.2f} | {row['drifted']} |"
        for row in reversed(rows)
    ]
    return "\n".join(
        [
            chart_markdown(chart),
            "",
            "| version | day | nearest column | statistic / threshold | tests above |",
            "|---|---|---|---|---|",
            *lines,
        ]
    )


def build_drift_check(table: Table, what: str, blocks: bool) -> dg.AssetChecksDefinition:
    """Returns the drift check of one table: an error that blocks, or a warning."""

    @dg.asset_check(
        asset=asset_key(table.name),
        name="drift",
        description=f"Whether new {what} are like the earlier ones; a warning unless the recipe blocks.",
        # Not always: a blocking check that only warns would hold what follows by itself.
        blocking=blocks,
    )
    def drift(
        context: dg.AssetCheckExecutionContext,
        lake: dg.ResourceParam[Lake],
        recipe: dg.ResourceParam[Recipe],
        model: dg.ResourceParam[EmbeddingModel],
    ) -> dg.AssetCheckResult:
        digest = model.digest if table == EMBEDDINGS else None
        window = compare_newest_drift_window(lake, table, recipe.drift, context.run.run_id, digest)
        return dg.AssetCheckResult(
            passed=not window.drifted,
            severity=dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN,
            description=str(window),
            metadata={
                "since_version": -1 if window.since is None else window.since,
                "until_version": window.until,
                "tests": len(window.findings),
                "drifted": [each.column for each in window.drifted],
                "over_time": dg.MetadataValue.md(drift_windows_over_time(lake, table)),
            },
        )

    return drift


_WATCHED = {DOCUMENTS.name: DOCUMENTS, EMBEDDINGS.name: EMBEDDINGS}


def drift_checks(config: DriftConfig) -> list[dg.AssetChecksDefinition]:
    """Returns the drift check of every watched table."""
    blocks = config.on_drift == "block"
    return [
        build_drift_check(DOCUMENTS, "documents", blocks),
        build_drift_check(EMBEDDINGS, "documents' vectors", blocks),
    ]
