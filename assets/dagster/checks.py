"""Gates: each gated table's suite as blocking asset checks, and the verdict that consumers go by.

Dagster's own blocking holds inside one run. So a gate also writes its verdict to `ops.audits`, and whoever
reads a gated table reads its last version that passed (`Lake.readable_version`).
"""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import duckdb

from assets.dagster.drift import blocked_by_drift
from assets.dagster.metadata import asset_key
from assets.lake.delta import register, stored_bytes
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import AUDITS, DOCUMENTS, DUPLICATES, QUARANTINE, RAW_DOCUMENTS
from assets.recipe import Recipe
from quality.gate import Conservation, ExpectationResult, verdict
from quality.gx import docs_page, run_suite
from quality.suites import SUITES, Expectation, Suite, bounds
from retrieval.embedding.embedding_model import EmbeddingModel

_PARAMETERS: dict[str, Callable[[Recipe, EmbeddingModel], str | int]] = {
    "token_budget": lambda recipe, _: recipe.chunker.max_tokens,
    "model_digest": lambda _, model: model.digest,
}
"""Where the parameters of the suites come from."""

_RECENT_AUDITS = 100
DRIVER_GATE_BYTES = 8 << 30
"""Compressed size of the tables up to which this process measures them; Spark measures larger ones."""


def build_gate(suite: Suite) -> dg.AssetChecksDefinition:
    """The checks of one table: one an expectation, those of severity `error` blocking."""

    @dg.multi_asset_check(
        name=f"{suite.table.replace('.', '_')}_gate",
        specs=[
            dg.AssetCheckSpec(
                expectation.name,
                asset=asset_key(suite.table),
                description=f"Expected: {bounds(expectation)}. {expectation.why}",
                blocking=expectation.severity == "error",
            )
            for expectation in suite.expectations
        ],
        description=f"Whether {suite.table} may be read by what comes after it.",
        pool="spark",
    )
    def gate(
        context: dg.AssetCheckExecutionContext,
        lake: dg.ResourceParam[Lake],
        recipe: dg.ResourceParam[Recipe],
        model: dg.ResourceParam[EmbeddingModel],
    ) -> Iterator[dg.AssetCheckResult]:
        version = lake.version(suite.table)
        seen: dict[str, Any] = {
            "delta_version": version,
            "data_docs": dg.MetadataValue.url(docs_page(lake.docs_dir, suite.table).absolute().as_uri()),
        }
        warned = passed_with(lake, suite.table, version)
        if warned is not None:
            for expectation in suite.expectations:
                yield _check(suite, expectation, expectation.name not in warned, seen)
            return
        parameters = {name: _PARAMETERS[name](recipe, model) for name in suite.parameters}
        run_id = context.run.run_id
        drifted = blocked_by_drift(lake, suite.table, recipe, model, run_id)
        results = audit(lake, suite, version, parameters, run_id, ("drift",) if drifted else ())
        for expectation, result in zip(suite.expectations, results, strict=True):
            yield _check(suite, expectation, result.passed, seen | {"observed": result.observed})

    return gate


def audit(
    lake: Lake,
    suite: Suite,
    version: int,
    parameters: dict[str, str | int],
    run_id: str,
    also_failed: tuple[str, ...] = (),
) -> list[ExpectationResult]:
    """Validates one version of a table, beside the versions of its inputs, and records the verdict.

    Args:
        lake: Where the tables are.
        suite: What is expected of the table.
        version: The version to judge.
        parameters: A value for each of the suite's parameters.
        run_id: The Dagster run.
        also_failed: Other checks that close the gate, which have failed for this version.

    Returns:
        One result an expectation, in the suite's order.

    Raises:
        LookupError: When the suite compares the table with its inputs and it was never made.
    """
    inputs = lake.inputs_of(suite.table, version) if suite.reads else {}
    versions = {suite.table: version} | {name: inputs[name] for name in suite.reads}
    tables = {name: lake.delta(name, at) for name, at in versions.items()}
    if sum(map(stored_bytes, tables.values())) <= DRIVER_GATE_BYTES:
        with duckdb.connect() as connection:
            for name, table in tables.items():
                register(connection, name.partition(".")[2], table)
            results = run_suite(connection, suite, lake.docs_dir, parameters)
    else:
        frames = {name: lake.frame(name, at) for name, at in versions.items()}
        results = run_suite(frames, suite, lake.docs_dir, parameters)
    judged = verdict(suite, results)
    failed = [*judged.failed, *also_failed]
    lake.record_audit(suite.table, version, judged.passed and not also_failed, failed, run_id)
    return results


def passed_with(lake: Lake, table: str, version: int) -> list[str] | None:
    """The warnings of the audit that a version passed under the code that runs now.

    A version never changes, so what passed need not be looked at again, and an unchanged lake starts
    neither Spark nor Great Expectations. What failed is looked at again: it may be the suite that was mended.

    Returns:
        The names of the expectations that warned, or None when the version has to be audited.
    """
    same_code = any(
        audit.lineage.inputs == {table: version} and audit.lineage.code_version == CODE_VERSION
        for audit in lake.commits(AUDITS.name, limit=_RECENT_AUDITS)
    )
    if not same_code:
        return None
    newest = lake.query(
        """
        select passed, failed from audits where "table" = ? and version = ?
        order by audited_at desc limit 1
        """,
        [table, version],
        audits=lake.delta(AUDITS.name),
    ).to_pylist()
    return newest[0]["failed"] if newest and newest[0]["passed"] else None


def _check(
    suite: Suite, expectation: Expectation, passed: bool, metadata: dict[str, Any]
) -> dg.AssetCheckResult:
    error = expectation.severity == "error"
    return dg.AssetCheckResult(
        passed=passed,
        asset_key=asset_key(suite.table),
        check_name=expectation.name,
        severity=dg.AssetCheckSeverity.ERROR if error else dg.AssetCheckSeverity.WARN,
        metadata=metadata | {"expected": bounds(expectation)},
    )


GATES: list[dg.AssetChecksDefinition] = [build_gate(suite) for suite in SUITES.values()]
"""The gate of every suite."""


@dg.asset_check(
    asset=asset_key(DUPLICATES.name),
    name="conservation",
    description="Raw = kept + duplicates + quarantined: no document is dropped silently.",
    blocking=True,
)
def conservation(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Invariant 5, over the versions that the newest deduplication was made from."""
    counts = conserved(lake)
    return dg.AssetCheckResult(
        passed=counts.holds,
        description=str(counts),
        metadata={name: getattr(counts, name) for name in counts.__dataclass_fields__},
    )


def conserved(lake: Lake) -> Conservation:
    """Counts where every live document ended up, with no JVM.

    Raises:
        LookupError: When deduplication has never run.
    """
    pins = lake.pinned(DUPLICATES.name, lake.version(DUPLICATES.name))
    raw_version = pins[RAW_DOCUMENTS.name]
    # Quarantine is written beside documents, from the same raw version.
    quarantine_version = next(
        commit.version
        for commit in lake.commits(QUARANTINE.name)
        if commit.lineage.inputs[RAW_DOCUMENTS.name] <= raw_version
    )
    counts = lake.query(
        """
        with live as (
            select doc_id from (select doc_id, arg_max(deleted, revision) as deleted from raw group by doc_id)
            where not deleted
        ), placed as (select doc_id from documents union select doc_id from quarantine)
        select
            (select count(*) from live) as raw,
            (select count(*) from documents anti join duplicates using (doc_id)) as kept,
            (select count(*) from duplicates) as duplicates,
            (select count(*) from quarantine) as quarantined,
            (select count(*) from live anti join placed using (doc_id)) as lost,
            (select count(*) from placed anti join live using (doc_id))
            + (select count(*) from duplicates anti join documents using (doc_id)) as stray,
            (select count(*) from quarantine semi join documents using (doc_id)) as doubled
        """,
        raw=lake.delta(RAW_DOCUMENTS.name, raw_version),
        documents=lake.delta(DOCUMENTS.name, pins[DOCUMENTS.name]),
        duplicates=lake.delta(DUPLICATES.name, pins[DUPLICATES.name]),
        quarantine=lake.delta(QUARANTINE.name, quarantine_version),
    )
    return Conservation(**counts.to_pylist()[0])
