"""Housekeeping changes no row, loses nothing that is pointed at, and starts no work."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from index_rows import DIMENSION, NO_DETAILS, NO_LINEAGE, Chunk, batch, emptied

from assets.engine.relations import IS_DELETED
from assets.engine.step import begin_step
from assets.lake.audits import audited_version, readable_version, record_audit
from assets.lake.lake import FEW_FILES, Lake
from assets.lake.maintenance import compact_and_vacuum, erase_rows, needed_table_versions
from assets.lake.spark import SparkConfig
from assets.lake.tables import ANSWERS, CHUNKS, DOCUMENTS, DUPLICATES, SIGNATURES
from common.lineage import Lineage
from retrieval.index import hnsw_graph
from retrieval.index.index import IndexConfig
from retrieval.index.types import IndexRelease
from retrieval.search.searcher import SearchConfig, Searcher
from retrieval.store.postgres import Postgres


def pinning(versions: dict[str, int]) -> IndexRelease:
    """A release that pins versions of tables."""
    details = NO_DETAILS.model_copy(update={"versions": versions})
    return IndexRelease("r1.1", 1, 1, datetime.now(UTC), details)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake", SparkConfig(), tmp_path / "scratch", tmp_path / "docs")
    lake.ensure()
    return lake


def append(lake: Lake, number: int, **inputs: int) -> int:
    import pyarrow as pa

    row = {
        "doc_id": f"{number:064x}", "canonical_id": "c", "matched_id": "c", "jaccard": 1.0, "method": "exact",
        "OpenLineage_RunId": "run",
    }  # fmt: skip
    lineage = Lineage(
        run_id="run",
        asset="silver/duplicates",
        code_version="",
        config_digest="c",
        inputs=inputs,
        fence=number,
    )
    rows = pa.Table.from_pylist([dict.fromkeys(DUPLICATES.schema.names) | row], DUPLICATES.schema)
    return lake.append(DUPLICATES, rows, lineage)


def rows(lake: Lake, version: int | None = None) -> list[str]:
    table = lake.delta(DUPLICATES.name, version).to_pyarrow_table(columns=["doc_id"])
    return sorted(table["doc_id"].to_pylist())


def test_compaction_and_vacuum_change_no_row_and_start_no_work(lake: Lake) -> None:
    versions = [append(lake, number) for number in range(1, FEW_FILES + 5)]
    pinned, newest = versions[3], versions[-1]
    before, then = rows(lake), rows(lake, pinned)
    # A consumer that has read all of it, as its commit says.
    lineage = Lineage(
        run_id="run", asset="gold/chunks", code_version="", config_digest="c",
        inputs={DUPLICATES.name: newest}, fence=1,
    )  # fmt: skip
    lake.append(CHUNKS, CHUNKS.schema.empty_table(), lineage)
    needed = needed_table_versions(lake, [pinning({DUPLICATES.name: pinned})])
    assert needed[DUPLICATES.name] == {pinned, newest}
    done = compact_and_vacuum(lake, DUPLICATES.name, needed[DUPLICATES.name], retention_days=0)
    assert (done.files_before, done.files_after) == (len(versions), 1)
    assert lake.version(DUPLICATES.name) > newest
    assert lake.settled_version(DUPLICATES.name, newest) == lake.version(DUPLICATES.name)
    assert rows(lake) == before
    assert rows(lake, pinned) == then
    step = begin_step(
        lake, CHUNKS, {DUPLICATES: lake.version(DUPLICATES.name)}, run_id="next", config_digest="c"
    )
    assert step.idle
    append(lake, 999)
    assert lake.settled_version(DUPLICATES.name, newest) < lake.version(DUPLICATES.name)
    again = begin_step(
        lake, CHUNKS, {DUPLICATES: lake.version(DUPLICATES.name)}, run_id="next", config_digest="c"
    )
    assert not again.idle


def read_by_chunks(lake: Lake, version: int, fence: int) -> None:
    lineage = Lineage(
        run_id="run", asset="gold/chunks", code_version="", config_digest="c",
        inputs={DUPLICATES.name: version}, fence=fence,
    )  # fmt: skip
    lake.append(CHUNKS, CHUNKS.schema.empty_table(), lineage)


def lagging(lake: Lake) -> int:
    """A consumer that has read the first row, and what came since: a row, another that went, and a merge."""
    first = append(lake, 1)
    read_by_chunks(lake, first, 1)
    append(lake, 2)
    append(lake, 3)
    lake.delta(DUPLICATES.name).delete("doc_id = '" + f"{2:064x}" + "'")
    lake.delta(DUPLICATES.name).update({"method": "'near'"}, predicate=f"doc_id = '{3:064x}'")
    return first


def test_a_consumer_that_lags_behind_retention_still_reads_its_changes(lake: Lake) -> None:
    first = lagging(lake)
    needed = needed_table_versions(lake, [])[DUPLICATES.name]
    assert needed == set(range(first, lake.version(DUPLICATES.name) + 1))
    compact_and_vacuum(lake, DUPLICATES.name, needed, retention_days=0)
    step = begin_step(
        lake, CHUNKS, {DUPLICATES: lake.version(DUPLICATES.name)}, run_id="next", config_digest="c"
    )
    assert not step.rebuild
    with step.relations((DUPLICATES,)) as on:
        changes = on.arrow("changed_duplicates")
    assert dict(zip(changes["doc_id"].to_pylist(), changes[IS_DELETED].to_pylist(), strict=True)) == {
        f"{2:064x}": True,
        f"{3:064x}": False,
    }


def test_an_old_answer_keeps_the_versions_that_it_names_and_none_after_them(lake: Lake) -> None:
    versions = [append(lake, number) for number in range(1, 5)]
    lineage = Lineage(
        run_id="a", asset="gold/answers", code_version="", config_digest="",
        inputs={DUPLICATES.name: versions[0]},
    )  # fmt: skip
    lake.append(ANSWERS, ANSWERS.schema.empty_table(), lineage)
    assert needed_table_versions(lake, [])[DUPLICATES.name] == {versions[0], versions[-1]}


def test_the_versions_that_the_index_last_read_are_needed_and_all_after_them(lake: Lake) -> None:
    versions = [append(lake, number) for number in range(1, 5)]
    needed = needed_table_versions(lake, [], [{DUPLICATES.name: versions[1]}])
    assert needed[DUPLICATES.name] == set(versions[1:])


def test_a_consumer_whose_changes_were_deleted_starts_anew_and_says_so(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    first = lagging(lake)
    newest = lake.version(DUPLICATES.name)
    assert lake.has_changes(DUPLICATES.name, first, newest)
    # As a VACUUM by another tool does, which knows nothing of our consumers.
    compact_and_vacuum(lake, DUPLICATES.name, {newest}, retention_days=0)
    assert not lake.has_changes(DUPLICATES.name, first, newest)
    step = begin_step(lake, CHUNKS, {DUPLICATES: newest}, run_id="next", config_digest="c")
    assert step.rebuild
    assert "gold.chunks is made anew" in caplog.text
    assert "silver.duplicates" in caplog.text
    with step.relations((DUPLICATES,)) as on:
        changes = on.arrow("changed_duplicates")
    assert sorted(changes["doc_id"].to_pylist()) == rows(lake) == [f"{1:064x}", f"{3:064x}"]


def test_files_that_nothing_needs_are_deleted_after_their_time(lake: Lake) -> None:
    append(lake, 1)
    append(lake, 2)
    lake.delta(DUPLICATES.name).delete("doc_id = '" + f"{1:064x}" + "'")
    before = lake.version(DUPLICATES.name)
    kept = compact_and_vacuum(lake, DUPLICATES.name, {before}, retention_days=1)
    assert kept.files_removed == 0
    assert lake.version(DUPLICATES.name) == before
    gone = compact_and_vacuum(lake, DUPLICATES.name, {lake.version(DUPLICATES.name)}, retention_days=0)
    assert gone.files_removed >= 1
    assert rows(lake) == [f"{2:064x}"]


def test_a_version_that_passed_has_passed_as_compacted_too(lake: Lake) -> None:
    record_audit(lake, DOCUMENTS.name, 0, True, [], "run")
    assert readable_version(lake, DOCUMENTS) == 0
    compact_and_vacuum(lake, DOCUMENTS.name, {0}, retention_days=0)
    assert readable_version(lake, DOCUMENTS) == lake.version(DOCUMENTS.name)
    record_audit(lake, DOCUMENTS.name, 0, False, ["row_count"], "stricter")
    assert audited_version(lake, DOCUMENTS.name) is None


def test_the_little_that_was_removed_leaves_the_indexes_of_a_small_graph(postgres: Postgres) -> None:
    index = emptied(postgres)
    chunks = [Chunk(f"gone {n}", f"word{n}") for n in range(5000)]
    state = index.build("gone", "gone", DIMENSION, [batch(chunks)], NO_LINEAGE)
    state = index.apply(state, [], [chunks[7].chunk_id], NO_LINEAGE)
    index.release("gone", state, None, NO_DETAILS)

    def cleaned() -> str:
        said: list[str] = []
        with postgres.maintenance() as connection:
            connection.add_notice_handler(lambda diagnostic: said.append(diagnostic.message_primary or ""))
            connection.execute(f"VACUUM (VERBOSE) headwater.chunks_g{state.generation}")
        return said[1]

    assert index.prune([]) == 1
    assert "have 1 dead item identifiers" in cleaned()
    assert index.maintain()["graphs_rebuilt"] == 0
    assert "have 0 dead item identifiers" in cleaned()


def test_a_large_graph_is_made_anew_when_a_fifth_of_it_left(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hnsw_graph, "_LARGE_GRAPH_ROWS", 100)
    monkeypatch.setattr(hnsw_graph, "_EMPTY_GRAPH_BYTES", 0)
    index = emptied(postgres, IndexConfig(graph_min_chunks=100))
    random = np.random.default_rng(0)
    chunks = [
        Chunk(f"leaves {n}", f"word{n}", vector=tuple(random.normal(size=DIMENSION).tolist()))
        for n in range(2000)
    ]
    state = index.build("leaves", "leaves", DIMENSION, [batch(chunks)], NO_LINEAGE)

    def graph_file() -> object:
        with postgres.maintenance() as connection:
            (graph,) = hnsw_graph._graphs(connection, state.generation)
            return connection.execute("SELECT pg_relation_filenode(%s)", (graph.name,)).fetchone()

    files = [graph_file()]
    live = None
    for gone, rebuilt in ((chunks[100:300], 0), (chunks[300:600], 1), ([], 0)):
        state = index.apply(state, [], [chunk.chunk_id for chunk in gone], NO_LINEAGE)
        if gone:
            index.release(f"leaves {state.epoch}", state, live, NO_DETAILS)
            live = f"leaves {state.epoch}"
        assert index.prune([]) == len(gone)
        held = index.rows_at(state)
        assert index.maintain()["graphs_rebuilt"] == rebuilt
        assert index.rows_at(state).equals(held)
        files.append(graph_file())
    assert files[0] == files[1] != files[2] == files[3]
    nearest = Searcher(postgres, SearchConfig(graph_row_cost=0)).search(
        "acme", "", chunks[50].embedding(), 5, "vector", state, model_digest="leaves"
    )
    assert nearest[0].chunk_id == chunks[50].chunk_id


def test_what_is_needed_follows_every_consumer(lake: Lake) -> None:
    for name, inputs in (
        (SIGNATURES, {DOCUMENTS.name: 0}),
        (CHUNKS, {DUPLICATES.name: 0, DOCUMENTS.name: 0}),
    ):
        lake.append(
            name,
            name.schema.empty_table(),
            Lineage(run_id="r", asset="a", code_version="", config_digest="", inputs=inputs),
        )
    for number in range(1, 4):
        append(lake, number)
    needed = needed_table_versions(lake, [])
    assert needed[DUPLICATES.name] == {0, 1, 2, 3}
    assert needed[DOCUMENTS.name] == {0}


def test_files_of_the_change_feed_go_with_the_versions_that_nobody_follows(lake: Lake) -> None:
    def feeds() -> set[Path]:
        return set(Path(lake.path(DUPLICATES.name)).glob("_change_data/*.parquet"))

    first = lagging(lake)
    fed = feeds()
    assert len(fed) == 2
    needed = needed_table_versions(lake, [])[DUPLICATES.name]
    compact_and_vacuum(lake, DUPLICATES.name, needed, retention_days=0)
    assert feeds() == fed
    read_by_chunks(lake, lake.version(DUPLICATES.name), 2)
    lake.delta(DUPLICATES.name).delete("doc_id = '" + f"{3:064x}" + "'")
    needed = needed_table_versions(lake, [])[DUPLICATES.name]
    assert min(needed) > first
    compact_and_vacuum(lake, DUPLICATES.name, needed, retention_days=1)
    assert len(feeds()) == 3
    compact_and_vacuum(lake, DUPLICATES.name, needed, retention_days=0)
    assert len(feeds()) == 2  # of the version that was read last, and of the one after it
    assert len(fed - feeds()) == 1


def test_erased_rows_are_gone_and_what_was_consumed_stays_consumed(lake: Lake) -> None:
    lagging(lake)
    commit = lake.last_commit(DUPLICATES.name)
    assert commit is not None
    before = lake.version(DUPLICATES.name)
    assert erase_rows(lake, DUPLICATES, "method", "no such method", "removal") == 0
    assert lake.version(DUPLICATES.name) == before
    assert erase_rows(lake, DUPLICATES, "doc_id", f"{1:064x}", "removal") == 1
    erased = lake.last_commit(DUPLICATES.name)
    assert erased is not None
    assert (erased.lineage.run_id, erased.lineage.inputs) == ("removal", commit.lineage.inputs)
    assert f"{1:064x}" not in {
        row["doc_id"] for row in lake.delta(DUPLICATES.name).to_pyarrow_table().to_pylist()
    }
