"""Search over one moment of the index, as one tenant, by words, by vector or by both."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pgvector import HalfVector
from psycopg import Connection
from pydantic import Field

from retrieval.index.types import Point, UnknownRelease
from retrieval.search.filters import wanted
from retrieval.search.fusion import Candidate, fuse
from retrieval.search.lexical import Bm25, LexicalConfig, Ranking
from retrieval.search.query import InvalidQuery, Query
from retrieval.search.vector import LARGEST_EF_SEARCH, NearestConfig, Plan, exact, nearest
from retrieval.store.postgres import Postgres, Row

Mode = Literal["hybrid", "lexical", "vector"]
MODES: tuple[Mode, ...] = get_args(Mode)

_MOST_TESTED = 10_000
"""How many of the nearest chunks are tested for a query's phrases and exclusions, where fewer do not do."""


class ModelMismatch(InvalidQuery):
    """The query's vector is from another model than the index's."""


class NothingReleased(LookupError):
    """No release is live yet."""


class SearchConfig(LexicalConfig, NearestConfig):
    """How candidates are found and ranked."""

    candidates: int = Field(default=100, ge=1, le=LARGEST_EF_SEARCH)
    """How many each ranking proposes for fusion; never fewer than asked for."""
    vector_weight: float = Field(default=0.6, ge=0, le=1)
    """The vector ranking's part of the fused score; docs/retrieval.md has the figures that chose it."""
    max_k: int = Field(default=LARGEST_EF_SEARCH, ge=1, le=LARGEST_EF_SEARCH)
    """The most hits that one search may ask for."""
    max_query_chars: int = Field(default=4000, ge=1)
    """The longest query; each of its words costs a scan of that word's postings."""


@dataclass(frozen=True)
class Hit:
    """A chunk that was found.

    Attributes:
        rank: From 1.
        score: BM25 in lexical mode, cosine similarity in vector mode, between 0 and 1 in hybrid mode.
        chunk_id: The chunk.
        doc_id: Its document.
        uri: Where the document came from.
        title: The document's, where it has one.
        heading: The path of headings above the chunk, where there are any.
        content_sha256: Of the document's bytes.
        char_start: Where in the document's text the chunk begins.
        char_end: And where it ends.
        text: Its text.
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


@dataclass(frozen=True)
class _Moment:
    """What one search reads from start to end."""

    generation: int
    epoch: int
    dimension: int
    model_digest: str
    graph_rows: int
    languages: dict[str, int]
    chunk_count: int
    mean_length: float

    @property
    def visible(self) -> str:
        """The condition on a row; numbers of our own, put in so that the planner knows the partition."""
        return (
            f"generation = {self.generation:d} AND valid_from <= {self.epoch:d} "
            f"AND (valid_to IS NULL OR valid_to > {self.epoch:d})"
        )


class Searcher:
    """Searches the index as the serving role, which sees one tenant's rows and can change none.

    Args:
        postgres: The serving database.
        config: How candidates are found and ranked.
    """

    def __init__(self, postgres: Postgres, config: SearchConfig | None = None) -> None:
        self._postgres = postgres
        self._config = config or SearchConfig()

    def search(
        self,
        tenant: str,
        query: str | Query,
        query_vector: npt.NDArray[np.float32] | Sequence[float] | None,
        k: int,
        mode: Mode = "hybrid",
        at: Point | None = None,
        *,
        model_digest: str | None = None,
        on_plan: Callable[[Plan], object] = lambda plan: None,
        groups: Collection[str] = (),
    ) -> list[Hit]:
        """The best `k` chunks, or all there are, from one (generation, epoch) from start to end.

        Args:
            tenant: Whose chunks.
            query: In the query language (see `Query.parse`), or as it is to be carried out.
            query_vector: Its words' embedding, (dimension,) float32; not needed in lexical mode.
            k: How many hits.
            mode: `lexical` (BM25), `vector` (cosine) or `hybrid` (both, fused).
            at: A release, or a state that is not released yet; None for the live release.
            model_digest: Of the model that made `query_vector`; needed with it.
            on_plan: Called with how the vectors' part of it was found, and why so.
            groups: Those that the user is in; chunks that are for other groups do not exist for the search.

        Returns:
            Hits, best first; equal scores by chunk_id.

        Raises:
            InvalidQuery: The query, its vector, `k` or the mode can not be used.
            ModelMismatch: The vector is from another model than the index.
            NothingReleased: There is no live release.
            UnknownRelease: `at` can not be read (any more).
            ValueError: No tenant, or a group that can not be one.
        """
        query = Query.parse(query) if isinstance(query, str) else query
        self._check(query, query_vector, k, mode)
        with self._postgres.serving(tenant, groups) as connection:
            moment = _moment(connection, at)
            if mode == "lexical":
                bm25 = Bm25(connection, moment, query, self._config)
                return _hits(connection, moment, bm25.filled(k))
            vector = _halves(query_vector, moment, model_digest)
            depth = k if mode == "vector" else max(k, self._config.candidates)
            near, plan = self._nearest(connection, moment, query, vector, depth)
            on_plan(plan)
            best = near
            if mode == "hybrid":
                bm25 = Bm25(connection, moment, query, self._config)
                ranking = bm25.best(depth, also=[c.chunk_no for c in near], vector=vector)
                best = self._fused(ranking, near)[:k]
            return _hits(connection, moment, best)

    def _fused(self, lexical: Ranking, nearest: list[Candidate]) -> list[Candidate]:
        """Both rankings' candidates, each with both scores: scaled by those that every search looks at."""
        most = self._config.candidates
        words = lexical.scores | {c.chunk_no: c.score for c in lexical.best}
        near = lexical.similarities | {c.chunk_no: c.score for c in nearest}
        sample = {c.chunk_no: c for c in (*lexical.best[:most], *nearest[:most])}
        candidates = list((sample | {c.chunk_no: c for c in (*lexical.best, *nearest)}).values())
        return fuse(
            candidates,
            np.array([words.get(c.chunk_no, 0.0) for c in candidates], np.float64),
            np.array([near[c.chunk_no] for c in candidates], np.float64),
            self._config.vector_weight,
            len(sample),
        )

    def _nearest(
        self, connection: Connection[Row], moment: _Moment, query: Query, vector: HalfVector, depth: int
    ) -> tuple[list[Candidate], Plan]:
        """The nearest chunks that the query does not rule out: `depth`, or all of those that are tested."""
        found, plan = nearest(connection, moment, vector, depth, self._config)
        if not query.restricted:
            return found, plan
        kept = wanted(connection, moment, query, found)
        if len(kept) < depth < _MOST_TESTED:
            found, plan = nearest(connection, moment, vector, _MOST_TESTED, self._config)
            kept = wanted(connection, moment, query, found)
        return kept[:depth], plan

    def exact_neighbours(
        self,
        tenant: str,
        query_vector: npt.NDArray[np.float32] | Sequence[float],
        k: int,
        at: Point | None = None,
        *,
        model_digest: str | None = None,
        groups: Collection[str] = (),
    ) -> list[Hit]:
        """The true nearest chunks by comparing every one: what a vector search's recall is measured against.

        Args and errors as in `search`.
        """
        self._check(Query(""), query_vector, k, "vector")
        with self._postgres.serving(tenant, groups) as connection:
            moment = _moment(connection, at)
            vector = _halves(query_vector, moment, model_digest)
            return _hits(connection, moment, exact(connection, moment, vector, k))

    def _check(self, query: Query, query_vector: object, k: int, mode: str) -> None:
        config = self._config
        if mode not in MODES:
            raise InvalidQuery(f"there is no mode {mode!r}; there are {', '.join(MODES)}")
        if not isinstance(k, int) or not 1 <= k <= config.max_k:
            raise InvalidQuery(f"k is {k!r}; it is a whole number from 1 to {config.max_k}")
        text = " ".join((query.words, *query.without_words, *query.without_phrases))
        if "\0" in text:
            raise InvalidQuery("the query holds a NUL character")
        if len(text) > config.max_query_chars:
            raise InvalidQuery(
                f"the query has {len(text)} characters; at most {config.max_query_chars} can be used"
            )
        if mode != "vector" and not query.words:
            raise InvalidQuery("the query is empty")
        if mode != "lexical" and query_vector is None:
            raise InvalidQuery(f"a {mode} search needs the query's vector")


def _moment(connection: Connection[Row], at: Point | None) -> _Moment:
    if at is None:
        which = "SELECT generation, r.epoch FROM headwater.live JOIN headwater.releases r USING (release_id)"
    else:
        # Between releases rows may be pruned: such an epoch is not half read.
        which = (
            "SELECT generation, %(epoch)s::bigint AS epoch FROM headwater.index_state s "
            "WHERE generation = %(generation)s AND status = 'ready' AND (epoch = %(epoch)s OR EXISTS "
            "(SELECT FROM headwater.releases r WHERE r.generation = s.generation AND r.epoch = %(epoch)s))"
        )
    rows = connection.execute(
        f"""
        SELECT m.generation, m.epoch, s.dimension, s.model_digest, (
            SELECT reltuples::bigint FROM pg_class
            WHERE oid = to_regclass('headwater.chunks_g' || m.generation)
        ), language, sum(chunk_count)::bigint, sum(total_length)::bigint
        FROM ({which}) m JOIN headwater.index_state s USING (generation)
        LEFT JOIN LATERAL (
            SELECT DISTINCT ON (scope, language) language, chunk_count, total_length
            FROM headwater.statistics t WHERE t.generation = m.generation AND t.epoch <= m.epoch
            ORDER BY scope, language, epoch DESC
        ) newest ON chunk_count > 0
        GROUP BY 1, 2, 3, 4, language ORDER BY language
        """,
        {"generation": at.generation, "epoch": at.epoch} if at else {},
    ).fetchall()
    if not rows and at is None:
        raise NothingReleased("nothing is released yet: run the pipeline, then search")
    if not rows and at:
        raise UnknownRelease(
            f"generation {at.generation}, epoch {at.epoch} can not be read: it is neither a kept release nor "
            "the newest state of its generation"
        )
    languages = {language: count for *_, language, count, _ in rows if language is not None}
    chunk_count = sum(languages.values())
    length = sum(length or 0 for *_, length in rows)
    # The mean is only divided by where a posting matched, and then it is above zero.
    mean_length = length / chunk_count if chunk_count else 0.0
    generation, epoch, dimension, model_digest, graph_rows = rows[0][:5]
    return _Moment(
        generation, epoch, dimension, model_digest, graph_rows, languages, chunk_count, mean_length
    )


def _halves(vector: Any, moment: _Moment, model_digest: str | None) -> HalfVector:
    """A query's vector as pgvector takes it, after what would make its answer meaningless is ruled out."""
    if model_digest != moment.model_digest:
        said = f"model {model_digest}" if model_digest else "a model that was not named"
        raise ModelMismatch(f"the query's vector is from {said} and the index is from {moment.model_digest}")
    values = np.asarray(vector, dtype=np.float32)
    if values.shape != (moment.dimension,):
        raise InvalidQuery(
            f"the query's vector has shape {values.shape}; the index holds ({moment.dimension},)"
        )
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        raise InvalidQuery("the query's vector holds NaN, an infinity or a number too large for a half float")
    if not halves.any():
        raise InvalidQuery("the query's vector is zero: it points nowhere")
    return HalfVector(halves)


def _hits(connection: Connection[Row], moment: _Moment, best: list[Candidate]) -> list[Hit]:
    rows = connection.execute(
        "SELECT chunk_no, chunk_id, doc_id, uri, title, heading, content_sha256, char_start, char_end, text "
        f"FROM headwater.chunks WHERE chunk_no = ANY(%s) AND {moment.visible}",
        ([candidate.chunk_no for candidate in best],),
    ).fetchall()
    found = {row[0]: row[1:] for row in rows}
    return [
        Hit(rank, candidate.score, *found[candidate.chunk_no]) for rank, candidate in enumerate(best, start=1)
    ]
