"""Drift in a lake: new documents are compared once, wait when they are few, and blocks when told to."""

import math
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from lake_rows import write
from test_gx import chunk, document

from assets.dagster.drift import compare_newest_drift_window, drift_checks, drift_windows_over_time
from assets.dagster.gates import run_version_gate
from assets.lake.audits import Unaudited, readable_version
from assets.lake.lake import Lake
from assets.lake.spark import SparkConfig
from assets.lake.tables import CHUNKS, DOCUMENTS, DRIFT, EMBEDDINGS
from assets.recipe import Recipe
from quality.drift import DriftConfig
from quality.suites import SUITES

WARN = DriftConfig(min_documents=20, permutations=500)
BLOCK = WARN.model_copy(update={"on_drift": "block"})


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    lake = Lake(tmp_path / "lake", SparkConfig(), tmp_path / "scratch", tmp_path / "docs")
    lake.ensure()

    def refuse(*_: object) -> None:
        raise AssertionError("drift started Spark")

    monkeypatch.setattr("assets.lake.spark.spark_session", refuse)
    return lake


def batch(rng: np.random.Generator, rows: int, language: str = "en", words: float = 100) -> list[dict]:
    """Documents of about so many words; their ids are of their numbers, which no other batch has."""
    return [
        document(int(number), f"text {number}")
        | {"language": language, "word_count": int(rng.normal(words, 10)), "char_count": 1}
        for number in rng.integers(1 << 40, size=rows)
    ]


def test_new_documents_are_compared_once_with_the_earlier_ones(lake: Lake) -> None:
    rng = np.random.default_rng(1)
    write(lake, DOCUMENTS, batch(rng, 200))
    assert (compare_newest_drift_window(lake, DOCUMENTS, WARN, "run-1").skipped or "").startswith(
        "there are no earlier documents"
    )
    sound = write(lake, DOCUMENTS, batch(rng, 50))
    found = compare_newest_drift_window(lake, DOCUMENTS, WARN, "run-2")
    assert (found.skipped, found.drifted, found.until) == (None, (), sound)
    assert {each.column for each in found.findings} >= {"word_count", "language", "source"}
    shifted = write(lake, DOCUMENTS, batch(rng, 50, language="de", words=300))
    found = compare_newest_drift_window(lake, DOCUMENTS, WARN, "run-3")
    assert {each.column for each in found.drifted} == {"language", "word_count"}
    assert (found.since, found.until) == (sound, shifted)
    commits = lake.version(DRIFT.name)
    again = compare_newest_drift_window(lake, DOCUMENTS, WARN, "run-4")
    assert {each.column for each in again.drifted} == {"language", "word_count"}
    assert lake.version(DRIFT.name) == commits
    # Accepted, it belongs to what stands before.
    write(lake, DOCUMENTS, batch(rng, 50))
    assert compare_newest_drift_window(lake, DOCUMENTS, WARN, "run-5").since == shifted
    shown = drift_windows_over_time(lake, DOCUMENTS)
    assert "data:image/png;base64," in shown
    assert f"| {shifted} |" in shown


def test_a_small_batch_waits_for_more(lake: Lake) -> None:
    rng = np.random.default_rng(2)
    first = write(lake, DOCUMENTS, batch(rng, 60))
    compare_newest_drift_window(lake, DOCUMENTS, WARN, "run-1")
    for _ in range(2):
        write(lake, DOCUMENTS, batch(rng, 8, language="de"))
        assert "waiting for 20" in (compare_newest_drift_window(lake, DOCUMENTS, WARN, "run-2").skipped or "")
    write(lake, DOCUMENTS, batch(rng, 8, language="de"))
    found = compare_newest_drift_window(lake, DOCUMENTS, WARN, "run-3")
    assert found.since == first
    assert [each.column for each in found.drifted] == ["language"]


def test_a_small_reference_is_not_compared_with(lake: Lake) -> None:
    rng = np.random.default_rng(3)
    write(lake, DOCUMENTS, batch(rng, 5))
    compare_newest_drift_window(lake, DOCUMENTS, WARN, "run-1")
    second = write(lake, DOCUMENTS, batch(rng, 60))
    assert "5 earlier documents" in (
        compare_newest_drift_window(lake, DOCUMENTS, WARN, "run-2").skipped or ""
    )
    write(lake, DOCUMENTS, batch(rng, 60))
    assert compare_newest_drift_window(lake, DOCUMENTS, WARN, "run-3").since == second


def test_where_it_blocks_a_later_sound_batch_does_not_let_it_pass(lake: Lake) -> None:
    rng = np.random.default_rng(4)
    first = write(lake, DOCUMENTS, batch(rng, 200))
    compare_newest_drift_window(lake, DOCUMENTS, BLOCK, "run-1")
    write(lake, DOCUMENTS, batch(rng, 60, language="de"))
    assert compare_newest_drift_window(lake, DOCUMENTS, BLOCK, "run-2").drifted
    write(lake, DOCUMENTS, batch(rng, 30))
    held = compare_newest_drift_window(lake, DOCUMENTS, BLOCK, "run-3")
    assert held.since == first
    assert held.drifted


def vectors(lake: Lake, rng: np.random.Generator, documents: list[dict], shift: float) -> int:
    """Two chunks a document, whose vectors are near each other."""
    chunks = [
        chunk(each, ordinal, start, end)
        for each in documents
        for ordinal, (start, end) in enumerate([(0, 5), (5, len(each["text"]))])
    ]
    # The first chunk of every document has one text, as a notice in a header does.
    version = write(lake, CHUNKS, chunks)
    rows = []
    for each in {row["text_sha256"]: row for row in chunks if row["ordinal"]}.values():
        drawn = rng.normal(size=16) + 1
        drawn[0] += shift
        rows.append(
            {
                "tenant": "acme",
                "text_sha256": each["text_sha256"],
                "model_digest": "model",
                "vector": (drawn / math.sqrt(drawn @ drawn)).tolist(),
                "OpenLineage_RunId": "run",
            }
        )
    return write(lake, EMBEDDINGS, rows, gold__chunks=version)


def test_vectors_are_compared_a_document(lake: Lake) -> None:
    rng = np.random.default_rng(5)
    vectors(lake, rng, batch(rng, 100), 0)
    compare_newest_drift_window(lake, EMBEDDINGS, WARN, "run-1", "model")
    vectors(lake, rng, batch(rng, 40), 0)
    found = compare_newest_drift_window(lake, EMBEDDINGS, WARN, "run-2", "model")
    assert [each.test for each in found.findings] == ["centroid"]
    assert not found.drifted
    vectors(lake, rng, batch(rng, 40), 4)
    assert compare_newest_drift_window(lake, EMBEDDINGS, WARN, "run-3", "model").drifted


@pytest.mark.parametrize("config", [WARN, BLOCK])
def test_the_check_in_dagster(lake: Lake, config: DriftConfig) -> None:
    rng = np.random.default_rng(6)
    write(lake, DOCUMENTS, batch(rng, 100))
    compare_newest_drift_window(lake, DOCUMENTS, config, "run-1")
    write(lake, DOCUMENTS, batch(rng, 60, language="de"))
    check = next(
        each for each in drift_checks(config) if next(iter(each.check_keys)).asset_key.path[0] == "silver"
    )
    definitions = dg.Definitions(
        assets=[dg.AssetSpec(dg.AssetKey(["silver", "documents"]))],
        asset_checks=[check],
        resources={"lake": lake, "recipe": Recipe(drift=config), "model": object()},
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(raise_on_error=False)
    [evaluation] = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert evaluation.severity.value == ("ERROR" if config is BLOCK else "WARN")
    assert "language: psi" in (evaluation.description or "")
    assert "data:image/png" in str(evaluation.metadata["over_time"].value)
    assert result.success == (config is WARN)


def test_a_gate_that_drift_closed_stays_closed_until_a_person_accepts(tmp_path: Path, spark: object) -> None:
    lake = Lake(tmp_path / "lake", SparkConfig(), tmp_path / "scratch", tmp_path / "docs")
    lake.ensure()
    version = write(lake, DOCUMENTS, [document(0, "some text of a document")])
    suite = SUITES[DOCUMENTS.name]
    run_version_gate(lake, suite, version, {}, "run-1", ("drift",))
    with pytest.raises(Unaudited):
        readable_version(lake, DOCUMENTS)
    run_version_gate(lake, suite, version, {}, "run-2")
    assert readable_version(lake, DOCUMENTS) == version
