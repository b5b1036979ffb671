"""A trace verifies as the recipe parses, and reads each commit of a table once."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from lake_rows import write

from assets.lake.commits import find_commits, last_commit_until, lineage_table, table_commits
from assets.lake.ids import doc_id
from assets.lake.lake import Lake
from assets.lake.spark import SparkConfig
from assets.lake.tables import DUPLICATES
from assets.parsing.sandbox import ParserLimits
from orchestration.tracing.verify import TraceVerifier, traced_text_sha256

HTML = b"<html><head><title>Tides</title></head><body><p>The moon pulls the water.</p></body></html>"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake", SparkConfig(), tmp_path / "scratch", tmp_path / "docs")
    lake.ensure()
    return lake


def revision(body: bytes, media_type: str) -> dict[str, Any]:
    return {
        **{"tenant": "acme", "source": "docs", "uri": "file:///x", "body": body, "media_type": media_type},
        **{"doc_id": doc_id("acme", "docs", "file:///x"), "size_bytes": len(body)},
        **{"content_sha256": hashlib.sha256(body).hexdigest()},
    }


def document(text: str) -> dict[str, Any]:
    return {"text": text, "text_sha256": traced_text_sha256(text)}


def test_stored_bytes_are_parsed_within_the_recipes_limits() -> None:
    raw, parsed = revision(HTML, "text/html"), document("The moon pulls the water.")
    checks = TraceVerifier(ParserLimits()).document_checks(parsed, [raw])
    assert checks == {"bytes_are_stored": True, "text_sha256": True, "text_remade_from_bytes": True}
    # Only the parser's own process holds documents to a length of text: it is the one that is asked.
    strict = TraceVerifier(ParserLimits(max_text_chars=10))
    assert strict.document_checks(parsed, [raw])["text_remade_from_bytes"] is False


def test_a_hostile_document_does_not_end_the_command() -> None:
    raw = revision(HTML, "text/html")
    in_no_time = TraceVerifier(ParserLimits(timeout_s=0.001))
    assert in_no_time.document_checks(document("The moon"), [raw])["text_remade_from_bytes"] is False
    broken = revision(b"%PDF-", "application/pdf")
    checks = TraceVerifier(ParserLimits()).document_checks(document("x"), [broken])
    assert checks["text_remade_from_bytes"] is False


def duplicate(number: int) -> dict[str, Any]:
    ids = {"doc_id": f"{number}", "canonical_id": "c", "matched_id": "c", "method": "exact"}
    return ids | {"jaccard": 1.0, "OpenLineage_RunId": "run"}


def test_only_commits_that_are_new_are_read_from_the_log(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int | None] = []
    history = DeltaTable.history

    def counted(table: DeltaTable, limit: int | None = None) -> list[dict[str, Any]]:
        limits.append(limit)
        return history(table, limit)

    for number in range(60):
        write(lake, DUPLICATES, [duplicate(number)], silver__documents=number)
    assert table_commits(lake, DUPLICATES.name).num_rows == 60
    write(lake, DUPLICATES, [duplicate(60)], silver__documents=60)
    monkeypatch.setattr(DeltaTable, "history", counted)
    commits = table_commits(lake, DUPLICATES.name)
    assert limits == [2]
    assert commits["version"].to_pylist() == list(range(61, 0, -1))
    assert dict(commits["inputs"][0].as_py()) == {"silver.documents": 60}
    assert [commit.version for commit in find_commits(lake, DUPLICATES.name, "run")] == list(range(61, 0, -1))
    found = last_commit_until(lake, DUPLICATES.name, 7)
    assert found is not None
    assert (found.version, found.lineage.inputs) == (7, {"silver.documents": 6})
    assert lineage_table(lake).num_rows == 61


def test_a_table_that_was_put_back_has_the_commits_of_its_log(lake: Lake, tmp_path: Path) -> None:
    for number in range(55):
        write(lake, DUPLICATES, [duplicate(number)], silver__documents=number)
        if number == 30:
            shutil.copytree(lake.path(DUPLICATES.name), tmp_path / "backup")
    assert table_commits(lake, DUPLICATES.name).num_rows == 55
    shutil.rmtree(lake.path(DUPLICATES.name))
    shutil.copytree(tmp_path / "backup", lake.path(DUPLICATES.name))
    assert table_commits(lake, DUPLICATES.name)["version"][0].as_py() == 31
    for number in range(40):
        write(lake, DUPLICATES, [duplicate(number)], silver__documents=1000 + number)
    commits = table_commits(lake, DUPLICATES.name)
    assert commits["version"].to_pylist() == list(range(71, 0, -1))
    assert dict(commits["inputs"][20].as_py()) == {"silver.documents": 1019}


def test_the_newest_commits_are_found_without_the_whole_log(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(45):
        write(lake, DUPLICATES, [duplicate(number)], silver__documents=number)
    assert len(list(lake.commits(DUPLICATES.name))) == 45
    history = DeltaTable.history
    # A call without a limit reads all of the log, and fails here.
    monkeypatch.setattr(DeltaTable, "history", lambda table, limit: history(table, limit))
    last = lake.last_commit(DUPLICATES.name)
    assert last is not None
    assert last.lineage.inputs == lake.inputs_of(DUPLICATES.name, 45) == {"silver.documents": 44}
