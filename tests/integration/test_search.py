"""Search: its modes, exact and approximate neighbours, and what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
from index_rows import DIMENSION, NO_DETAILS, NO_LINEAGE, Chunk, batch, emptied, found, policy_reader

from retrieval.index.index import IndexConfig
from retrieval.index.types import IndexState, UnknownIndexRelease
from retrieval.search.query import InvalidSearchQuery, SearchQuery
from retrieval.search.searcher import (
    RETRIEVAL_MODES,
    QueryModelMismatch,
    RetrievalMode,
    SearchConfig,
    Searcher,
)
from retrieval.search.snapshot import NoLiveSnapshot, read_snapshot
from retrieval.search.vector_search import VectorSearchPlan
from retrieval.store.postgres import Postgres, fetch_postgres_value

ROWS = [
    Chunk("stone", "stone stone wind", title="River", vector=(1, 0, 0, 0, 0, 0, 0, 0.1)),
    Chunk("salt", "salt and copper", heading="Harbor", vector=(0, 1, 0, 0, 0, 0, 0, 0.1)),
    Chunk("wind", "wind over the harbor", vector=(0.9, 0.1, 0, 0, 0, 0, 0, 0)),
    Chunk("ville", "Les écoles de la ville", language="fr", vector=(0, 0, 1, 0, 0, 0, 0, 0)),
    Chunk("quotes", "“copper”—he said", language="zz", vector=(0, 0, 0, 1, 0, 0, 0, 0)),
    Chunk("foreign", "stone of another tenant", tenant="other", vector=(1, 0, 0, 0, 0, 0, 0, 0)),
]


@pytest.fixture(scope="module")
def searcher(postgres: Postgres) -> Searcher:
    index = emptied(postgres)
    index.release(
        "live", index.build("model", "chunker", DIMENSION, [batch(ROWS)], NO_LINEAGE), None, NO_DETAILS
    )
    return Searcher(postgres)


def test_lexical_search_reads_title_heading_and_text_in_the_documents_language(searcher: Searcher) -> None:
    def search(query: str) -> list[str]:
        return found(searcher.search("acme", query, None, 10, "lexical"))

    assert search("rivers") == ["stone"]
    assert set(search("which harbors?")) == {"salt", "wind"}
    assert search("école") == ["ville"]
    assert "quotes" in search("copper")  # typographic quotes and dashes are not letters
    assert search("stone")[0] == "stone"
    assert search("of the and") == []
    assert search("'; DROP TABLE headwater.chunks; --") == []
    assert search("the stone-cold (wind) & | ! :*") != []


def test_a_hit_carries_its_citation(searcher: Searcher) -> None:
    (hit,) = searcher.search("acme", "salt", None, 10, "lexical")
    row = batch(ROWS).slice(1, 1).to_pylist()[0]
    assert hit.rank == 1
    for name in (
        "chunk_id",
        "doc_id",
        "uri",
        "title",
        "heading",
        "content_sha256",
        "char_start",
        "char_end",
        "text",
    ):
        assert getattr(hit, name) == row[name]


def test_vector_search_ranks_by_cosine(searcher: Searcher) -> None:
    hits = searcher.search("acme", "", [2.0, 0, 0, 0, 0, 0, 0, 0], 2, "vector", model_digest="model")
    assert found(hits) == ["stone", "wind"]
    assert hits[0].score == pytest.approx(1 / math.hypot(1, 0.1), abs=1e-3)
    assert [hit.rank for hit in hits] == [1, 2]


def test_hybrid_search_finds_what_either_finds(searcher: Searcher) -> None:
    hits = searcher.search("acme", "copper", [1.0, 0, 0, 0, 0, 0, 0, 0], 10, model_digest="model")
    assert set(found(hits)) == {"stone", "salt", "wind", "ville", "quotes"}
    # Two hold the word and two lie close; the last lies nowhere. Stop words leave the vector's half.
    assert set(found(hits)[:4]) == {"stone", "quotes", "salt", "wind"}
    only_stops = searcher.search("acme", "of the", [1.0, 0, 0, 0, 0, 0, 0, 0], 1, model_digest="model")
    assert found(only_stops) == ["stone"]


def test_more_is_asked_for_than_there_is(searcher: Searcher) -> None:
    vector = [1.0, 0, 0, 0, 0, 0, 0, 0]
    assert len(searcher.search("acme", "", vector, 1000, "vector", model_digest="model")) == 5
    assert len(searcher.search("acme", "wind", vector, 1000, model_digest="model")) == 5
    assert len(searcher.search("acme", "wind", None, 1000, "lexical")) == 2
    assert searcher.search("nobody", "wind", vector, 10, model_digest="model") == []


GOOD = [1.0] * DIMENSION


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"mode": "psychic"}, InvalidSearchQuery, "no mode 'psychic'; there are hybrid, lexical, vector"),
        ({"k": 0}, InvalidSearchQuery, "k is 0; it is a whole number from 1 to 1000"),
        ({"k": -1}, InvalidSearchQuery, "k is -1"),
        ({"k": 1_000_000}, InvalidSearchQuery, "k is 1000000"),
        ({"k": 2.5}, InvalidSearchQuery, r"k is 2\.5"),
        ({"query": "  "}, InvalidSearchQuery, "the query is empty"),
        ({"query": "a\0b"}, InvalidSearchQuery, "NUL"),
        ({"query": '-wind -"stone"'}, InvalidSearchQuery, "only says what to leave out"),
        ({"query": "x" * 100_000}, InvalidSearchQuery, "100000 characters; at most 4000"),
        ({"query": "wind -" + "x" * 100_000}, InvalidSearchQuery, "100005 characters; at most 4000"),
        ({"query": '"' * 100_000}, InvalidSearchQuery, "the query is empty"),
        ({"query": "wind -a\0b"}, InvalidSearchQuery, "NUL"),
        ({"query": '"wind" ' * 17}, InvalidSearchQuery, "17 phrases and exclusions; at most 16"),
        ({"query_vector": None}, InvalidSearchQuery, "a hybrid search needs the query's vector"),
        ({"query_vector": [1.0] * 7}, InvalidSearchQuery, r"shape \(7,\); the index holds \(8,\)"),
        ({"query_vector": [GOOD]}, InvalidSearchQuery, r"shape \(1, 8\)"),
        ({"query_vector": [0.0] * 8}, InvalidSearchQuery, "is zero"),
        ({"query_vector": [math.nan] * 8}, InvalidSearchQuery, "NaN"),
        ({"query_vector": [1e9] * 8}, InvalidSearchQuery, "too large"),
        ({"model_digest": "another"}, QueryModelMismatch, "from model another and the index is from model"),
        ({"model_digest": None}, QueryModelMismatch, "not named"),
        ({"tenant": ""}, ValueError, "no tenant"),
        (
            {"at": IndexState(999, 1, "", "", 8, NO_LINEAGE)},
            UnknownIndexRelease,
            "generation 999, epoch 1 can not be read",
        ),
    ],
)
def test_a_search_that_can_not_be_run_says_why(
    searcher: Searcher, arguments: dict[str, object], error: type[Exception], said: str
) -> None:
    usual = {"tenant": "acme", "query": "wind", "query_vector": GOOD, "k": 3, "model_digest": "model"}
    assert searcher.search(**usual)  # type: ignore[arg-type]
    with pytest.raises(error, match=said):
        searcher.search(**{**usual, **arguments})  # type: ignore[arg-type]


def test_before_the_first_release_there_is_nothing_to_search(postgres: Postgres) -> None:
    index = emptied(postgres)
    state = index.build("model", "chunker", DIMENSION, [batch(ROWS)], NO_LINEAGE)
    searcher = Searcher(postgres)
    with pytest.raises(NoLiveSnapshot):
        searcher.search("acme", "wind", None, 3, "lexical")
    assert searcher.search("acme", "wind", None, 3, "lexical", at=state)


def test_the_graph_finds_what_comparing_every_row_finds(postgres: Postgres) -> None:
    index = emptied(postgres, IndexConfig(graph_min_chunks=20))
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(3000, DIMENSION)).astype(np.float32)
    rows = [
        Chunk(f"{i}", f"text {i}", "small" if i % 50 == 0 else "large", vector=tuple(vectors[i].tolist()))
        for i in range(len(vectors))
    ]
    state = index.build("model", "chunker", DIMENSION, [batch(rows)], NO_LINEAGE)
    # Rows that are closed stay in the graph, and must not take up the places of the others.
    state = index.apply(state, [], [row.chunk_id for row in rows[: len(rows) // 2]], NO_LINEAGE)
    graph = Searcher(postgres, SearchConfig(graph_row_cost=0, ef_search=40))
    for tenant in ("small", "large"):
        found_of_all = []
        plans: list[VectorSearchPlan] = []
        for query in rng.normal(size=(20, DIMENSION)).astype(np.float32):
            exact = graph.exact_neighbours(tenant, query, 20, at=state, model_digest="model")
            hits = graph.search(
                tenant, "", query, 20, "vector", at=state, model_digest="model", on_plan=plans.append
            )
            assert len(exact) == len(hits) == 20
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            found_of_all.append(len({h.chunk_id for h in hits} & {h.chunk_id for h in exact}) / 20)
        assert np.mean(found_of_all) >= 0.95
        assert {plan.method for plan in plans} == {"graph"}


def test_where_a_graph_gives_too_few_every_chunk_is_compared(postgres: Postgres) -> None:
    index = emptied(postgres, IndexConfig(graph_min_chunks=20))
    vectors = np.random.default_rng(11).normal(size=(2000, DIMENSION)).astype(np.float32)
    rows = [Chunk(f"{i}", "text", vector=tuple(vectors[i].tolist())) for i in range(len(vectors))]
    state = index.build("model", "chunker", DIMENSION, [batch(rows)], NO_LINEAGE)
    # Nearly all that the graph holds is closed.
    state = index.apply(state, [], [row.chunk_id for row in rows[30:]], NO_LINEAGE)
    short = Searcher(postgres, SearchConfig(graph_row_cost=0, ef_search=1, max_scan_tuples=1))
    plans: list[VectorSearchPlan] = []
    hits = short.search(
        "acme", "", [1.0] * DIMENSION, 30, "vector", at=state, model_digest="model", on_plan=plans.append
    )
    (plan,) = plans
    assert len(hits) == plan.found == 30
    assert plan.method == "graph"
    assert "so all its chunks were compared" in plan.why


def test_the_cheaper_way_to_the_nearest_is_taken_and_said(postgres: Postgres) -> None:
    index = emptied(postgres, IndexConfig(graph_min_chunks=1000))
    vectors = np.random.default_rng(8).normal(size=(3000, DIMENSION)).astype(np.float32)
    rows = [
        Chunk(f"{i}", "text", "small" if i % 10 == 0 else "large", vector=tuple(vectors[i].tolist()))
        for i in range(len(vectors))
    ]
    state = index.build("model", "chunker", DIMENSION, [batch(rows)], NO_LINEAGE)
    searcher = Searcher(postgres, SearchConfig(ef_search=40))

    def plan(tenant: str, k: int) -> VectorSearchPlan:
        plans: list[VectorSearchPlan] = []
        hits = searcher.search(
            tenant, "", [1.0] * DIMENSION, k, "vector", at=state, model_digest="model", on_plan=plans.append
        )
        (made,) = plans
        assert len(hits) == made.found
        return made

    few = plan("small", 10)
    assert (few.method, few.tenant_chunks, few.settings) == ("exact", 300, {})
    assert "300 chunks without a graph" in few.why
    many = plan("large", 10)
    assert (many.method, many.tenant_chunks, many.graph_chunks) == ("graph", 2700, 2700)
    assert "a graph over 2,700 chunks costs as much as comparing 400" in many.why
    assert many.settings["hnsw.ef_search"] == "40"
    assert many.settings["hnsw.iterative_scan"] == "relaxed_order"
    # So many are asked for that comparing all of them costs no more.
    assert plan("large", 800).method == "exact"
    assert "comparing 2,700 chunks costs no more" in plan("large", 800).why
    # The plan says it where there are fewer.
    assert (plan("small", 500).asked, plan("small", 500).found) == (500, 300)
    assert plan("nobody", 5).found == 0


def test_the_graph_is_used_where_the_database_does_not_know_the_tenants_size(postgres: Postgres) -> None:
    """PostgreSQL takes a tenant for an average one, and would sort all rows of a large one."""
    index = emptied(postgres, IndexConfig(graph_min_chunks=1000))
    vectors = np.random.default_rng(9).normal(size=(4000, DIMENSION)).astype(np.float32)
    rows = [
        Chunk(f"{i}", "text", "large" if i % 2 else f"small {i}", vector=tuple(vectors[i].tolist()))
        for i in range(len(vectors))
    ]
    state = index.build("model", "chunker", DIMENSION, [batch(rows)], NO_LINEAGE)
    near = (
        f"headwater_search.nearest_by_graph({state.generation}, {state.epoch}, %s, %s::halfvec, 10, 40, 100)"
    )
    with policy_reader(postgres, "large") as connection:
        (scope,) = read_snapshot(connection, state).scopes
        assert scope.has_graph
        nearest = connection.execute(f"SELECT * FROM {near}", (scope.key, str([1.0] * DIMENSION))).fetchall()
        assert len(nearest) == 10
        # What comes after in the same transaction may sort again.
        assert fetch_postgres_value(connection, "SELECT current_setting('enable_sort')") == "on"
        connection.execute("SET LOCAL ROLE headwater_owner")
        scans = (
            "SELECT sum(pg_stat_get_xact_numscans(i.indexrelid)) FROM pg_index i "
            "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
            "WHERE a.amname = 'hnsw' AND i.indrelid = %s::regclass"
        )
        assert fetch_postgres_value(connection, scans, f"headwater.chunks_g{state.generation}") == 1


def test_a_scope_that_grows_large_gets_a_graph(postgres: Postgres) -> None:
    index = emptied(postgres, IndexConfig(graph_min_chunks=100))
    vectors = np.random.default_rng(10).normal(size=(300, DIMENSION)).astype(np.float32)
    rows = [Chunk(f"{i}", "text", vector=tuple(vectors[i].tolist())) for i in range(len(vectors))]

    def has_graph(at: IndexState) -> bool:
        with postgres.serving("acme") as connection:
            return [scope.has_graph for scope in read_snapshot(connection, at).scopes] == [True]

    first = index.build("model", "chunker", DIMENSION, [batch(rows[:50])], NO_LINEAGE)
    index.release("small", first, None, NO_DETAILS)
    assert not has_graph(first)
    second = index.apply(first, [batch(rows[50:])], [], NO_LINEAGE)
    assert has_graph(second)
    graph = Searcher(postgres, SearchConfig(graph_row_cost=0))
    for at in (first, second):
        hits = graph.search("acme", "", vectors[7], 20, "vector", at, model_digest="model")
        exact = graph.exact_neighbours("acme", vectors[7], 20, at, model_digest="model")
        assert found(hits) == found(exact)


def test_a_search_reads_one_release_while_another_goes_live(postgres: Postgres) -> None:
    index = emptied(postgres)
    first = index.build("model", "chunker", DIMENSION, [batch(ROWS)], NO_LINEAGE)
    index.release("r1", first, None, NO_DETAILS)
    with postgres.serving("acme") as reader:
        before = read_snapshot(reader, None)
        second = index.apply(first, [], [row.chunk_id for row in ROWS], NO_LINEAGE)
        index.release("r2", second, "r1", NO_DETAILS)
        assert read_snapshot(reader, None) == before
        assert before.chunk_count == 5
    assert Searcher(postgres).search("acme", "wind", None, 3, "lexical") == []


@pytest.mark.parametrize("graph_min_chunks", [1, 10_000])
def test_what_is_not_fit_for_training_is_left_out_where_a_user_says_so(
    postgres: Postgres, graph_min_chunks: int
) -> None:
    index = emptied(postgres, IndexConfig(graph_min_chunks=graph_min_chunks))
    rows = [
        Chunk(f"{n}", f"river of stone {n}", vector=(1, n / 100, 0, 0, 0, 0, 0, 0), fit=n % 2 == 0)
        for n in range(40)
    ]
    state = index.build("model", "chunker", DIMENSION, [batch(rows)], NO_LINEAGE)
    index.release("live", state, None, NO_DETAILS)
    searcher = Searcher(postgres, SearchConfig(graph_row_cost=0, ef_search=40))
    vector = [1.0, *[0.0] * (DIMENSION - 1)]

    def search(mode: RetrievalMode, query: SearchQuery) -> list[str]:
        hits = searcher.search("acme", query, vector, 40, mode, model_digest="model")
        return found(hits)

    for mode in RETRIEVAL_MODES:
        for query in (SearchQuery("river"), SearchQuery.parse('river "of stone"')):
            assert set(search(mode, query)) == {row.name for row in rows}
            fit = search(mode, replace(query, fit_only=True))
            assert set(fit) == {row.name for row in rows if row.fit}
    # A change of fitness alone is a change of the index.
    mended = [replace(row, fit=row.name != "0") for row in rows[:2]]
    changed = index.apply(state, [batch(mended)], [], NO_LINEAGE)
    assert changed.epoch == state.epoch + 1
    index.release("next", changed, "live", NO_DETAILS)
    assert "1" in search("vector", SearchQuery("river", fit_only=True))
    assert "0" not in search("vector", SearchQuery("river", fit_only=True))
