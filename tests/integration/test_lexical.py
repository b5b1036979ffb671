"""BM25 beside a plain reference, what common words cost, the query language, fusion over an index."""

import math
import re
from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_rows import DIMENSION, NO_DETAILS, NO_LINEAGE, Chunk, batch, emptied, found

from retrieval.index.types import IndexState
from retrieval.search import lexical_search
from retrieval.search.query import SearchQuery, phrase_regex
from retrieval.search.searcher import SearchConfig, Searcher
from retrieval.store.postgres import Postgres

# The English stemmer leaves these as they are, so that the reference needs none.
WORDS = ["river", "stone", "salt", "wind", "harbor", "copper"]


def reference_bm25(chunks: list[Chunk], query: list[str], config: SearchConfig) -> dict[str, float]:
    """BM25 as Lucene scores it, with weighted fields, written down from the formula over lists of words."""
    fields = {
        chunk.chunk_id: [
            ((chunk.title or "").split(), config.title_weight),
            ((chunk.heading or "").split(), config.heading_weight),
            (chunk.text.split(), config.text_weight),
        ]
        for chunk in chunks
    }
    lengths = {name: sum(len(words) for words, _ in of_chunk) for name, of_chunk in fields.items()}
    mean = sum(lengths.values()) / len(fields) if fields else 0.0
    scores: dict[str, float] = {}
    for word, asked in Counter(query).items():
        holding = sum(any(word in words for words, _ in of_chunk) for of_chunk in fields.values())
        for name, of_chunk in fields.items():
            tf = sum(weight * words.count(word) for words, weight in of_chunk)
            if tf:
                idf = math.log(1 + (len(fields) - holding + 0.5) / (holding + 0.5))
                held_back = 1 - config.bm25_b + config.bm25_b * lengths[name] / mean
                part = asked * idf * tf / (tf + config.bm25_k1 * held_back)
                scores[name] = scores.get(name, 0.0) + part
    return scores


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
    index, config = emptied(postgres), SearchConfig(title_weight=2.5, heading_weight=0.5)
    state = index.build("model", "chunker", DIMENSION, [batch(first)], NO_LINEAGE)
    held = {chunk.chunk_id: chunk for chunk in first}
    epochs: list[tuple[IndexState, dict[str, Chunk]]] = [(state, dict(held))]
    index.release("0", state, None, NO_DETAILS)
    for number, (upserts, removed) in enumerate(later, start=1):
        gone = {Chunk(name, "", tenant).chunk_id for name in removed for tenant in ("acme", "other")}
        gone -= {chunk.chunk_id for chunk in upserts}
        state = index.apply(state, [batch(upserts)], gone, NO_LINEAGE)
        held = {name: chunk for name, chunk in held.items() if name not in gone}
        held |= {chunk.chunk_id: chunk for chunk in upserts}
        epochs.append((state, dict(held)))
        index.release(str(number), state, str(number - 1), NO_DETAILS)
    # The last is looked at again after the rows that only older epochs show are gone.
    for pruned in (False, True):
        if pruned:
            index.prune([])
            index.maintain()
            epochs = epochs[-1:]
        for state, expected in epochs:
            for tenant in ("acme", "other"):
                corpus = [chunk for chunk in expected.values() if chunk.tenant == tenant]
                want = reference_bm25(corpus, query, config)
                searcher = Searcher(postgres, config)
                hits = searcher.search(tenant, " ".join(query), None, 100, "lexical", at=state)
                assert {hit.chunk_id: hit.score for hit in hits} == pytest.approx(want, abs=1e-6)
                assert [hit.chunk_id for hit in hits] == [
                    hit.chunk_id for hit in sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))
                ]
                # Where words are too common to be read, what is found scores the same, whether all of their
                # blocks are gone through for it or its own is looked up.
                bounded = Searcher(postgres, config.model_copy(update={"max_postings": 1}))
                for blocks in (lexical_search._BLOCKS_PER_LOOKUP, 0):
                    with mock.patch.object(lexical_search, "_BLOCKS_PER_LOOKUP", blocks):
                        hits = bounded.search(tenant, " ".join(query), None, 100, "lexical", at=state)
                    scores = {hit.chunk_id: hit.score for hit in hits}
                    assert scores == pytest.approx({name: want[name] for name in scores}, abs=1e-6)


COMMON = [
    *(Chunk(f"river {i}", "river " * (1 + i % 3) + "stone " * (i % 5)) for i in range(60)),
    *(Chunk(f"copper {i}", "copper river salt" + " wind" * i) for i in range(5)),
]


def test_what_a_common_word_costs_is_bounded(postgres: Postgres) -> None:
    state = emptied(postgres).build("model", "chunker", DIMENSION, [batch(COMMON)], NO_LINEAGE)
    full, bounded = (SearchConfig(max_postings=most) for most in (12_000, 10))
    exact = reference_bm25(COMMON, ["river", "copper"], full)
    assert len(exact) == len(COMMON)

    def search(query: str, config: SearchConfig, k: int = 100) -> dict[str, float]:
        hits = Searcher(postgres, config).search("acme", query, None, k, "lexical", at=state)
        return {hit.chunk_id: hit.score for hit in hits}

    assert search("river copper", full) == pytest.approx(exact, abs=1e-6)
    # The rare word finds, and the common one, of which nothing is read but of what was found, still counts.
    rare = {chunk.chunk_id: exact[chunk.chunk_id] for chunk in COMMON if "copper" in chunk.text}
    assert search("river copper", bounded, 5) == pytest.approx(rare, abs=1e-6)
    # Where more are asked for than it finds, the common one is read too, as far as the bound goes.
    filled = search("river copper", bounded)
    assert len(filled) == 15
    assert filled == pytest.approx({name: exact[name] for name in filled}, abs=1e-6)
    # Alone, it is read as far as the bound goes, and scored as ever.
    alone, whole = search("river", bounded), reference_bm25(COMMON, ["river"], full)
    assert len(alone) == 10
    assert alone == pytest.approx({name: whole[name] for name in alone}, abs=1e-6)
    # A phrase and an exclusion hold under the bound too.
    assert set(search('"copper river"', bounded)) == set(rare)
    assert len(search("copper -wind", bounded)) == 1


def test_of_a_long_query_the_rarest_words_are_looked_for(postgres: Postgres) -> None:
    state = emptied(postgres).build("model", "chunker", DIMENSION, [batch(COMMON)], NO_LINEAGE)
    searcher = Searcher(postgres, SearchConfig(max_words=1))
    hits = searcher.search("acme", "river copper stone", None, 100, "lexical", at=state)
    exact = reference_bm25(COMMON, ["copper"], SearchConfig())
    assert {hit.chunk_id: hit.score for hit in hits} == pytest.approx(exact, abs=1e-6)


def test_a_stop_word_of_one_language_is_not_rare_for_being_in_another(postgres: Postgres) -> None:
    rows = [Chunk(f"river {i}", "the river and the stone") for i in range(9)]
    rows.append(Chunk("unknown", "what is the thing", language="und"))
    state = emptied(postgres).build("model", "chunker", DIMENSION, [batch(rows)], NO_LINEAGE)
    hits = Searcher(postgres).search("acme", "what is the river", None, 20, "lexical", at=state)
    scores = {hit.uri.removeprefix("file:///"): hit.score for hit in hits}
    # It alone holds three of the four words, and alone is in a language that has them: they tell nothing.
    assert scores["unknown"] < 3 * math.log(1 + 0.5 / 1.5)


def test_a_frequency_that_no_kept_moment_knows_is_gone(postgres: Postgres) -> None:
    index = emptied(postgres)
    first = index.build(
        "model", "chunker", DIMENSION, [batch([Chunk("a", "jane river"), Chunk("b", "river")])], NO_LINEAGE
    )
    second = index.apply(first, [batch([Chunk("a", "stone river")])], [], NO_LINEAGE)
    third = index.apply(second, [], [Chunk("b", "").chunk_id], NO_LINEAGE)
    index.release("third", third, None, NO_DETAILS)
    index.prune([])
    with postgres.owner() as connection:
        rows = connection.execute(
            "SELECT lexeme, chunk_count FROM headwater.frequencies ORDER BY lexeme"
        ).fetchall()
    assert rows == [("river", 1), ("stone", 1)]


def test_chunks_that_are_gone_do_not_stand_before_those_that_are_there(postgres: Postgres) -> None:
    """Their postings stay until the releases that show them go."""
    index = emptied(postgres)
    gone = [Chunk(f"gone {i}", "river " * 9 + "copper") for i in range(250)]
    there = [Chunk(f"there {i}", "river copper" + " stone wind" * (1 + i % 7)) for i in range(60)]
    first = index.build("model", "chunker", DIMENSION, [batch(gone + there)], NO_LINEAGE)
    index.release("before", first, None, NO_DETAILS)
    state = index.apply(first, [], [chunk.chunk_id for chunk in gone], NO_LINEAGE)
    for config in (SearchConfig(), SearchConfig(max_postings=100), SearchConfig(max_postings=50)):
        searcher = Searcher(postgres, config)
        found = {h.chunk_id for h in searcher.search("acme", "river copper", None, 50, "lexical", at=state)}
        assert found <= {chunk.chunk_id for chunk in there}
        # Of a word that is too common by itself the newest block is read, from its beginning.
        assert len(found) == (40 if config.max_postings == 50 else 50)
    hybrid = Searcher(postgres).search(
        "acme", "river copper", there[0].embedding(), 50, "hybrid", state, model_digest="model"
    )
    assert len(hybrid) == 50


def test_chunks_that_are_gone_do_not_hide_those_that_common_words_bring_no_further(
    postgres: Postgres,
) -> None:
    index = emptied(postgres)
    gone = [Chunk(f"gone {i}", "copper " * 9) for i in range(60)]
    there = [Chunk(f"there {i}", "copper" + " stone wind" * 40) for i in range(3)]
    common = [Chunk(f"common {i}", "river") for i in range(300)]
    first = index.build("model", "chunker", DIMENSION, [batch(gone + there + common)], NO_LINEAGE)
    index.release("before", first, None, NO_DETAILS)
    state = index.apply(first, [], [chunk.chunk_id for chunk in gone], NO_LINEAGE)
    searcher = Searcher(postgres, SearchConfig(max_postings=10))
    found = [hit.chunk_id for hit in searcher.search("acme", "copper river", None, 10, "lexical", at=state)]
    assert set(found[:3]) == {chunk.chunk_id for chunk in there}
    assert len(found) == 10


def test_common_words_alone_fill_what_rare_ones_leave_open(postgres: Postgres) -> None:
    rows = [Chunk("both", "copper river wind"), Chunk("rare", "copper")]
    rows += [Chunk(f"common {i}", "river wind") for i in range(30)]
    rows += [Chunk(f"one {i}", "stone wind") for i in range(10)]
    state = emptied(postgres).build("model", "chunker", DIMENSION, [batch(rows)], NO_LINEAGE)
    searcher = Searcher(postgres, SearchConfig(max_postings=41))
    hits = searcher.search("acme", "copper river wind", None, 35, "lexical", at=state)
    exact = reference_bm25(rows, ["copper", "river", "wind"], SearchConfig())
    assert {hit.uri for hit in hits[:2]} == {"file:///both", "file:///rare"}
    assert len(hits) == 35
    assert [hit.score for hit in hits] == pytest.approx(sorted(exact.values())[:-36:-1], abs=1e-6)
    assert {hit.chunk_id: exact[hit.chunk_id] for hit in hits} == pytest.approx(
        {hit.chunk_id: hit.score for hit in hits}, abs=1e-6
    )


def test_what_small_changes_leave_behind_is_put_together(postgres: Postgres) -> None:
    index = emptied(postgres)
    rows = [Chunk(str(number), f"river stone salt {number}") for number in range(150)]
    state = index.build("model", "chunker", DIMENSION, [batch(rows[:100])], NO_LINEAGE)
    for row in rows[100:]:
        state = index.apply(state, [batch([row])], [], NO_LINEAGE)
    index.release("crumbled", state, None, NO_DETAILS)
    searcher = Searcher(postgres)

    def seen() -> tuple[list[tuple[str, float]], int]:
        hits = searcher.search("acme", "river stone", None, 200, "lexical")
        with postgres.owner() as connection:
            blocks = connection.execute("SELECT count(*) FROM headwater.postings WHERE lexeme = 'river'")
            return [(hit.chunk_id, hit.score) for hit in hits], (blocks.fetchone() or (0,))[0]

    before, blocks = seen()
    assert (len(before), blocks) == (150, 51)
    index.maintain()
    assert seen() == (before, 2)
    assert index.apply(state, [], [rows[149].chunk_id], NO_LINEAGE).epoch == state.epoch + 1


LANGUAGE = [
    Chunk("pin", "Install delta-spark==4.4.0 and nothing newer."),
    Chunk("pins", "Pins: delta-spark==4.4.1, spark==4.4.0, delta delta spark spark spark 4.4.0"),
    Chunk("vector", "A std::vector<int> grows."),
    Chunk("vectors", "The std of a vector: std, vector, vector vector"),
    Chunk("rfc", "HTTP semantics are in RFC 9110."),
    Chunk("rfcs", "RFC 7230 was the RFC before; the RFC of 1999 is RFC 2616"),
    Chunk("mail", "Write to jane.doe@example.com about it."),
    Chunk("mails", "Jane wrote to John Doe, an example com example com"),
    Chunk("swiss", "Zürich-3.2 is out."),
    Chunk("canton", "Zürich 3, Zürich 2, zürich-3.5"),
    Chunk("plus", "C++ has templates."),
    Chunk("sharp", "C# has attributes."),
    Chunk("virus", "COVID-19 and SARS/MERS are caused by viruses."),
    Chunk("tokyo", "東京都の猫はかわいい。", language="ja"),
    Chunk("kyoto", "京都の犬と東の山", language="ja"),
    Chunk("seoul", "서울에서 만나요", language="ko"),
    Chunk("bangkok", "กรุงเทพมหานครเป็นเมืองหลวง", language="th"),
    Chunk("art", "The state of\nthe **art** in parties."),
    Chunk("party", "A party for the artful state."),
    Chunk("quote", "It\u2019s the jaguar, a big cat.", title="Jaguars"),
    Chunk("car", "The Jaguar is a car among cars."),
]


@pytest.fixture(scope="module")
def language(postgres: Postgres) -> tuple[Searcher, IndexState]:
    return Searcher(postgres), emptied(postgres).build(
        "model", "chunker", DIMENSION, [batch(LANGUAGE)], NO_LINEAGE
    )


@pytest.mark.parametrize(
    ("query", "first", "others"),
    [
        ("delta-spark==4.4.0", "pin", {"pins"}),
        ("delta-spark", "pins", {"pin"}),
        ('"delta-spark==4.4.0"', "pin", set()),
        ("4.4.1", "pins", {"pin"}),
        ("std::vector", "vector", {"vectors"}),
        ('"std::vector"', "vector", set()),
        ("RFC 9110", "rfc", {"rfcs"}),
        ('"rfc 9110"', "rfc", set()),
        ("jane.doe@example.com", "mail", {"mails"}),
        ("example.com", "mail", {"mails"}),
        ("doe", "mail", {"mails"}),
        ("ZÜRICH-3.2", "swiss", {"canton"}),
        ("C++", "plus", {"sharp"}),
        ("C#", "sharp", {"plus"}),
        ("covid 19", "virus", set()),
        ("mers", "virus", set()),
        ("東京", "tokyo", set()),
        ("京都", "kyoto", {"tokyo"}),
        ("猫", "tokyo", set()),
        ("犬 -山", None, set()),
        ('"東京都"', "tokyo", set()),
        ("서울", "seoul", set()),
        ("เมือง", "bangkok", set()),
        ('"state of the art"', "art", set()),
        ("“state of the art”", "art", set()),
        ('"the art"', "art", set()),
        ('"it\'s the jaguar"', "quote", set()),
        ("jaguar", "quote", {"car"}),
        ("jaguar -car", "quote", set()),
        ('jaguar -"big cat"', "car", set()),
        ("jaguars -jaguars", None, set()),
        ("spark -delta-spark==4.4.1", "pin", set()),
        ('"no such passage"', None, set()),
        ('"of the"', None, set()),
        ('spark "', "pins", {"pin"}),
        ("'); DROP TABLE headwater.chunks; -- jaguar", "quote", {"car"}),
        ('"\\(jaguar[.*+?^${}|"', None, set()),
    ],
)
def test_the_query_language_finds_what_a_person_expects(
    language: tuple[Searcher, IndexState], query: str, first: str | None, others: set[str]
) -> None:
    searcher, state = language
    hits = found(searcher.search("acme", query, None, 20, "lexical", at=state))
    assert hits[:1] == ([first] if first else [])
    assert set(hits[1:]) == others
    # What a search demands holds in every mode: the vectors bring nothing in that it rules out.
    if SearchQuery.parse(query).restricted:
        vector = LANGUAGE[0].embedding()
        for mode in ("hybrid", "vector"):
            allowed = found(searcher.search("acme", query, vector, 5, mode, state, model_digest="model"))
            assert set(hits) <= set(allowed) or mode == "vector"
            for phrase in SearchQuery.parse(query).phrases:
                texts = {chunk.name: chunk.text for chunk in LANGUAGE}
                assert all(re.search(phrase_regex(phrase), texts[name], re.IGNORECASE) for name in allowed)


def test_a_vector_search_goes_on_until_it_has_what_is_not_ruled_out(
    language: tuple[Searcher, IndexState],
) -> None:
    searcher, state = language
    vector = next(chunk for chunk in LANGUAGE if chunk.name == "car").embedding()
    hits = searcher.search("acme", "jaguar -car", vector, 15, "vector", state, model_digest="model")
    assert len(hits) == 15
    assert "car" not in found(hits)
    (one,) = searcher.search("acme", '"big cat"', vector, 1, "vector", state, model_digest="model")
    assert found([one]) == ["quote"]


def rivers_and_stones(rng: np.random.Generator) -> list[Chunk]:
    return [
        Chunk(
            f"{i:03}", "river " * (1 + i % 7) + "stone " * (i % 11), vector=tuple(rng.normal(size=DIMENSION))
        )
        for i in range(80)
    ]


def test_every_candidate_has_both_scores(postgres: Postgres) -> None:
    """What only the other ranking proposed is looked up, not taken for the worst."""
    rng = np.random.default_rng(3)
    rows = rivers_and_stones(rng)
    state = emptied(postgres).build("model", "chunker", DIMENSION, [batch(rows)], NO_LINEAGE)
    vector = rng.normal(size=DIMENSION).astype(np.float32)
    config = SearchConfig(candidates=10, vector_weight=0.5)
    words = reference_bm25(rows, ["river", "stone"], config)
    near = {row.chunk_id: float(row.embedding() @ vector / np.linalg.norm(row.embedding())) for row in rows}
    pool = {name for scores in (words, near) for name in sorted(scores, key=lambda n: (-scores[n], n))[:10]}
    fused = {
        name: sum(
            (scores[name] - np.mean(of := [scores[n] for n in pool])) / np.std(of) for scores in (words, near)
        )
        for name in pool
    }
    hits = Searcher(postgres, config).search(
        "acme", "river stone", vector, 10, at=state, model_digest="model"
    )
    assert [hit.chunk_id for hit in hits] == sorted(fused, key=lambda name: -fused[name])[:10]


def test_a_longer_list_scores_what_a_shorter_one_holds_the_same(postgres: Postgres) -> None:
    rng = np.random.default_rng(4)
    state = emptied(postgres).build(
        "model", "chunker", DIMENSION, [batch(rivers_and_stones(rng))], NO_LINEAGE
    )
    searcher = Searcher(postgres, SearchConfig(candidates=10))
    vector = rng.normal(size=DIMENSION).astype(np.float32)

    def scores(k: int) -> dict[str, float]:
        hits = searcher.search("acme", "river stone", vector, k, at=state, model_digest="model")
        return {hit.chunk_id: hit.score for hit in hits}

    short, long = scores(10), scores(60)
    assert len(long) == 60
    assert {name: long[name] for name in short} == short
