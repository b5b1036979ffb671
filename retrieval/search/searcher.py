"""Search in one snapshot of the index, as one tenant, by words, by vector or by both."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pgvector import HalfVector
from psycopg import Connection
from pydantic import Field

from retrieval.index.types import IndexPoint
from retrieval.search.bulk_search import LexicalMatrices, read_lexical_matrices
from retrieval.search.filters import matching_candidates, read_query_filters
from retrieval.search.fusion import SearchCandidate, fuse_rankings
from retrieval.search.lexical_search import Bm25Search, LexicalConfig, LexicalRanking
from retrieval.search.query import InvalidSearchQuery, SearchQuery
from retrieval.search.snapshot import Snapshot, read_snapshot
from retrieval.search.vector_search import (
    MAX_EF_SEARCH,
    VectorSearchConfig,
    VectorSearchPlan,
    search_all_vectors,
    search_nearest_vectors,
)
from retrieval.store.postgres import DatabaseRow, Postgres

RetrievalMode = Literal["hybrid", "lexical", "vector"]
RETRIEVAL_MODES: tuple[RetrievalMode, ...] = get_args(RetrievalMode)

_MOST_TESTED = 10_000
"""The most nearest chunks that are tested for a query's phrases and exclusions, if fewer are not enough."""


class QueryModelMismatch(InvalidSearchQuery):
    """The query's vector was made by another model than the index's vectors."""


class SearchConfig(LexicalConfig, VectorSearchConfig):
    """How candidates are found and ranked."""

    candidates: int = Field(default=100, ge=1, le=MAX_EF_SEARCH)
    """How many chunks each ranking proposes for fusion; never fewer than the hits asked for."""
    vector_weight: float = Field(default=0.6, ge=0, le=1)
    """The vector ranking's weight in the fused score; docs/retrieval.md has the figures behind it."""
    max_k: int = Field(default=MAX_EF_SEARCH, ge=1, le=MAX_EF_SEARCH)
    """The most hits that one search may ask for."""
    max_query_chars: int = Field(default=4000, ge=1)
    """The longest query, in characters; each of its words costs a scan of that word's postings."""


@dataclass(frozen=True)
class SearchHit:
    """A chunk that a search found.

    Attributes:
        rank: Its rank, from 1.
        score: BM25 in lexical mode, cosine similarity in vector mode, a number from 0 to 1 in hybrid mode.
        chunk_id: The chunk's id.
        doc_id: The document's id.
        uri: Where the document came from.
        title: The document's title, if it has one.
        heading: The path of headings above the chunk, if there are any.
        content_sha256: SHA-256 of the document's bytes.
        char_start: The position of its first character in the document's text.
        char_end: The position after its last character.
        text: The chunk's text.
    """

    rank: int
    score: float
    chunk_id: str
    doc_id: str
    uri: str
    title: str | None
    heading: str | None
    content_sha256: str
    char_start: int
    char_end: int
    text: str


class Searcher:
    """Searches the index as the serving role, which sees the rows of one tenant and can not write.

    Args:
        postgres: The serving database.
        config: The settings of searches.

    Attributes:
        config: The same.
    """

    def __init__(self, postgres: Postgres, config: SearchConfig | None = None) -> None:
        self._postgres = postgres
        self.config = config or SearchConfig()

    def search(
        self,
        tenant: str,
        query: str | SearchQuery,
        query_vector: npt.NDArray[np.float32] | Sequence[float] | None,
        k: int,
        mode: RetrievalMode = "hybrid",
        at: IndexPoint | None = None,
        *,
        model_digest: str | None = None,
        on_plan: Callable[[VectorSearchPlan], object] = lambda plan: None,
        groups: Collection[str] = (),
    ) -> list[SearchHit]:
        """Returns the best `k` chunks, or all there are, read from one snapshot of the index.

        Args:
            tenant: The tenant whose chunks are searched.
            query: A text in the query language (see `SearchQuery.parse`), or a parsed query.
            query_vector: The embedding of its words, (dimension,) float32; not needed in lexical mode.
            k: How many hits.
            mode: `lexical` (BM25), `vector` (cosine) or `hybrid` (both, fused).
            at: A release, or a state that is not released yet; None for the live release.
            model_digest: The model that made `query_vector`; needed with it.
            on_plan: Called with the plan of the vector search, which says how the nearest vectors were found.
            groups: The user's groups; chunks that only other groups may read are not searched.

        Returns:
            Hits, best first; equal scores by chunk_id.

        Raises:
            InvalidSearchQuery: The query, its vector, `k` or the mode can not be used.
            QueryModelMismatch: The vector was made by another model than the index.
            NoLiveSnapshot: There is no live release.
            UnknownIndexRelease: `at` can not be read, or no longer.
            ValueError: The tenant or a group is no valid name.
        """
        query = SearchQuery.parse(query) if isinstance(query, str) else query
        self._check(query, query_vector, k, mode)
        with self._postgres.serving(tenant, groups) as connection:
            snapshot = read_snapshot(connection, at)
            if mode == "lexical":
                bm25 = Bm25Search(connection, snapshot, query, self.config)
                return _hits(connection, snapshot, bm25.filled(k))
            vector = _halves(query_vector, snapshot, model_digest)
            depth = k if mode == "vector" else max(k, self.config.candidates)
            near, plan = self._nearest(connection, snapshot, query, vector, depth)
            on_plan(plan)
            best = near
            if mode == "hybrid":
                bm25 = Bm25Search(connection, snapshot, query, self.config)
                ranking = bm25.best(depth, also=[c.chunk_no for c in near], vector=vector)
                best = self._fused(ranking, near)[:k]
            return _hits(connection, snapshot, best)

    def lexical_matrices(self, at: IndexPoint, tenant: str, questions: pa.Table) -> LexicalMatrices:
        """Returns the BM25 scores of many questions at once; see `read_lexical_matrices`.

        It reads as the owner: it is for making tables of the lake, never for answering a user.
        """
        with self._postgres.owner() as connection:
            return read_lexical_matrices(connection, at, tenant, questions, self.config)

    def _fused(self, lexical: LexicalRanking, nearest: list[SearchCandidate]) -> list[SearchCandidate]:
        """Fuses both rankings; scores are standardised by the candidates that every search looks at."""
        most = self.config.candidates
        words = lexical.scores | {c.chunk_no: c.score for c in lexical.best}
        near = lexical.similarities | {c.chunk_no: c.score for c in nearest}
        sample = {c.chunk_no: c for c in (*lexical.best[:most], *nearest[:most])}
        candidates = list((sample | {c.chunk_no: c for c in (*lexical.best, *nearest)}).values())
        return fuse_rankings(
            candidates,
            np.array([words.get(c.chunk_no, 0.0) for c in candidates], np.float64),
            np.array([near[c.chunk_no] for c in candidates], np.float64),
            self.config.vector_weight,
            len(sample),
        )

    def _nearest(
        self,
        connection: Connection[DatabaseRow],
        snapshot: Snapshot,
        query: SearchQuery,
        vector: HalfVector,
        depth: int,
    ) -> tuple[list[SearchCandidate], VectorSearchPlan]:
        """Returns the `depth` nearest chunks that meet the query's filters, or fewer if not enough do."""
        config, fit_only = self.config, query.fit_only
        found, plan = search_nearest_vectors(connection, snapshot, vector, depth, config, fit_only)
        if not query.restricted:
            return found, plan
        filters = read_query_filters(connection, snapshot, query)
        kept = matching_candidates(connection, snapshot, filters, found)
        if len(kept) < depth < _MOST_TESTED:
            found, plan = search_nearest_vectors(connection, snapshot, vector, _MOST_TESTED, config, fit_only)
            kept = matching_candidates(connection, snapshot, filters, found)
        kept = kept[:depth]
        return kept, replace(plan, asked=depth, found=len(kept))

    def exact_neighbours(
        self,
        tenant: str,
        query_vector: npt.NDArray[np.float32] | Sequence[float],
        k: int,
        at: IndexPoint | None = None,
        *,
        model_digest: str | None = None,
        groups: Collection[str] = (),
    ) -> list[SearchHit]:
        """Returns the true nearest chunks, found by comparing every chunk; recall is measured against them.

        The arguments and errors are those of `search`.
        """
        self._check(SearchQuery(""), query_vector, k, "vector")
        with self._postgres.serving(tenant, groups) as connection:
            snapshot = read_snapshot(connection, at)
            vector = _halves(query_vector, snapshot, model_digest)
            return _hits(connection, snapshot, search_all_vectors(connection, snapshot, vector, k))

    def _check(self, query: SearchQuery, query_vector: object, k: int, mode: str) -> None:
        config = self.config
        if mode not in RETRIEVAL_MODES:
            raise InvalidSearchQuery(f"there is no mode {mode!r}; there are {', '.join(RETRIEVAL_MODES)}")
        if not isinstance(k, int) or not 1 <= k <= config.max_k:
            raise InvalidSearchQuery(f"k is {k!r}; it is a whole number from 1 to {config.max_k}")
        text = " ".join((query.words, *query.without_words, *query.without_phrases))
        if "\0" in text:
            raise InvalidSearchQuery("the query holds a NUL character")
        if len(text) > config.max_query_chars:
            raise InvalidSearchQuery(
                f"the query has {len(text)} characters; at most {config.max_query_chars} can be used"
            )
        if mode != "vector" and not query.words:
            raise InvalidSearchQuery('the query is empty: give a word to look for, such as "warranty"')
        if mode != "lexical" and query_vector is None:
            raise InvalidSearchQuery(f"a {mode} search needs the query's vector")


def _halves(vector: Any, snapshot: Snapshot, model_digest: str | None) -> HalfVector:
    """Returns a query's vector for pgvector, after checking that it can have a meaningful answer."""
    if model_digest != snapshot.model_digest:
        said = f"model {model_digest}" if model_digest else "a model that was not named"
        raise QueryModelMismatch(
            f"the query's vector is from {said} and the index is from {snapshot.model_digest}"
        )
    values = np.asarray(vector, dtype=np.float32)
    if values.shape != (snapshot.dimension,):
        raise InvalidSearchQuery(
            f"the query's vector has shape {values.shape}; the index holds ({snapshot.dimension},)"
        )
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise InvalidSearchQuery(
            "the query's vector holds NaN, an infinity or a number too large for a half float"
        )
    if not halves.any():
        raise InvalidSearchQuery("the query's vector is zero: it points nowhere")
    return HalfVector(halves)


def _hits(
    connection: Connection[DatabaseRow], snapshot: Snapshot, best: list[SearchCandidate]
) -> list[SearchHit]:
    rows = connection.execute(
        "SELECT * FROM headwater_search.read_chunks(%s, %s, %s::bigint[])",
        (snapshot.generation, snapshot.epoch, [candidate.chunk_no for candidate in best]),
    ).fetchall()
    found = {row[0]: row[1:] for row in rows}
    return [
        SearchHit(rank, candidate.score, *found[candidate.chunk_no])
        for rank, candidate in enumerate(best, start=1)
    ]
