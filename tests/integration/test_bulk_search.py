"""Ranking many questions at once gives what a search gives for each."""

import numpy as np
import pyarrow as pa
import pytest
from index_rows import DIMENSION, NO_LINEAGE, Chunk, batch, emptied

from retrieval.index.types import IndexState
from retrieval.search.bulk_search import BulkRanking, rank_in_bulk
from retrieval.search.query import SearchQuery
from retrieval.search.searcher import SearchConfig, Searcher
from retrieval.store.postgres import Postgres

WORDS = [
    *("stone", "salt", "copper", "wind", "harbor", "river", "school", "island", "winter", "bread"),
    *("glacier", "std::vector", "4.4.0"),
]
RANDOM = np.random.default_rng(7)
CHUNKS = [
    Chunk(f"chunk {number}", " ".join(RANDOM.choice(WORDS, 12)), title=f"About {RANDOM.choice(WORDS)}")
    for number in range(300)
]
OTHERS = [
    Chunk("foreign", "stone of another tenant", tenant="other"),
    Chunk("secret", "stone for the board alone", groups="board"),
]
QUESTIONS = ["stone in winter", "which harbor has copper?", "std::vector", "4.4.0 river", "nothing at all"]
CONFIG = SearchConfig(candidates=20)


@pytest.fixture(scope="module")
def state(postgres: Postgres) -> IndexState:
    """A generation whose second epoch removed some chunks and changed one: their postings are still there."""
    index = emptied(postgres)
    gone = [Chunk(f"gone {number}", "stone stone winter") for number in range(20)]
    first = index.build("model", "chunker", DIMENSION, [batch([*CHUNKS, *OTHERS, *gone])], NO_LINEAGE)
    return index.apply(first, [batch([])], [chunk.chunk_id for chunk in gone], NO_LINEAGE)


def unit(vectors: np.ndarray) -> np.ndarray:
    halves = np.asarray(vectors, np.float32).astype(np.float16).astype(np.float32)  # as the index holds them
    return halves / np.linalg.norm(halves, axis=1, keepdims=True)


def ranked(searcher: Searcher, state: IndexState, vectors: np.ndarray) -> tuple[list[str], list[BulkRanking]]:
    asked = pa.table({"question": QUESTIONS, "language": ["en"] * len(QUESTIONS)})
    lexical = searcher.lexical_matrices(state, "acme", asked)
    by_id = {chunk.chunk_id: chunk for chunk in CHUNKS}
    ids = lexical.chunk_ids.to_pylist()
    held = unit(np.stack([by_id[chunk_id].embedding() for chunk_id in ids]))
    own = np.zeros(len(QUESTIONS), np.int64)
    return ids, list(rank_in_bulk(lexical, vectors, held, own, CONFIG.candidates, CONFIG.vector_weight))


def test_many_questions_are_ranked_as_a_search_ranks_each(postgres: Postgres, state: IndexState) -> None:
    searcher = Searcher(postgres, CONFIG)
    vectors = unit(RANDOM.normal(size=(len(QUESTIONS), DIMENSION)))
    ids, rankings = ranked(searcher, state, vectors)
    assert {*ids} == {chunk.chunk_id for chunk in CHUNKS}, "all that the whole tenant may read, and no more"
    for number, question in enumerate(QUESTIONS):
        hits = searcher.search(
            "acme", SearchQuery.plain(question), vectors[number], 20, at=state, model_digest="model"
        )
        [ranking] = rankings
        found = [ids[column] for column in ranking.chunks[number][:20]]
        assert [hit.score for hit in hits] == pytest.approx(
            ranking.fused[number][:20], abs=5e-3
        )  # ties at the pool's end
        assert [hit.chunk_id for hit in hits][:3] == found[:3], question
        assert len({*found} & {hit.chunk_id for hit in hits}) >= 18, question


def test_the_cosine_of_the_own_chunk_is_given_also_where_it_is_no_candidate(
    postgres: Postgres, state: IndexState
) -> None:
    vectors = unit(RANDOM.normal(size=(len(QUESTIONS), DIMENSION)))
    ids, [ranking] = ranked(Searcher(postgres, CONFIG), state, vectors)
    first = next(chunk for chunk in CHUNKS if chunk.chunk_id == ids[0])
    assert ranking.own_cosines == pytest.approx(vectors @ unit(first.embedding()[None])[0], abs=1e-3)


def test_a_tenant_without_chunks_has_no_ranking(postgres: Postgres, state: IndexState) -> None:
    asked = pa.table({"question": QUESTIONS, "language": ["en"] * len(QUESTIONS)})
    lexical = Searcher(postgres, CONFIG).lexical_matrices(state, "nobody", asked)
    assert len(lexical.chunk_ids) == 0
    vectors, nothing = np.zeros((len(QUESTIONS), 8), np.float32), np.zeros((0, 8), np.float32)
    assert list(rank_in_bulk(lexical, vectors, nothing, np.zeros(0, np.int64), 20, 0.6)) == []
