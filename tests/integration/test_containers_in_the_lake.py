"""Archives, compressed files and mail in a lake: every file inside is accounted for, and changes alone."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from packed_files import encrypted, make_mail, make_tar, make_zip

from assets.dagster.conservation import count_conservation
from assets.lake.lake import Lake
from assets.lake.tables import DOCUMENTS, QUARANTINE, RAW_DOCUMENTS
from assets.parsing import content_type
from assets.parsing.sandbox import ParserLimits
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.operations.runs import execute_run
from orchestration.settings import Settings, open_configured_lake
from orchestration.tracing.nodes import TraceNode
from orchestration.tracing.tracer import Tracer
from orchestration.tracing.verify import TraceVerifier

SENTENCES = {
    "harbour": b"The harbour master keeps a ledger of every ship that has come in since the spring.",
    "garden": b"In the garden behind the house three old pear trees stand in a row along the wall.",
    "bridge": b"The stone bridge was built in four summers by masons who came from the northern hills.",
    "lantern": b"A lantern was lit every evening above the door so that travellers would find the inn.",
    "meadow": b"Sheep graze on the meadow by the river until the first snow closes the mountain pass.",
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "docs").mkdir()
    (tmp_path / "home").mkdir()
    settings = Settings(home=tmp_path / "home")
    SourceRegistry(settings.sources_file).add(Source(name="docs", location=str(tmp_path / "docs")))
    return settings


def run(settings: Settings) -> Lake:
    assert execute_run(settings, '+key:"silver/duplicates"', print).failures == []
    lake = open_configured_lake(settings)
    assert count_conservation(lake).holds, count_conservation(lake)
    return lake


def rows(lake: Lake, table: str, query: str = "select * from t") -> list[dict[str, Any]]:
    return lake.query(query, t=lake.delta(table)).to_pylist()


def place(row: dict[str, Any]) -> str:
    return str(row["uri"]).partition("/docs/")[2]


def places(found: list[dict[str, Any]]) -> set[str]:
    return {place(row) for row in found}


def test_each_file_inside_is_a_document_that_changes_and_goes_alone(
    settings: Settings, tmp_path: Path
) -> None:
    docs = tmp_path / "docs"
    one, two, three, four, five = SENTENCES.values()
    (docs / "a.zip").write_bytes(make_zip({"one.txt": one, "in/two.txt": two, "../out.txt": two}))
    (docs / "three.txt.gz").write_bytes(gzip.compress(three))
    (docs / "m.eml").write_bytes(make_mail({"d.tar.gz": gzip.compress(make_tar({"four.txt": four}))}))
    (docs / "locked.zip").write_bytes(encrypted(make_zip({"five.txt": five})))
    (docs / "link.txt").symlink_to("/etc/hostname")
    lake = run(settings)
    kept = {"a.zip#one.txt", "a.zip#in/two.txt", "three.txt.gz", "m.eml#d.tar.gz!/four.txt"}
    found = rows(lake, DOCUMENTS.name)
    refused = rows(lake, QUARANTINE.name)
    assert kept <= places(found)
    assert {row["media_type"] for row in found if row["uri"].endswith("three.txt.gz")} == {"text/plain"}
    # The archive itself is no document, and is not quarantined.
    assert "a.zip" not in places(found) | places(refused)
    verdicts = {(place(row), row["stage"], row["expectation"]) for row in refused if place(row) != "m.eml"}
    assert verdicts == {
        ("a.zip#../out.txt", "read", "unsafe_name"),
        ("locked.zip", "read", "encrypted"),
        ("link.txt", "read", "link"),
    }
    reasons = {place(row): row["reason"] for row in refused}
    assert reasons["link.txt"] == "It is a link that leads out of the source's folder."
    assert "unpack it and add the files inside" in reasons["locked.zip"]

    # Nothing new: no file is read again, and no commit is made, although some files inside were refused.
    version = lake.version(RAW_DOCUMENTS.name)
    lake = run(settings)
    assert lake.version(RAW_DOCUMENTS.name) == version

    # One file inside changes, one goes: the others keep their rows.
    before = {row["doc_id"]: row for row in rows(lake, DOCUMENTS.name)}
    (docs / "a.zip").write_bytes(make_zip({"one.txt": five, "../out.txt": two, "more/new.txt": three + two}))
    lake = run(settings)
    latest = rows(
        lake, RAW_DOCUMENTS.name, "select * from t where fetched_at = (select max(fetched_at) from t)"
    )
    assert {place(row): row["deleted"] for row in latest} == {
        "a.zip": False,
        "a.zip#one.txt": False,
        "a.zip#more/new.txt": False,
        "a.zip#in/two.txt": True,
    }
    after = {row["doc_id"]: row for row in rows(lake, DOCUMENTS.name)}
    untouched = [key for key, row in after.items() if "a.zip" not in row["uri"]]
    assert untouched
    assert all(before[key] == after[key] for key in untouched)
    assert "a.zip#in/two.txt" not in places(list(after.values()))


def test_a_member_is_walked_back_to_the_bytes_of_its_archive(settings: Settings, tmp_path: Path) -> None:
    archive = tmp_path / "docs" / "a.tar.gz"
    archive.write_bytes(gzip.compress(make_tar({"one.txt": SENTENCES["harbour"], "b.zip": make_zip(
        {"two.txt": SENTENCES["garden"]})}), mtime=0))  # fmt: skip
    first = archive.read_bytes()
    run(settings)
    archive.write_bytes(gzip.compress(make_tar({"one.txt": SENTENCES["bridge"], "b.zip": make_zip(
        {"two.txt": SENTENCES["garden"]})}), mtime=0))  # fmt: skip
    lake = run(settings)
    tracer = Tracer(lake, lambda _: [], TraceVerifier(ParserLimits()))

    def revisions(place: str) -> list[TraceNode]:
        trace = tracer.trace(f"{archive.as_uri()}#{place}")
        assert trace.verified
        assert all(node.checks["is_inside_file"] for node in trace.backward)
        return trace.backward

    newest, oldest = revisions("one.txt")
    assert newest.children[0].details["uri"] == archive.as_uri()
    assert newest.children[0].id != oldest.children[0].id
    inside = {node.id for node in tracer.trace(archive.as_uri()).forward[0].children}
    assert inside == {
        row["doc_id"] for row in rows(lake, DOCUMENTS.name) if row["uri"].startswith(f"{archive.as_uri()}#")
    }
    assert len(inside) == 2
    [unchanged] = revisions("b.zip!/two.txt")
    assert unchanged.children[0].id == oldest.children[0].id
    # Bytes that are not in the archive are found out.
    checks = TraceVerifier(ParserLimits()).member_checks(
        {"content_sha256": "0" * 64}, {"body": first, "media_type": "application/x-tar; content-coding=gzip"}
    )
    assert checks == {"is_inside_file": False}


def test_a_lake_that_told_other_kinds_reads_its_files_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = tmp_path / "docs"
    (docs / "a.zip").write_bytes(make_zip({"one.txt": SENTENCES["harbour"]}))
    (docs / "b.txt").write_bytes(SENTENCES["garden"])
    (docs / "c.txt.gz").write_bytes(gzip.compress(SENTENCES["meadow"]))
    monkeypatch.setattr("assets.sources.file_contents.CONTAINERS", ())
    monkeypatch.setattr("assets.bronze.KINDS_VERSION", "1")
    lake = run(settings)
    assert {row["expectation"] for row in rows(lake, QUARANTINE.name)} == {"unsupported_media_type"}
    monkeypatch.undo()
    assert content_type.KINDS_VERSION != "1"
    lake = run(settings)
    assert places(rows(lake, DOCUMENTS.name)) == {"a.zip#one.txt", "b.txt", "c.txt.gz"}
    assert rows(lake, QUARANTINE.name) == []
    again = "select * from t where revision > 1"
    assert places(rows(lake, RAW_DOCUMENTS.name, again)) >= {"a.zip", "c.txt.gz"}
    version = lake.version(RAW_DOCUMENTS.name)
    assert run(settings).version(RAW_DOCUMENTS.name) == version
