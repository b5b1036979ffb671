"""Search: BM25 beside a plain reference, exact and approximate neighbours, fusion, and what it refuses."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_rows import DIMENSION, Chunk, batch

from retrieval.index import Index
from retrieval.moments import IndexState, UnknownRelease
from retrieval.postgres import Postgres
from retrieval.query import InvalidQuery
from retrieval.search import Hit, ModelMismatch, NothingReleased, SearchConfig, Searcher

# The English stemmer leaves these as they are, so that the reference needs none.
WORDS = ["river", "stone", "salt", "wind", "harbor", "copper"]
ROWS = [
    Chunk("stone", "stone stone wind", title="River", vector=(1, 0, 0, 0, 0, 0, 0, 0.1)),
    Chunk("salt", "salt and copper", heading="Harbor", vector=(0, 1, 0, 0, 0, 0, 0, 0.1)),
    Chunk("wind", "wind over the harbor", vector=(0.9, 0.1, 0, 0, 0, 0, 0, 0)),
    Chunk("ville", "Les écoles de la ville", language="fr", vector=(0, 0, 1, 0, 0, 0, 0, 0)),
    Chunk("quotes", "“copper”—he said", language="zz", vector=(0, 0, 0, 1, 0, 0, 0, 0)),
    Chunk("foreign", "stone of another tenant", tenant="other", vector=(1, 0, 0, 0, 0, 0, 0, 0)),
]


def emptied(postgres: Postgres) -> Index:
    index = Index(postgres)
    with postgres.owner() as connection:
        connection.execute("UPDATE headwater.live SET release_id = NULL")
    index.prune([])
    return index


@pytest.fixture(scope="module")
def searcher(postgres: Postgres) -> Searcher:
    index = emptied(postgres)
    index.release("live", index.build("model", "chunker", DIMENSION, [batch(ROWS)], {}), None, {})
    return Searcher(postgres)


def found(hits: list[Hit]) -> list[str]:
    return [hit.uri.removeprefix("file:///") for hit in hits]


def reference_bm25(corpus: dict[str, list[str]], query: list[str], k1: float, b: float) -> dict[str, float]:
    """BM25 as Lucene scores it, written down from the formula over one dictionary of words a document."""
    mean = sum(map(len, corpus.values())) / len(corpus) if corpus else 0.0
    scores: dict[str, float] = {}
    for name, words in corpus.items():
        for word, asked in Counter(query).items():
            holding = sum(word in other for other in corpus.values())
            tf = words.count(word)
            if tf:
                idf = math.log(1 + (len(corpus) - holding + 0.5) / (holding + 0.5))
                part = asked * idf * tf / (tf + k1 * (1 - b + b * len(words) / mean))
                scores[name] = scores.get(name, 0.0) + part
    return scores


def words_of(chunk: Chunk) -> list[str]:
    return " ".join(filter(None, (chunk.title, chunk.heading, chunk.text))).split()


texts = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
chunks = st.builds(
    Chunk,
    name=st.sampled_from("abcdefgh"),
    text=texts,
    tenant=st.sampled_from(["acme", "other"]),
    title=st.none() | texts,
    heading=st.none() | texts,
    language=st.sampled_from(["en", "zz"]),
)
edits = st.lists(chunks, max_size=6, unique_by=lambda chunk: chunk.chunk_id)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    edits,
    st.lists(st.tuples(edits, st.sets(st.sampled_from("abcdefgh"), max_size=3)), min_size=1, max_size=3),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=5),
)
def test_bm25_equals_the_reference_at_every_epoch(
    postgres: Postgres, first: list[Chunk], later: list[tuple[list[Chunk], set[str]]], query: list[str]
) -> None:
    index, config = emptied(postgres), SearchConfig()
    state = index.build("model", "chunker", DIMENSION, [batch(first)], {})
    held = {chunk.chunk_id: chunk for chunk in first}
    epochs: list[tuple[IndexState, dict[str, Chunk]]] = [(state, dict(held))]
    index.release("0", state, None, {})
    for number, (upserts, removed) in enumerate(later, start=1):
        gone = {Chunk(name, "", tenant).chunk_id for name in removed for tenant in ("acme", "other")}
        gone -= {chunk.chunk_id for chunk in upserts}
        state = index.apply(state, [batch(upserts)], gone, {})
        held = {name: chunk for name, chunk in held.items() if name not in gone}
        held |= {chunk.chunk_id: chunk for chunk in upserts}
        epochs.append((state, dict(held)))
        index.release(str(number), state, str(number - 1), {})
    # The last is looked at again after the rows that only older epochs show are gone.
    for pruned in (False, True):
        if pruned:
            index.prune([])
            epochs = epochs[-1:]
        for state, expected in epochs:
            for tenant in ("acme", "other"):
                corpus = {name: words_of(chunk) for name, chunk in expected.items() if chunk.tenant == tenant}
                want = reference_bm25(corpus, query, config.bm25_k1, config.bm25_b)
                hits = Searcher(postgres).search(tenant, " ".join(query), None, 100, "lexical", at=state)
                assert {hit.chunk_id: hit.score for hit in hits} == pytest.approx(want, abs=1e-6)
                assert [hit.chunk_id for hit in hits] == [
                    hit.chunk_id for hit in sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))
                ]


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
        ({"mode": "psychic"}, InvalidQuery, "no mode 'psychic'; there are hybrid, lexical, vector"),
        ({"k": 0}, InvalidQuery, "k is 0; it is a whole number from 1 to 1000"),
        ({"k": -1}, InvalidQuery, "k is -1"),
        ({"k": 1_000_000}, InvalidQuery, "k is 1000000"),
        ({"k": 2.5}, InvalidQuery, r"k is 2\.5"),
        ({"query": "  "}, InvalidQuery, "the query is empty"),
        ({"query": "a\0b"}, InvalidQuery, "NUL"),
        ({"query": "x" * 100_000}, InvalidQuery, "100000 characters; at most 4000"),
        ({"query_vector": None}, InvalidQuery, "a hybrid search needs the query's vector"),
        ({"query_vector": [1.0] * 7}, InvalidQuery, r"shape \(7,\); the index holds \(8,\)"),
        ({"query_vector": [GOOD]}, InvalidQuery, r"shape \(1, 8\)"),
        ({"query_vector": [0.0] * 8}, InvalidQuery, "is zero"),
        ({"query_vector": [math.nan] * 8}, InvalidQuery, "NaN"),
        ({"query_vector": [1e9] * 8}, InvalidQuery, "too large"),
        ({"model_digest": "another"}, ModelMismatch, "from model another and the index is from model"),
        ({"model_digest": None}, ModelMismatch, "not named"),
        ({"tenant": ""}, ValueError, "no tenant"),
        (
            {"at": IndexState(999, 1, "", "", 8, {})},
            UnknownRelease,
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
    state = index.build("model", "chunker", DIMENSION, [batch(ROWS)], {})
    searcher = Searcher(postgres)
    with pytest.raises(NothingReleased):
        searcher.search("acme", "wind", None, 3, "lexical")
    assert searcher.search("acme", "wind", None, 3, "lexical", at=state)


def test_the_graph_finds_what_comparing_every_row_finds(postgres: Postgres) -> None:
    index = emptied(postgres)
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(3000, DIMENSION)).astype(np.float32)
    rows = [
        # One row in fifty is the small tenant's: the graph's neighbours are mostly somebody else's.
        Chunk(f"{i}", f"text {i}", "small" if i % 50 == 0 else "large", vector=tuple(vectors[i].tolist()))
        for i in range(len(vectors))
    ]
    state = index.build("model", "chunker", DIMENSION, [batch(rows)], {})
    # Rows that are closed stay in the graph, and must not take up the places of the others.
    state = index.apply(state, [], [row.chunk_id for row in rows[: len(rows) // 2]], {})
    graph = Searcher(postgres, SearchConfig(exact_below=0, ef_search=40))
    for tenant in ("small", "large"):
        found_of_all = []
        for query in rng.normal(size=(20, DIMENSION)).astype(np.float32):
            exact = graph.exact_neighbours(tenant, query, 20, at=state, model_digest="model")
            hits = graph.search(tenant, "", query, 20, "vector", at=state, model_digest="model")
            assert len(exact) == len(hits) == 20
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            found_of_all.append(len({h.chunk_id for h in hits} & {h.chunk_id for h in exact}) / 20)
        assert np.mean(found_of_all) >= 0.95
    # More than a scan of the graph gives: then every row is compared.
    short = Searcher(postgres, SearchConfig(exact_below=0, ef_search=1, max_scan_tuples=1))
    assert (
        len(short.search("small", "", [1.0] * DIMENSION, 30, "vector", at=state, model_digest="model")) == 30
    )


def test_a_search_reads_one_release_while_another_goes_live(postgres: Postgres) -> None:
    index = emptied(postgres)
    first = index.build("model", "chunker", DIMENSION, [batch(ROWS)], {})
    index.release("r1", first, None, {})
    with postgres.serving("acme") as reader:
        before = reader.execute("SELECT release_id FROM headwater.live").fetchone()
        second = index.apply(first, [], [row.chunk_id for row in ROWS], {})
        index.release("r2", second, "r1", {})
        visible = reader.execute(
            "SELECT count(*) FROM headwater.chunks WHERE generation = %s AND valid_from <= 1 "
            "AND (valid_to IS NULL OR valid_to > 1)",
            (first.generation,),
        ).fetchone()
        assert reader.execute("SELECT release_id FROM headwater.live").fetchone() == before == ("r1",)
        assert visible == (5,)
    assert Searcher(postgres).search("acme", "wind", None, 3, "lexical") == []
