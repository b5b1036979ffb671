"""A gate's verdict is a row of the lake, and every document is accounted for."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from lake_rows import write
from pyspark.sql import SparkSession
from test_gx import TEXTS, document

from assets.dagster.conservation import count_conservation
from assets.dagster.gates import (
    build_gate_checks,
    build_table_gates,
    recorded_gate_warnings,
    run_version_gate,
)
from assets.lake.audits import Unaudited, last_audit, readable_version, record_audit
from assets.lake.lake import Lake
from assets.lake.spark import SparkConfig
from assets.lake.tables import DOCUMENTS, DUPLICATES, QUARANTINE, RAW_DOCUMENTS, SIGNATURES, TABLES
from assets.recipe import Recipe
from quality.expectations import expect_row_count
from quality.suites import SUITES
from quality.user_suites import UserSuite, suites_digest

SUITE = SUITES[DOCUMENTS.name]


@pytest.fixture
def lake(tmp_path: Path, spark: SparkSession) -> Lake:
    lake = Lake(tmp_path / "lake", SparkConfig(), tmp_path / "scratch", tmp_path / "docs")
    lake.ensure()
    return lake


def raw(doc_id: str, revision: int = 0, deleted: bool = False) -> dict:
    return {
        **dict.fromkeys(RAW_DOCUMENTS.schema.names),
        **{"doc_id": doc_id, "revision": revision, "deleted": deleted},
        **{"tenant": "acme", "source": "docs", "uri": "file:///x", "fetched_at": datetime.now(UTC)},
        **({"first_seen_at": datetime.now(UTC)} if "first_seen_at" in RAW_DOCUMENTS.schema.names else {}),
    }


def refused(doc_id: str) -> dict:
    return {name: doc_id if name == "doc_id" else "x" for name in QUARANTINE.schema.names}


def test_a_verdict_is_kept_and_read_by_consumers(lake: Lake) -> None:
    with pytest.raises(Unaudited):
        readable_version(lake, DOCUMENTS)
    good = write(lake, DOCUMENTS, [document(number, text) for number, text in enumerate(TEXTS)])
    assert all(result.passed for result in run_version_gate(lake, SUITE, good, {}, "run-1"))
    assert readable_version(lake, DOCUMENTS) == good
    bad = write(lake, DOCUMENTS, [document(7, "seven") | {"char_count": 99}])
    failed = {each.name for each in run_version_gate(lake, SUITE, bad, {}, "run-2") if not each.passed}
    assert failed == {"char_count_matches_text"}
    assert readable_version(lake, DOCUMENTS) == good
    # What passed is not looked at again, what failed is.
    assert recorded_gate_warnings(lake, DOCUMENTS.name, good) == []
    assert recorded_gate_warnings(lake, DOCUMENTS.name, bad) is None


def test_another_code_version_audits_anew(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write(lake, DOCUMENTS, [document(0, TEXTS[0])])
    run_version_gate(lake, SUITE, good, {}, "run-1")
    monkeypatch.setattr("assets.dagster.gates.CODE_VERSION", "another")
    assert recorded_gate_warnings(lake, DOCUMENTS.name, good) is None


def test_a_suite_that_failed_before_fails_again_after_it_was_away_for_a_while(lake: Lake) -> None:
    version = write(lake, DOCUMENTS, [document(0, TEXTS[0])])
    suites = [UserSuite(name="mine", table=DOCUMENTS.name, expectations=(expect_row_count(),))]
    assert recorded_gate_warnings(lake, DOCUMENTS.name, version, suites) is None
    record_audit(lake, DOCUMENTS.name, version, False, ["row_count"], "run-1", suites_digest(suites))
    record_audit(lake, DOCUMENTS.name, version, True, [], "run-2")
    assert recorded_gate_warnings(lake, DOCUMENTS.name, version) == []
    # Added again: the newest audit passed, but not under this suite.
    assert recorded_gate_warnings(lake, DOCUMENTS.name, version, suites) is None


def test_the_checks_in_dagster(lake: Lake) -> None:
    gate = build_gate_checks(SUITE)
    version = write(lake, DOCUMENTS, [document(0, TEXTS[0]) | {"pages": [9, 1]}])
    asset = dg.AssetSpec(dg.AssetKey(["silver", "documents"]))
    definitions = dg.Definitions(
        assets=[asset],
        asset_checks=[gate],
        resources={"lake": lake, "recipe": Recipe(), "model": object()},
    )
    job = definitions.resolve_implicit_global_asset_job_def()

    def run() -> dict[str, dg.AssetCheckEvaluation]:
        result = job.execute_in_process()
        return {each.check_name: each for each in result.get_asset_check_evaluations()}

    first = run()
    assert set(first) == {each.name for each in SUITE.expectations}
    assert {name for name, each in first.items() if not each.passed} == {"pages_in_order"}
    assert first["pages_in_order"].severity == dg.AssetCheckSeverity.WARN
    assert first["row_count"].metadata["observed"].value == 1
    # Where the web UI serves the page, whatever its host is called, and where it is without a web UI.
    assert first["row_count"].metadata["data_docs"].value == "/data_docs/silver.documents/index.html"
    page = lake.docs_dir / "silver.documents" / "index.html"
    assert first["row_count"].metadata["data_docs_file"].value == str(page)
    assert page.is_file()
    assert readable_version(lake, DOCUMENTS) == version
    again = run()
    assert {name for name, each in again.items() if not each.passed} == {"pages_in_order"}
    assert lake.version("ops.audits") == 1


@pytest.mark.parametrize("chosen", [{"doc_id_unique"}, {"doc_id_unique", "row_count"}])
def test_a_check_that_is_executed_alone_is_said_alone_and_the_verdict_is_of_all(
    lake: Lake, chosen: set[str]
) -> None:
    key = dg.AssetKey(["silver", "documents"])
    definitions = dg.Definitions(
        assets=[dg.AssetSpec(key)],
        asset_checks=[build_gate_checks(SUITE)],
        resources={"lake": lake, "recipe": Recipe(), "model": object()},
    )
    version = write(lake, DOCUMENTS, [document(0, TEXTS[0]) | {"char_count": 99}])
    result = (
        definitions.resolve_implicit_global_asset_job_def()
        .get_subset(asset_check_selection={dg.AssetCheckKey(key, name) for name in chosen})
        .execute_in_process(raise_on_error=False)
    )
    assert {each.check_name for each in result.get_asset_check_evaluations()} == chosen
    audit = last_audit(lake, DOCUMENTS.name, version)
    assert audit is not None
    assert audit.failed == ["char_count_matches_text"]


def test_conservation_counts_every_document(lake: Lake) -> None:
    names = {number: document(number, text) for number, text in enumerate(TEXTS)}
    ids = {number: row["doc_id"] for number, row in names.items()}
    version = write(
        lake,
        RAW_DOCUMENTS,
        [*(raw(doc_id) for doc_id in ids.values()), raw("torn"), raw("gone"), raw("gone", 1, deleted=True)],
    )
    inputs = {"bronze__raw_documents": version}
    write(lake, QUARANTINE, [refused("torn")], **inputs)
    kept = write(lake, DOCUMENTS, list(names.values()), **inputs)
    signed = write(lake, SIGNATURES, [], silver__documents=kept)
    duplicate = {"doc_id": ids[2], "canonical_id": ids[0], "matched_id": ids[0], "method": "exact"}
    duplicate |= {"jaccard": 1.0, "OpenLineage_RunId": "run"}
    behind = {"silver__documents": kept, "silver__signatures": signed}
    write(lake, DUPLICATES, [duplicate], **behind)
    counts = count_conservation(lake)
    assert counts.holds, str(counts)
    assert (counts.raw, counts.kept, counts.duplicates, counts.quarantined) == (4, 2, 1, 1)
    # What arrives after is not yet due.
    version = write(lake, RAW_DOCUMENTS, [raw("late"), raw("torn", 1, deleted=True)])
    assert count_conservation(lake).holds
    kept = write(lake, DOCUMENTS, [], bronze__raw_documents=version)
    signed = write(lake, SIGNATURES, [], silver__documents=kept)
    write(lake, DUPLICATES, [], silver__documents=kept, silver__signatures=signed)
    counts = count_conservation(lake)
    assert not counts.holds
    assert (counts.lost, counts.stray) == (1, 1)


def test_gates_cover_the_gated_tables_with_blocking_errors() -> None:
    checks = {
        (spec.asset_key.to_user_string(), spec.name): spec
        for g in build_table_gates()
        for spec in g.check_specs
    }
    for name, suite in SUITES.items():
        assert TABLES[name].gated
        for each in suite.expectations:
            spec = checks[name.replace(".", "/"), each.name]
            assert spec.blocking == (each.severity == "error")
            assert spec.description
