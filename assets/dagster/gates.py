"""Gates: the suites of each gated table as blocking asset checks, and their recorded verdicts.

Dagster's blocking checks work only inside one run. So a gate also writes its verdict to `ops.audits`, and
consumers of a gated table read its newest version that passed (`readable_version`).
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import dagster as dg
import duckdb

from assets.dagster.drift import gate_blocked_by_drift
from assets.dagster.metadata import asset_key
from assets.lake.audits import last_audit, record_audit
from assets.lake.delta import delta_bytes, delta_rows, register_delta_table
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import AUDITS, DOCUMENTS, TABLES
from assets.recipe import Recipe
from common.counts import counted
from common.progress import Progress, polled_progress
from quality.checked_rows import failing_rows_in_duckdb
from quality.data_docs import data_docs_page
from quality.expectations import Expectation
from quality.gate import ExpectationResult, gate_verdict
from quality.gx import run_gate_suite, validate_with_gx
from quality.suites import SUITES, Suite
from quality.user_suites import UserSuite, suites_digest
from retrieval.embedding.embedding_model import EmbeddingModel

logger = logging.getLogger(__name__)

_PARAMETERS: dict[str, Callable[[Recipe, EmbeddingModel], str | int]] = {
    "token_budget": lambda recipe, _: recipe.chunker.max_tokens,
    "model_digest": lambda _, model: model.digest,
}
"""Where the parameters of the suites come from."""

_RECENT_AUDITS = 100
DRIVER_GATE_BYTES = 8 << 30
"""Compressed size of the tables up to which this process looks at them; Spark looks at larger ones."""
DRIVER_USER_SUITE_BYTES = 256 << 20
"""The same for the suites of users, whose columns may be long texts: pandas holds them as they are."""
_LONGEST_DESCRIPTION = 500
_NAMED_DOCUMENTS = 3
"""The most documents that a failed check names."""


def build_table_gates(added: Collection[UserSuite] = ()) -> list[dg.AssetChecksDefinition]:
    """Returns the gate of every gated table, with the suites that users added to it."""
    return [
        build_gate_checks(suite, [each for each in added if each.table == name])
        for name, suite in SUITES.items()
    ]


def build_gate_checks(suite: Suite, added: Sequence[UserSuite] = ()) -> dg.AssetChecksDefinition:
    """Returns the asset checks of one table, one per expectation; those of severity `error` block.

    Each can be executed alone, and then validates the whole suite all the same: the gate's verdict is one.

    Args:
        suite: Headwater's suite of the table.
    """
    expectations = _all_expectations(suite, added)

    @dg.multi_asset_check(
        name=f"{suite.table.replace('.', '_')}_gate",
        specs=[
            dg.AssetCheckSpec(
                expectation.name,
                asset=asset_key(suite.table),
                description=f"{expectation.why} Expected: {expectation.in_words}."[:_LONGEST_DESCRIPTION],
                blocking=expectation.severity == "error",
            )
            for expectation in expectations
        ],
        description=f"Whether {suite.table} may be read by what comes after it.",
        pool="spark",
        can_subset=True,
    )
    def gate(
        context: dg.AssetCheckExecutionContext,
        lake: dg.ResourceParam[Lake],
        recipe: dg.ResourceParam[Recipe],
        model: dg.ResourceParam[EmbeddingModel],
    ) -> Iterator[dg.AssetCheckResult]:
        version = lake.version(suite.table)
        warned = recorded_gate_warnings(lake, suite.table, version, added)
        if warned is not None:
            context.log.info(f"version {version} of {suite.table} has passed this gate before")
            results = [
                ExpectationResult(each.name, each.name not in warned, each.severity) for each in expectations
            ]
        else:
            parameters = {name: _PARAMETERS[name](recipe, model) for name in suite.parameters}
            run_id = context.run.run_id
            drifted = gate_blocked_by_drift(lake, suite.table, recipe, model, run_id)
            results = run_version_gate(
                lake, suite, version, parameters, run_id, ("drift",) if drifted else (), added
            )
        said = {
            each.name: _said_of_failure(lake, suite, version, each, result)
            for each, result in zip(expectations, results, strict=True)
            if not result.passed
        }
        pages = {
            expectation.name: data_docs_page(lake.docs_dir, suite.table, user_suite)
            for user_suite, some in _by_page(suite, added)
            for expectation in some
        }
        # A verdict is of the whole suite; of one that is executed alone, only that is said here.
        asked = {key.name for key in context.selected_asset_check_keys}
        for expectation, result in zip(expectations, results, strict=True):
            if expectation.name not in asked:
                continue
            page = pages[expectation.name]
            metadata: dict[str, Any] = {
                "delta_version": version,
                "data_docs": dg.MetadataValue.url(
                    f"{lake.docs_url}/{page.relative_to(lake.docs_dir).as_posix()}"
                ),
                # For whoever reads this when no web UI runs.
                "data_docs_file": dg.MetadataValue.path(page.absolute()),
                "expected": expectation.in_words[:_LONGEST_DESCRIPTION],
            }
            if result.observed is not None:
                metadata["observed"] = result.observed
            yield dg.AssetCheckResult(
                passed=result.passed,
                asset_key=asset_key(suite.table),
                check_name=expectation.name,
                severity=(
                    dg.AssetCheckSeverity.ERROR
                    if expectation.severity == "error"
                    else dg.AssetCheckSeverity.WARN
                ),
                description=said.get(expectation.name),
                metadata=metadata,
            )

    return gate


def _said_of_failure(
    lake: Lake, suite: Suite, version: int, expectation: Expectation, result: ExpectationResult
) -> str:
    """Returns in words what failed and why it matters, with how many rows it is, or which documents."""
    if result.error is not None:
        return f"could not be evaluated: {result.error}"
    table = lake.delta(suite.table, version)
    named = suite.table == DOCUMENTS.name and expectation in suite.expectations
    if named and delta_bytes(table) <= DRIVER_GATE_BYTES:
        with duckdb.connect() as connection:
            register_delta_table(connection, suite.table.partition(".")[2], table)
            found = failing_rows_in_duckdb(connection, suite, expectation, "uri", _NAMED_DOCUMENTS)
        if found is not None:
            count, uris = found
            others = " and others" if count > len(uris) else ""
            return f"{expectation.why} It is {counted(count, 'document')}: {', '.join(uris)}{others}"
    if result.observed is None:
        return f"{expectation.why} Expected: {expectation.in_words}"[:_LONGEST_DESCRIPTION]
    counts_rows = expectation.type.startswith("expect_column_values")
    rows = "1 row does" if result.observed == 1 else f"{result.observed:,g} rows do"
    seen = f"{rows} not meet it" if counts_rows else f"observed: {result.observed:,g}"
    return f"{expectation.why} Expected: {expectation.in_words}"[:_LONGEST_DESCRIPTION] + f" ({seen})"


def _by_page(suite: Suite, added: Sequence[UserSuite]) -> list[tuple[str | None, tuple[Expectation, ...]]]:
    return [(None, suite.expectations), *((each.name, each.expectations) for each in added)]


def _all_expectations(suite: Suite, added: Sequence[UserSuite]) -> list[Expectation]:
    return [expectation for _, some in _by_page(suite, added) for expectation in some]


def run_version_gate(
    lake: Lake,
    suite: Suite,
    version: int,
    parameters: dict[str, str | int],
    run_id: str,
    also_failed: tuple[str, ...] = (),
    added: Sequence[UserSuite] = (),
) -> list[ExpectationResult]:
    """Validates one version of a table against its suites, and records the gate's verdict.

    Args:
        suite: Headwater's suite of the table.
        parameters: A value for each of the suite's parameters.
        also_failed: The names of other failed checks that close the gate for this version.

    Returns:
        One result per expectation: those of the suite in its order, then those of the added suites.

    Raises:
        LookupError: The suite compares the table with its inputs, and the table was never written.
        ExpectationNotEvaluated: An expectation of the suite could not be evaluated.
    """
    inputs = lake.inputs_of(suite.table, version) if suite.reads else {}
    versions = {suite.table: version} | {name: inputs[name] for name in suite.reads}
    tables = {name: lake.delta(name, at) for name, at in versions.items()}
    results: list[ExpectationResult] = []
    rows = sum(map(delta_rows, tables.values()))
    logger.info("version %d of %s is validated: %s rows are read", version, suite.table, f"{rows:,}")
    progress = Progress(f"expectations of {suite.table} validated", len(_all_expectations(suite, added)))
    with polled_progress(lambda: progress.reach(len(results))):  # one call validates a whole suite
        if sum(map(delta_bytes, tables.values())) <= DRIVER_GATE_BYTES:
            with duckdb.connect() as connection:
                for name, table in tables.items():
                    register_delta_table(connection, name.partition(".")[2], table)
                results += run_gate_suite(connection, suite, lake.docs_dir, parameters)
        else:
            frames = {name: lake.frame(name, at) for name, at in versions.items()}
            results += run_gate_suite(frames, suite, lake.docs_dir, parameters)
        for each in added:
            results += _run_user_suite(lake, each, version)
    judged = gate_verdict(_all_expectations(suite, added), results)
    failed = [*judged.failed, *also_failed]
    passed = judged.passed and not also_failed
    record_audit(lake, suite.table, version, passed, failed, run_id, suites_digest(added))
    return results


def _run_user_suite(lake: Lake, suite: UserSuite, version: int) -> list[ExpectationResult]:
    """Validates one version of a table against a suite that a user added.

    Returns:
        One result per expectation, in the suite's order; one that could not be evaluated has not passed.
    """
    table = lake.delta(suite.table, version)
    page = data_docs_page(lake.docs_dir, suite.table, suite.name)
    if suite.needs_spark or (delta_bytes(table) > DRIVER_USER_SUITE_BYTES and not suite.needs_pandas):
        frame = lake.frame(suite.table, version)
        return validate_with_gx(frame, suite.name, suite.expectations, page, users_own=True)
    columns = suite.columns(TABLES[suite.table].schema.names)
    # Without a column to look at, its rows can be counted: the key's columns are narrow.
    names = ", ".join(f'"{name}"' for name in columns or TABLES[suite.table].key)
    rows = lake.query(f"select {names} from t", t=table).to_pandas()
    return validate_with_gx(rows, suite.name, suite.expectations, page, users_own=True)


def recorded_gate_warnings(
    lake: Lake, table: str, version: int, added: Collection[UserSuite] = ()
) -> list[str] | None:
    """Returns the warnings recorded for a version that passed under the present code and suites.

    A version never changes, so one that passed is not validated again, and an unchanged lake starts neither
    Spark nor Great Expectations. A version that failed is validated again, because the suite may have been
    corrected.

    Returns:
        The names of the expectations that warned, or None if the version must be validated.
    """
    audits = (commit.lineage for commit in lake.commits(AUDITS.name, limit=_RECENT_AUDITS))
    # Of this version's audits only the newest counts: an older one under the same suites may have failed.
    of_version = next((audit for audit in audits if audit.inputs == {table: version}), None)
    in_force = (CODE_VERSION, suites_digest(added))
    if of_version is None or (of_version.code_version, of_version.config_digest) != in_force:
        return None
    newest = last_audit(lake, table, version)
    return newest.failed if newest is not None and newest.passed else None
