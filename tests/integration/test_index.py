"""The index: what readers see while it is built, changed, released, rolled back and pruned."""

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pyarrow as pa
import pytest
from index_rows import DIMENSION, NO_DETAILS, NO_LINEAGE, Chunk, batch, made_from, sha256

from assets.lake.releases import prune_releases
from retrieval.index.binary_copy import InvalidIndexBatch
from retrieval.index.index import Index, IndexConfig
from retrieval.index.release_log import ReleaseHeld
from retrieval.index.rows import MAX_FIELD_BYTES
from retrieval.index.types import (
    IndexConflict,
    IndexReleaseExists,
    IndexState,
    UnknownIndexRelease,
)
from retrieval.search.searcher import Searcher
from retrieval.search.snapshot import read_snapshot
from retrieval.store.postgres import Postgres

ROWS = [
    Chunk("a", "The river rises in the mountains", title="Rivers"),
    Chunk("b", "Glaciers feed the river in summer", heading="Ice > Melt"),
    Chunk("c", "Une rivière traverse la ville", language="fr"),
    Chunk("d", "Secret river of the other tenant", tenant="other"),
]


@pytest.fixture
def index(postgres: Postgres) -> Index:
    """An index with nothing in it and nothing released."""
    found = Index(postgres)
    with postgres.owner() as connection:
        connection.execute("DELETE FROM headwater.release_log")
    found.prune([])
    return found


def build(index: Index, rows: list[Chunk] = ROWS) -> IndexState:
    return index.build("model", "chunker", DIMENSION, [batch(rows)], made_from(chunks=1))


def names(index: Index, state: IndexState) -> set[str]:
    return {uri.removeprefix("file:///") for uri in index.rows_at(state)["uri"].to_pylist()}


def test_build_stores_every_row_as_it_was_given(index: Index, postgres: Postgres) -> None:
    batches = [batch(ROWS[:3]), batch([]), batch(ROWS[3:])]
    state = index.build("model", "chunker", DIMENSION, batches, made_from(chunks=7))
    assert index.state("model", "chunker") == state
    assert state.lineage.inputs == {"chunks": 7}
    assert index.state("model", "another chunker") is None
    given = pa.Table.from_batches([batch(ROWS)])
    snapshot = index.rows_at(state)
    assert snapshot.num_rows == len(ROWS)
    want = given.select(snapshot.schema.names).sort_by("chunk_id")
    # `ordinal` restarts in each batch that the test makes.
    assert snapshot.drop(["ordinal"]).to_pylist() == want.drop(["ordinal"]).to_pylist()
    with postgres.owner() as connection:
        stored = connection.execute(
            "SELECT title, heading, text, embedding::real[] FROM headwater.chunks WHERE uri = 'file:///a'"
        ).fetchone()
    assert stored is not None
    assert stored[:3] == ("Rivers", None, ROWS[0].text)
    assert stored[3] == pytest.approx(ROWS[0].embedding(), abs=1e-3)


def test_an_empty_index_can_be_built_and_filled_later(index: Index) -> None:
    state = index.build("model", "chunker", DIMENSION, [], NO_LINEAGE)
    assert index.rows_at(state).num_rows == 0
    assert names(index, index.apply(state, [batch(ROWS)], [], NO_LINEAGE)) == {"a", "b", "c", "d"}


def test_apply_leaves_the_epoch_before_as_it_was(index: Index) -> None:
    first = build(index)
    changed = Chunk("a", ROWS[0].text, title="Rivers, second edition")
    second = index.apply(first, [batch([changed, Chunk("e", "Estuary")])], [ROWS[1].chunk_id], made_from(v=2))
    assert (second.generation, second.epoch) == (first.generation, first.epoch + 1)
    assert names(index, first) == {"a", "b", "c", "d"}
    assert names(index, second) == {"a", "c", "d", "e"}
    third = index.apply(second, [batch([ROWS[1]])], [], made_from(v=3))
    assert names(index, third) == {"a", "b", "c", "d", "e"}
    assert names(index, second) == {"a", "c", "d", "e"}


def test_apply_without_a_difference_moves_only_the_lineage(index: Index) -> None:
    first = build(index)
    again = index.apply(first, [batch(ROWS)], ["unknown chunk"], made_from(chunks=2))
    assert again.epoch == first.epoch
    stored = index.state("model", "chunker")
    assert stored is not None
    assert stored.lineage == made_from(chunks=2)


def test_a_reader_in_the_middle_of_an_apply_sees_the_old_epoch(index: Index, postgres: Postgres) -> None:
    first = build(index)
    index.release("r1", first, None, NO_DETAILS)
    searcher = Searcher(postgres)
    staged, go_on = threading.Event(), threading.Event()

    def slowly() -> Iterator[pa.RecordBatch]:
        yield batch([Chunk("e", "A new river")])
        staged.set()
        assert go_on.wait(20)

    states: list[IndexState] = []
    writer = threading.Thread(
        target=lambda: states.append(index.apply(first, slowly(), [ROWS[0].chunk_id], NO_LINEAGE))
    )
    writer.start()
    assert staged.wait(20)
    before = searcher.search("acme", "river", None, 10, "lexical")
    go_on.set()
    writer.join()
    after = searcher.search("acme", "river", None, 10, "lexical")
    candidate = searcher.search("acme", "river", None, 10, "lexical", at=states[0])
    assert before == after
    assert {hit.uri for hit in before} == {"file:///a", "file:///b"}
    assert {hit.uri for hit in candidate} == {"file:///b", "file:///e"}


def test_of_two_writers_one_is_fenced_and_changes_nothing(index: Index) -> None:
    first = build(index)
    outcomes: list[object] = []
    barrier = threading.Barrier(2)

    def write(name: str) -> None:
        barrier.wait()
        try:
            change = made_from(**{name: 1})
            outcomes.append(index.apply(first, [batch([Chunk(name, f"text of {name}")])], [], change))
        except IndexConflict as error:
            outcomes.append(error)

    writers = [threading.Thread(target=write, args=(name,)) for name in ("x", "y")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    won = [outcome for outcome in outcomes if isinstance(outcome, IndexState)]
    assert len(won) == 1
    assert sum(isinstance(outcome, IndexConflict) for outcome in outcomes) == 1
    assert names(index, won[0]) == {"a", "b", "c", "d", *won[0].lineage.inputs}
    with pytest.raises(IndexConflict, match="worked out from epoch 1"):
        index.apply(first, [], [ROWS[0].chunk_id], NO_LINEAGE)


def test_a_build_that_dies_leaves_nothing_that_is_served(index: Index, postgres: Postgres) -> None:
    def dies() -> Iterator[pa.RecordBatch]:
        yield batch(ROWS)
        with postgres.maintenance() as connection:
            connection.execute("SET ROLE NONE")  # only an administrator may end another's session
            killed = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query LIKE 'COPY %' AND pid <> pg_backend_pid() AND datname = current_database()"
            ).fetchall()
        assert killed == [(True,)]
        yield batch([Chunk("e", "late")])

    with pytest.raises(psycopg.Error):
        index.build("model", "chunker", DIMENSION, dies(), NO_LINEAGE)
    assert index.state("model", "chunker") is None
    assert statuses(postgres).count("building") == 1
    state = build(index)
    assert "building" not in statuses(postgres)
    assert names(index, state) == {"a", "b", "c", "d"}


def statuses(postgres: Postgres) -> list[str]:
    with postgres.owner() as connection:
        return [row[0] for row in connection.execute("SELECT status FROM headwater.index_state")]


def test_a_second_build_at_the_same_time_is_refused(index: Index) -> None:
    def nested() -> Iterator[pa.RecordBatch]:
        with pytest.raises(IndexConflict, match="another build"):
            build(index)
        yield batch(ROWS)

    assert names(index, index.build("model", "chunker", DIMENSION, nested(), NO_LINEAGE)) == {
        "a",
        "b",
        "c",
        "d",
    }


def test_a_new_model_is_built_beside_the_live_generation(index: Index, postgres: Postgres) -> None:
    index.release("r1", build(index), None, NO_DETAILS)
    narrow = [Chunk("a", "narrow", vector=(1.0, 2.0))]
    state = index.build("other model", "chunker", 2, [batch(narrow)], NO_LINEAGE)
    searcher = Searcher(postgres)
    assert searcher.search("acme", "glaciers", None, 5, "lexical")
    hits = searcher.search("acme", "", [1.0, 2.0], 5, "vector", at=state, model_digest="other model")
    assert [hit.uri for hit in hits] == ["file:///a"]


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("uri", pa.array(["file:///x", None]), "column 'uri' lacks a value in 1 rows"),
        ("ordinal", pa.array(["x", "y"]), "column 'ordinal' is string"),
        ("vector", pa.array([[1.0] * 8, [1.0] * 7]), "vectors of 7 and of 8"),
        ("vector", pa.array([[1.0] * 7, [1.0] * 7]), "vectors of 7 numbers and the index is for 8"),
        ("vector", pa.array([[1.0] * 8, [float("nan")] * 8]), "row 1 .* not every number"),
        ("vector", pa.array([[1.0] * 8, [0.0] * 8]), "row 1 .* vector is zero"),
        ("vector", pa.array([[1.0] * 8, None]), "no vector in row 1"),
        ("chunk_id", pa.array(["same", "same"]), "two rows have one chunk_id"),
        ("heading", None, "no column heading"),
    ],
)
def test_a_batch_that_can_not_be_indexed_is_refused_with_its_reason(
    index: Index, column: str, values: pa.Array | None, said: str
) -> None:
    good = batch(ROWS[:2])
    position = good.schema.names.index(column)
    arrays, columns = list(good.columns), list(good.schema.names)
    if values is None:
        del arrays[position], columns[position]
    else:
        arrays[position] = values
    bad = pa.RecordBatch.from_arrays(arrays, names=columns)
    with pytest.raises(InvalidIndexBatch, match=said):
        index.build("model", "chunker", DIMENSION, [bad], NO_LINEAGE)
    assert index.state("model", "chunker") is None
    state = build(index, [])
    with pytest.raises(InvalidIndexBatch, match=said):
        index.apply(state, [bad], [], NO_LINEAGE)
    assert index.state("model", "chunker") == state


def test_a_chunk_that_can_not_be_indexed_is_quarantined_and_the_others_are_built(
    index: Index, postgres: Postgres
) -> None:
    refused = [
        Chunk("nul", "a\0b"),
        Chunk("title", "text", title="word " * MAX_FIELD_BYTES),
        Chunk("scope", "text", groups=",".join(f"group number {n:04}" for n in range(200))),
    ]
    state = build(index, [*ROWS[:2], *refused])
    assert names(index, state) == {"a", "b"}
    found = {each.uri.removeprefix("file:///"): each for each in index.quarantined(state)}
    assert {name: each.expectation for name, each in found.items()} == {
        "nul": "text_without_nul",
        "title": "title_bytes",
        "scope": "scope_bytes",
    }
    assert found["title"].reason == "its title has 500,000 bytes; at most 100,000 can be indexed"
    assert {each.tenant for each in found.values()} == {"acme"}
    (row,) = index.document_rows(found["nul"].doc_id)
    assert (row["valid_from"], row["quarantined"]) == (None, "its text holds a NUL character")
    # Mended, it is indexed; spoilt, it leaves the index; gone, it leaves the quarantine.
    mended = Chunk("title", "text", title="short")
    spoilt = Chunk("a", "a\0b", title="Rivers")
    gone = next(each for each in refused if each.name == "nul")
    state = index.apply(state, [batch([mended, spoilt])], [gone.chunk_id], NO_LINEAGE)
    assert names(index, state) == {"b", "title"}
    assert {each.uri for each in index.quarantined(state)} == {"file:///scope", "file:///a"}
    again = index.apply(state, [batch([spoilt])], [], NO_LINEAGE)
    assert (again.epoch, len(index.quarantined(again))) == (state.epoch, 2)
    index.release("r1", build(index), None, NO_DETAILS)
    index.prune([])
    assert index.quarantined(state) == []


def test_the_longest_fields_that_are_taken_can_be_indexed(index: Index) -> None:
    """Whatever they hold: PostgreSQL's own limits are for words with their positions, not for characters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [
        chr(code) for code in range(0x430, 0x450)
    ]
    pairs = [a + b for a in letters for b in letters]
    triples = itertools.cycle([pair + c for pair in pairs for c in letters])
    fields = [
        cut(" ".join(pairs * 60)),
        cut(" ".join(itertools.islice(triples, 60_000))),
        cut("漢字" * MAX_FIELD_BYTES),
        cut("a.b" * MAX_FIELD_BYTES),
        cut("x" * MAX_FIELD_BYTES),
        cut(" ".join(sha256(str(n)) for n in range(2_000))),
    ]
    rows = [Chunk(f"c{n}", text, title=text, heading=text) for n, text in enumerate(fields)]
    state = build(index, rows)
    assert index.quarantined(state) == []
    assert len(names(index, state)) == len(rows)


def test_a_long_word_for_many_groups_does_not_outgrow_the_index_of_words(index: Index) -> None:
    # Of digests, because PostgreSQL compresses what repeats.
    word = "".join(sha256(str(n)) for n in range(40))
    groups = ",".join(sha256(f"group {n}") for n in range(24))
    state = build(index, [Chunk(f"c{size}", word[:size], groups=groups) for size in (990, 1010, 2040, 2560)])
    assert index.quarantined(state) == []
    assert len(names(index, state)) == 4


def cut(text: str) -> str:
    return text.encode()[:MAX_FIELD_BYTES].decode(errors="ignore")


def test_a_chunk_both_removed_and_put_in_is_refused(index: Index) -> None:
    state = build(index)
    with pytest.raises(InvalidIndexBatch, match="both removed and put in"):
        index.apply(state, [batch(ROWS[:1])], [ROWS[0].chunk_id], NO_LINEAGE)


def test_release_swaps_only_from_the_expected_one(index: Index) -> None:
    assert index.live() is None
    first = build(index)
    details = NO_DETAILS.model_copy(update={"metrics": {"ndcg@10": 0.7}, "versions": {"gold.chunks": 3}})
    released = index.release("r1", first, None, details)
    assert index.live() == released
    assert released.details == details
    second = index.apply(first, [], [ROWS[0].chunk_id], NO_LINEAGE)
    with pytest.raises(IndexConflict, match="'r1' is live, not 'nothing'"):
        index.release("r2", second, None, NO_DETAILS)
    with pytest.raises(IndexReleaseExists, match="'r1'"):
        index.release("r1", second, "r1", NO_DETAILS)
    with pytest.raises(UnknownIndexRelease, match="no epoch 99"):
        index.release("r2", IndexState(first.generation, 99, "", "", 8, NO_LINEAGE), "r1", NO_DETAILS)
    assert index.live() == released
    index.release("r2", second, "r1", NO_DETAILS)
    assert [release.release_id for release in index.releases()] == ["r2", "r1"]


def test_rollback_repoints_and_names_what_there_is(index: Index, postgres: Postgres) -> None:
    first = build(index)
    index.release("r1", first, None, NO_DETAILS)
    index.release("r2", index.apply(first, [], [ROWS[0].chunk_id], NO_LINEAGE), "r1", NO_DETAILS)
    searcher = Searcher(postgres)
    assert len(searcher.search("acme", "river", None, 5, "lexical")) == 1
    with pytest.raises(UnknownIndexRelease, match=r"no release 'r9'.*known: r2, r1"):
        index.hold("r9", "ann", "")
    assert index.hold("r1", "ann", "").release_id == "r1"
    assert len(searcher.search("acme", "river", None, 5, "lexical")) == 2


def test_a_held_release_stays_live_until_the_hold_ends(index: Index) -> None:
    first = build(index)
    with pytest.raises(UnknownIndexRelease, match="nothing is live yet"):
        index.hold(None, "ann", "")
    index.release("r1", first, None, NO_DETAILS)
    second = index.apply(first, [], [ROWS[0].chunk_id], NO_LINEAGE)
    index.release("r2", second, "r1", NO_DETAILS)
    assert index.live_hold() is None
    assert index.hold(None, "ann", "an audit").release_id == "r2"
    with pytest.raises(ReleaseHeld, match=r"held by ann since .* UTC: an audit; .* `headwater hold --off`"):
        index.release("r3", second, "r2", NO_DETAILS)
    with pytest.raises(ReleaseHeld, match="r2 is held by ann"):
        index.hold("r1", "bob", "it is worse")
    assert [release.release_id for release in index.releases()] == ["r2", "r1"]
    assert index.hold("r1", "ann", "it was worse").release_id == "r1"  # whoever holds may choose another
    index.prune([])  # and what is held is kept
    held = index.live_hold()
    assert held is not None
    assert (held.release_id, held.held_by, held.reason) == ("r1", "ann", "it was worse")
    assert index.end_hold() == held
    assert index.end_hold() is None
    index.release("r3", second, "r1", NO_DETAILS)


def test_of_two_people_who_hold_at_once_one_does(index: Index) -> None:
    first = build(index)
    index.release("r1", first, None, NO_DETAILS)
    index.release("r2", index.apply(first, [], [ROWS[0].chunk_id], NO_LINEAGE), "r1", NO_DETAILS)
    start = threading.Barrier(2)

    def hold(release: str, held_by: str) -> str | None:
        start.wait()
        try:
            return index.hold(release, held_by, "").release_id
        except ReleaseHeld:
            return None

    for _ in range(5):
        with ThreadPoolExecutor(2) as people:
            made = list(people.map(hold, ("r1", "r2"), ("ann", "bob")))
        assert sorted(each is None for each in made) == [False, True]
        held, live = index.end_hold(), index.live()
        assert held is not None
        assert live is not None
        assert held.held_by == ("ann" if made[0] else "bob")
        assert held.release_id == live.release_id == (made[0] or made[1])


def test_prune_removes_what_no_kept_release_shows(index: Index, postgres: Postgres) -> None:
    first = build(index)
    index.release("r1", first, None, NO_DETAILS)
    second = index.apply(first, [batch([Chunk("e", "Passing estuary")])], [ROWS[0].chunk_id], NO_LINEAGE)
    third = index.apply(second, [], [Chunk("e", "").chunk_id], NO_LINEAGE)
    assert index.prune([(first.generation, first.epoch)]) == 1  # "e" lived between two releases
    assert names(index, first) == {"a", "b", "c", "d"}
    index.release("r3", third, "r1", NO_DETAILS)
    assert index.prune([]) == 1  # "a", which only r1 showed
    with postgres.owner() as connection:
        left = connection.execute("SELECT count(*) FROM headwater.chunks WHERE valid_to IS NOT NULL")
        assert left.fetchone() == (0,)
        left = connection.execute(
            "SELECT count(*) FROM headwater.postings p CROSS JOIN unnest(chunk_nos) AS posting (chunk_no) "
            "WHERE NOT EXISTS (SELECT FROM headwater.chunks c "
            "WHERE c.generation = p.generation AND c.chunk_no = posting.chunk_no)"
        )
        assert left.fetchone() == (0,)
    with pytest.raises(UnknownIndexRelease, match=r"'r1' is no longer kept.*known: r3"):
        index.hold("r1", "ann", "")
    assert index.live_hold() is None
    with pytest.raises(UnknownIndexRelease, match="can not be read"):
        Searcher(postgres).search("acme", "river", None, 5, "lexical", at=first)
    assert names(index, index.apply(third, [batch(ROWS[:1])], [], NO_LINEAGE)) == {"a", "b", "c", "d"}


def test_prune_drops_generations_that_nothing_kept_reads(index: Index, postgres: Postgres) -> None:
    old = build(index)
    index.release("r1", old, None, NO_DETAILS)
    new = build(index, ROWS[:1])
    index.release("r2", new, "r1", NO_DETAILS)
    index.prune([(old.generation, old.epoch)])
    assert index.rows_at(old).num_rows == 4
    index.prune([])
    assert index.rows_at(old).num_rows == 0
    with postgres.owner() as connection:
        parts = connection.execute(
            "SELECT to_regclass(%s), to_regclass(%s)",
            (f"headwater.chunks_g{old.generation}", f"headwater.chunks_g{new.generation}"),
        ).fetchone()
    assert parts is not None
    assert parts[0] is None
    assert parts[1] is not None
    with pytest.raises(IndexConflict, match="is retired"):
        index.apply(old, [], [], NO_LINEAGE)


def test_prune_gives_up_while_a_reader_holds_the_generation(index: Index, postgres: Postgres) -> None:
    old = build(index)
    index.release("r1", old, None, NO_DETAILS)
    index.release("r2", build(index), "r1", NO_DETAILS)
    impatient = Index(postgres, IndexConfig(lock_timeout_s=0.2))
    with postgres.serving("acme") as reader:
        with pytest.raises(IndexConflict, match="being read"):
            impatient.prune([])
        assert read_snapshot(reader, old).chunk_count == 3
    assert [release.release_id for release in index.releases()] == ["r2", "r1"]
    impatient.prune([])
    assert [release.release_id for release in index.releases()] == ["r2"]


def test_a_release_stays_live_when_what_it_replaces_can_not_be_removed(
    index: Index, postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    old = build(index)
    index.release("r1", old, None, NO_DETAILS)
    index.release("r2", build(index), "r1", NO_DETAILS)
    impatient = Index(postgres, IndexConfig(lock_timeout_s=0.2))
    with postgres.serving("acme"):
        assert not prune_releases(impatient, 1)
        with postgres.owner() as writer:
            # Whatever it waits for: here a change of the generation, which is not being read.
            writer.execute("SELECT FROM headwater.index_state FOR UPDATE")
            assert not prune_releases(impatient, 1)
    assert "stay until the nightly maintenance" in caplog.text
    live = index.live()
    assert live is not None
    assert live.release_id == "r2"
    assert prune_releases(impatient, 1)
    assert [release.release_id for release in index.releases()] == ["r2"]
