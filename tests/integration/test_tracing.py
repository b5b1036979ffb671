"""A trace verifies as the recipe parses, and reads each commit of a table once."""

import hashlib
import shutil
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from lake_rows import write
from rich.console import Console

from assets.answers.checks import CitationCheck, check_citations
from assets.columns import Table
from assets.lake.commits import find_commits, last_commit_until, lineage_table, table_commits
from assets.lake.lake import Lake
from assets.lake.spark import SparkConfig
from assets.lake.tables import ANSWERS, DOCUMENTS, DUPLICATES, RELEASES
from assets.parsing.sandbox import ParserLimits
from common.ids import doc_id
from orchestration.cli.render import render_trace
from orchestration.tracing.tracer import Tracer
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


def stored(table: Table, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of a table, with zeros and empty texts in the columns that must have something."""
    blank = {
        each.name: {pa.string(): "x", pa.bool_(): False}.get(each.type, 0)
        for each in table.schema
        if not each.nullable
    }
    return pa.Table.from_pylist([blank | row for row in rows], table.schema)


def citation(version: int, quote: str = "The moon") -> dict[str, Any]:
    place = {"chunk_id": "c" * 64, "char_start": 0, "char_end": len(quote)}
    named = {"doc_id": "d" * 64, "uri": "file:///x", "content_sha256": "0" * 64, "table_version": version}
    return {**named, **place, "quote": quote}


def test_a_citation_of_a_vacuumed_version_is_neither_broken_nor_verified(lake: Lake) -> None:
    told = [{"doc_id": "d" * 64, **document("The moon pulls the water."), "content_sha256": "0" * 64}]
    documents = stored(DOCUMENTS, told)
    for _ in range(2):
        write_deltalake(lake.path(DOCUMENTS.name), documents, mode="overwrite")
    newest = lake.version(DOCUMENTS.name)
    lake.delta(DOCUMENTS.name).vacuum(0, dry_run=False, enforce_retention_duration=False)
    cited = {
        "gone": citation(newest - 1),
        "there": citation(newest),
        "wrong": citation(newest, "The sun!"),
        "never": citation(newest + 10),
    }
    rows = [
        {
            **{"answer_id": name, "question": "Why?", "answer": "[1]", "refused": False, "engine": "e"},
            **{"tenant": "acme", "release_id": "r", "citations": [each]},
            "answered_at": datetime.now(UTC),
        }
        for name, each in cited.items()
    ]
    answers = stored(ANSWERS, rows)
    assert check_citations(lake, answers) == CitationCheck(citations=4, broken=2, uncited=0, unverifiable=1)
    write_deltalake(lake.path(ANSWERS.name), answers, mode="append")
    release = {"release_id": "r", "versions": "{}", "metrics": "{}", "decided_at": datetime.now(UTC)}
    write_deltalake(lake.path(RELEASES.name), stored(RELEASES, [release]), mode="append")
    trace = Tracer(lake, lambda _: [], TraceVerifier(ParserLimits())).trace("gone")
    assert (trace.verified, trace.unverifiable) == (None, 1)
    shown = StringIO()
    Console(file=shown, width=200).print(render_trace(trace))
    assert f"silver.documents has no version {newest - 1}: it is no longer kept" in shown.getvalue()
    assert Tracer(lake, lambda _: [], TraceVerifier(ParserLimits())).trace("wrong").verified is False
