"""The whole flow on a small real corpus: from files to a cited, traceable answer, and back out again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession
from spark_only import spark_only
from typer.testing import CliRunner

from assets.dagster.metadata import document_funnel
from assets.lake.audits import audited_version
from assets.lake.lake import Lake
from assets.lake.tables import TABLES
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.cli.main import app
from orchestration.operations.ask import open_ask_service
from orchestration.operations.ingest import ingest_and_release
from orchestration.operations.runs import RunFailed, execute_run
from orchestration.services.status import state_status
from orchestration.settings import Settings, open_configured_lake
from orchestration.tracing.nodes import Trace, Untraceable
from orchestration.tracing.tracer import Tracer
from orchestration.tracing.verify import TraceVerifier
from retrieval.search.searcher import RetrievalMode
from retrieval.store.postgres import Postgres

TOPICS = {
    "glaciers": "A glacier is a persistent body of dense ice that moves under its own weight. It forms where "
    "the accumulation of snow exceeds its ablation over many years, often centuries.",
    "bread": "Sourdough bread is leavened by wild yeast and lactobacilli that live in a starter of flour and "
    "water. The dough ferments for many hours before it is baked in a hot oven.",
    "tides": "Tides are the rise and fall of sea levels caused by the gravitational pull of the moon and the "
    "sun together with the rotation of the earth. Most shores see two high waters a day.",
    "bees": "A honey bee colony has one queen, some thousands of workers and a few hundred drones. Workers "
    "tell one another where nectar is by a waggle dance on the comb.",
}
LICENCE = " ".join(
    f"Permission number {n} is granted free of charge to any person who obtains a copy of this software."
    for n in range(12)
)


def write_corpus(folder: Path) -> None:
    folder.mkdir()
    for name, text in TOPICS.items():
        (folder / f"{name}.md").write_text(f"# About {name}\n\n{text}\n")
    (folder / "a-licence.txt").write_text(f"Copyright Ada\n\n{LICENCE}")
    (folder / "b-licence.txt").write_text(f"Copyright Bob\n\n{LICENCE}")
    (folder / "bees copy.md").write_text((folder / "bees.md").read_text())
    (folder / "empty.txt").write_bytes(b"")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nnot really")


def rows(lake: Lake, name: str) -> list[dict[str, Any]]:
    """A table's rows without what says when or by whom they were written; vectors rounded."""
    left_out = {"OpenLineage_RunId", "first_seen_at", "vector"}
    table = lake.delta(name).to_pyarrow_table()
    table = table.select([c for c in table.column_names if c not in left_out])
    return sorted(table.to_pylist(), key=lambda row: json.dumps(row, default=str, sort_keys=True))


def versions(lake: Lake) -> dict[str, int]:
    return {name: lake.version(name) for name in TABLES}


def make_home(home: Path, corpus: Path) -> Settings:
    settings = Settings(home=home)
    home.mkdir(parents=True, exist_ok=True)
    SourceRegistry(settings.sources_file).add(Source(name="docs", location=str(corpus)))
    return settings


def trace(settings: Settings, identity: str) -> Trace:
    service = open_ask_service(settings)
    return Tracer(
        open_configured_lake(settings), service.index.document_rows, TraceVerifier(settings.recipe.parser)
    ).trace(identity)


@pytest.fixture(scope="module")
def corpus(module_folder: Path) -> Path:
    write_corpus(module_folder / "corpus")
    return module_folder / "corpus"


@pytest.fixture(scope="module")
def settings(spark: SparkSession, module_folder: Path, corpus: Path) -> Settings:
    """A state folder, with spaces and letters of other alphabets, in which everything was made once."""
    made = make_home(module_folder / "Zustand für später, 状態", corpus)
    ingest_and_release(made, print)
    return made


def test_every_document_is_accounted_for(settings: Settings) -> None:
    counts = document_funnel(open_configured_lake(settings))
    assert counts["raw"] == 9
    assert counts["exact_duplicates"] == 1
    assert counts["near_duplicates"] == 1
    assert counts["quarantined"] == 2
    assert counts["documents"] == 5
    assert counts["chunks"] == counts["embedded"] >= 5
    reasons = {
        row["uri"].rpartition("/")[2]: row["expectation"]
        for row in rows(open_configured_lake(settings), "silver.quarantine")
    }
    assert reasons.keys() == {"empty.txt", "broken.pdf"}
    assert reasons["empty.txt"] == "empty"


@pytest.mark.parametrize("mode", ["hybrid", "lexical", "vector"])
def test_search_finds_the_document(settings: Settings, mode: RetrievalMode) -> None:
    hits = open_ask_service(settings).search("how do workers tell where nectar is", 3, mode, "default")
    assert "bees" in hits[0].uri
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


def test_an_answer_is_cited_verbatim_and_traced_to_its_bytes(settings: Settings, corpus: Path) -> None:
    answer = open_ask_service(settings).ask("What causes the tides?", "default")
    assert not answer.refused
    cited = answer.citations[0]
    lake = open_configured_lake(settings)
    text = lake.query(
        "select text from t where doc_id = ?",
        [cited.doc_id],
        t=lake.delta("silver.documents", cited.table_version),
    )["text"][0].as_py()
    assert text[cited.char_start : cited.char_end] == cited.quote
    assert cited.uri == (corpus / "tides.md").as_uri()
    found = trace(settings, answer.answer_id)
    assert found.kind == "answer"
    assert found.verified
    kinds = {node["kind"] for node in _walk(found.to_dict()["backward"])}
    assert {"release", "commit", "citation", "chunk", "document", "bytes"} <= kinds


def test_a_document_is_traced_forward_to_answers(settings: Settings, corpus: Path) -> None:
    answer = open_ask_service(settings).ask("What is a glacier?", "default")
    found = trace(settings, (corpus / "glaciers.md").as_uri())
    nodes = list(_walk(found.to_dict()["forward"]))
    assert {"document", "chunk", "embedding", "index", "answer"} <= {node["kind"] for node in nodes}
    assert answer.answer_id in {node["id"] for node in nodes}
    assert all("r1.1" in node["releases"] for node in nodes if node["kind"] == "index")
    assert found.verified
    release = trace(settings, "r1.1")
    assert release.forward
    assert release.verified is None  # nothing of it has a hash or a span, so nothing was verified


def test_a_thing_is_traced_by_the_beginning_of_its_id_and_by_its_path(
    settings: Settings, corpus: Path
) -> None:
    whole = trace(settings, (corpus / "glaciers.md").as_uri())
    assert trace(settings, str(corpus / "glaciers.md")) == whole
    [document] = [node for node in whole.forward if node.kind == "document"]
    found = trace(settings, document.id[:16])
    assert (found.kind, found.id) == ("document", document.id)
    with pytest.raises(Untraceable, match="nothing has the id"):
        trace(settings, "0" * 40)
    chunks = open_configured_lake(settings).query(
        "select chunk_id from t", t=open_configured_lake(settings).delta("gold.chunks")
    )["chunk_id"]
    assert trace(settings, chunks[0].as_py()[:20]).kind == "chunk"


def test_what_the_documents_do_not_say_is_not_answered(settings: Settings) -> None:
    answer = open_ask_service(settings).ask("Who won the chess world championship in 1972?", "default")
    assert answer.refused
    assert answer.citations == ()


def test_running_again_with_nothing_new_writes_nothing(settings: Settings) -> None:
    lake = open_configured_lake(settings)
    before = {name: version for name, version in versions(lake).items() if name != "gold.answers"}
    outcome = execute_run(settings, None, print)
    assert outcome.failures == []
    assert {name: v for name, v in versions(lake).items() if name != "gold.answers"} == before
    assert open_ask_service(settings).live_release().release_id == "r1.1"


def test_tampered_bytes_do_not_verify(settings: Settings, module_folder: Path, corpus: Path) -> None:
    copy = module_folder / "tampered"
    shutil.copytree(settings.home / "lake", copy / "lake")
    lake = open_configured_lake(settings.model_copy(update={"lake": str(copy / "lake")}))
    uri = (corpus / "tides.md").as_uri()
    raw = lake.delta("bronze.raw_documents").to_pyarrow_table().to_pylist()
    for row in raw:
        if row["uri"] == uri:
            row["body"] = row["body"].replace(b"moon", b"mood")
    import pyarrow as pa

    table = pa.Table.from_pylist(raw, TABLES["bronze.raw_documents"].schema)
    write_deltalake(lake.path("bronze.raw_documents"), table, mode="overwrite")
    found = Tracer(lake, lambda _: [], TraceVerifier(settings.recipe.parser)).trace(uri)
    assert found.verified is False


def test_changes_reach_the_release_and_equal_a_full_rebuild(
    settings: Settings, module_folder: Path, corpus: Path
) -> None:
    promoted = next(
        r for r in rows(open_configured_lake(settings), "silver.duplicates") if r["method"] == "exact"
    )
    lake = open_configured_lake(settings)
    names = {r["doc_id"]: Path(r["uri"]).name for r in rows(lake, "silver.documents")}
    canonical = "bees.md" if names[promoted["canonical_id"]] == "bees.md" else "bees copy.md"
    (corpus / canonical).unlink()  # another of its cluster must be promoted
    (corpus / "tides.md").write_text(
        "# Tides\n\nThe moon pulls the water of the oceans into two great bulges.\n"
    )
    (corpus / "volcano.txt").write_text(
        "Lava is molten rock that a volcano expels during an eruption of magma."
    )
    (corpus / "glaciers.md").unlink()
    built = ingest_and_release(settings, print)
    assert built.release == "r1.2"
    service = open_ask_service(settings)
    assert "volcano" in service.search("molten rock from an eruption", 1, "hybrid", "default")[0].uri
    assert "bees" in service.search("waggle dance of the honey bee", 1, "hybrid", "default")[0].uri
    assert all(
        "persistent body of dense ice" not in hit.text
        for hit in service.search("glacier ice", 10, "hybrid", "default")
    )

    # Spark makes anew what this process has followed change by change.
    fresh = make_home(module_folder / "fresh", corpus)
    with spark_only():
        ingest_and_release(fresh, print)
    ours, theirs = open_configured_lake(settings), open_configured_lake(fresh)
    canonical_of = {r["doc_id"]: r["canonical_id"] for r in rows(ours, "silver.duplicates")}
    assert len(canonical_of) == len(rows(theirs, "silver.duplicates"))
    for name in ("silver.documents", "silver.quarantine", "silver.signatures"):
        assert rows(ours, name) == rows(theirs, name), name
    # Who is senior depends on who was seen first, which a fresh lake can not know: texts are compared.
    for name in ("gold.chunks", "gold.embeddings"):
        left = sorted(str(row["text_sha256"]) for row in rows(ours, name))
        assert left == sorted(str(row["text_sha256"]) for row in rows(theirs, name)), name
    snapshot = service.index.rows_at(service.live_release())
    assert sorted(snapshot["chunk_id"].to_pylist()) == sorted(
        row["chunk_id"] for row in rows(ours, "gold.chunks")
    )


def test_a_file_that_comes_back_is_found_again(settings: Settings, corpus: Path) -> None:
    (corpus / "glaciers.md").write_text(f"# About glaciers\n\n{TOPICS['glaciers']}\n")
    built = ingest_and_release(settings, print)
    assert built.release == "r1.3"
    assert (
        "glaciers"
        in open_ask_service(settings).search("dense ice under its own weight", 1, "hybrid", "default")[0].uri
    )


def test_a_rollback_holds_until_it_is_ended(
    settings: Settings, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from assets.lake.releases import roll_back_release
    from retrieval.index.types import UnknownIndexRelease

    service = open_ask_service(settings)
    with pytest.raises(UnknownIndexRelease, match=r"r9\.9"):
        roll_back_release(open_configured_lake(settings), service.index, "r9.9", "ann", "")
    assert (
        roll_back_release(open_configured_lake(settings), service.index, None, "ann", "").release_id == "r1.2"
    )
    assert all(
        "glaciers" not in hit.uri for hit in service.search("glacier dense ice", 10, "hybrid", "default")
    )
    monkeypatch.setenv("HEADWATER_HOME", str(settings.home))
    (corpus / "volcanoes.md").write_text("# About volcanoes\n\nMagma rises through the crust of the earth.\n")
    ran = CliRunner().invoke(app, ["run"], catch_exceptions=False).output
    assert "r1.4 is held back: r1.2 is held by ann since" in ran
    assert "no other goes live: r1.2 is held by ann since" in ran
    assert "release gate: r1.4 approved" in ran
    assert service.live_release().release_id == "r1.2"
    shown = state_status(settings)
    assert shown.live is not None
    assert shown.live.held is not None
    assert shown.live.held.startswith("r1.2 is held by ann since")
    assert "r1.2 is held by ann" in str(CliRunner().invoke(app, ["hold", "--reason", "an audit"]).exception)
    ended = CliRunner().invoke(app, ["hold", "--off", "--json"], catch_exceptions=False)
    assert json.loads(ended.output)["ended"]["by"] == "ann"
    assert execute_run(settings, None, print).failures == []
    assert service.live_release().release_id == "r1.4"
    (corpus / "volcanoes.md").unlink()
    assert ingest_and_release(settings, print).release == "r1.5"
    roll_back_release(open_configured_lake(settings), service.index, "r1.3", "ann", "")
    service.index.end_hold()
    assert service.live_release().release_id == "r1.3"


def test_a_failed_gate_holds_for_whoever_comes_after(settings: Settings, corpus: Path) -> None:
    lake = open_configured_lake(settings)
    good, chunks = audited_version(lake, "silver.documents"), lake.version("gold.chunks")
    table = lake.delta("silver.documents").to_pyarrow_table()
    bad = table.slice(0, 1).to_pylist()[0] | {"doc_id": "0" * 64, "text": "   ", "char_count": 3}
    import pyarrow as pa

    write_deltalake(lake.path("silver.documents"), pa.Table.from_pylist([bad], table.schema), mode="append")
    outcome = execute_run(settings, None, print)
    assert any("silver/documents" in failure for failure in outcome.failures)
    problems = " ".join(state_status(settings).problems)
    assert "the last run" in problems
    assert "the gate of silver.documents is closed" in problems
    assert audited_version(lake, "silver.documents") == good
    alone = execute_run(settings, 'key:"gold/chunks" or key:"silver/signatures"', print)
    assert alone.failures == []
    assert lake.version("gold.chunks") == chunks
    with pytest.raises(RunFailed):
        ingest_and_release(settings, print)
    assert open_ask_service(settings).live_release().release_id == "r1.3"
    lake.delta("silver.documents").delete("doc_id = '" + "0" * 64 + "'")
    assert execute_run(settings, None, print).failures == []
    assert audited_version(lake, "silver.documents") == lake.version("silver.documents")
    assert state_status(settings).problems == []


def test_status_with_a_stopped_server_does_not_say_that_nothing_is_released(settings: Settings) -> None:
    Postgres(settings.home, settings.postgres).stop()
    shown = CliRunner().invoke(app, ["status"], env={"HEADWATER_HOME": str(settings.home)})
    assert shown.exit_code == 0
    assert "nothing is released" not in shown.stdout
    assert "went live last; PostgreSQL is stopped" in shown.stdout
    assert "the services are stopped" in shown.stdout


def _walk(nodes: list[dict]) -> "list[dict]":
    return [each for node in nodes for each in (node, *_walk(node.get("children", [])))]
