"""Search over one moment of the index, as one tenant, by words, by vector or by both."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from psycopg import Connection
from pydantic import BaseModel, Field

from retrieval.fusion import Candidate, fuse
from retrieval.moments import Point, UnknownRelease
from retrieval.postgres import Postgres, Row

Mode = Literal["hybrid", "lexical", "vector"]
MODES: tuple[str, ...] = get_args(Mode)

_LARGEST_EF_SEARCH = 1000  # pgvector's own limit; a LIMIT above ef_search is cut to it without a word


class InvalidQuery(ValueError):
    """A search that can not be run; says what is wrong with it."""


class ModelMismatch(InvalidQuery):
    """The query's vector is from another model than the index's."""


class NothingReleased(LookupError):
    """No release is live yet."""


class SearchConfig(BaseModel):
    """How candidates are found and ranked."""

    bm25_k1: float = Field(default=0.9, ge=0)
    """How soon repetitions of a word stop counting."""
    bm25_b: float = Field(default=0.4, ge=0, le=1)
    """How much a long chunk is held back: 0 not at all, 1 fully."""
    candidates: int = Field(default=100, ge=1, le=_LARGEST_EF_SEARCH)
    """How many each ranking proposes for fusion; never fewer than asked for."""
    vector_weight: float = Field(default=0.5, ge=0, le=1)
    """The vector ranking's part of the fused score."""
    exact_below: int = Field(default=20_000, ge=0)
    """A tenant with fewer chunks is compared one by one: exact, and quicker than a filtered graph."""
    ef_search: int = Field(default=200, ge=1, le=_LARGEST_EF_SEARCH)
    """Candidates the HNSW search holds; never fewer than are asked for."""
    max_scan_tuples: int = Field(default=100_000, ge=1)
    """How far the HNSW search goes on for a tenant's rows before every one of them is compared instead."""
    max_k: int = Field(default=_LARGEST_EF_SEARCH, ge=1, le=_LARGEST_EF_SEARCH)
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
    languages: list[str]
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
        query: str,
        query_vector: npt.NDArray[np.float32] | Sequence[float] | None,
        k: int,
        mode: Mode = "hybrid",
        at: Point | None = None,
        *,
        model_digest: str | None = None,
        groups: Collection[str] = (),
    ) -> list[Hit]:
        """The best `k` chunks, or all there are, from one (generation, epoch) from start to end.

        Args:
            tenant: Whose chunks.
            query: The question, in plain words.
            query_vector: Its embedding, (dimension,) float32; not needed in lexical mode.
            k: How many hits.
            mode: `lexical` (BM25), `vector` (cosine) or `hybrid` (both, fused).
            at: A release, or a state that is not released yet; None for the live release.
            model_digest: Of the model that made `query_vector`; needed with it.
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
        self._check(query, query_vector, k, mode)
        depth = max(k, self._config.candidates) if mode == "hybrid" else k
        with self._postgres.serving(tenant, groups) as connection:
            moment = _moment(connection, at)
            lexical: list[Candidate] = []
            vector: list[Candidate] = []
            if mode != "vector":
                lexical = self._lexical(connection, moment, query, depth)
            if mode != "lexical":
                literal = _vector_literal(query_vector, moment, model_digest)
                vector = self._nearest(connection, moment, literal, depth)
            if mode == "hybrid":
                best = fuse(lexical, vector, self._config.vector_weight)[:k]
            else:
                best = lexical or vector
            return _hits(connection, moment, best)

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
        self._check("", query_vector, k, "vector")
        with self._postgres.serving(tenant, groups) as connection:
            moment = _moment(connection, at)
            literal = _vector_literal(query_vector, moment, model_digest)
            return _hits(connection, moment, _exact(connection, moment, literal, k))

    def _check(self, query: str, query_vector: object, k: int, mode: str) -> None:
        config = self._config
        if mode not in MODES:
            raise InvalidQuery(f"there is no mode {mode!r}; there are {', '.join(MODES)}")
        if not isinstance(k, int) or not 1 <= k <= config.max_k:
            raise InvalidQuery(f"k is {k!r}; it is a whole number from 1 to {config.max_k}")
        if "\0" in query:
            raise InvalidQuery("the query holds a NUL character")
        if len(query) > config.max_query_chars:
            raise InvalidQuery(
                f"the query has {len(query)} characters; at most {config.max_query_chars} can be used"
            )
        if mode != "vector" and not query.strip():
            raise InvalidQuery("the query is empty")
        if mode != "lexical" and query_vector is None:
            raise InvalidQuery(f"a {mode} search needs the query's vector")

    def _lexical(
        self, connection: Connection[Row], moment: _Moment, query: str, depth: int
    ) -> list[Candidate]:
        """BM25 with Lucene's idf over the postings that are valid at the moment.

        A lexeme's document frequency is counted from the very postings that are scored, so that it is right
        at every epoch. Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond"
        (2009); this variant is "Lucene (accurate)" in Kamphuis et al., "Which BM25 Do You Mean?" (2020).
        """
        words = connection.execute(
            "SELECT lexeme, max(cardinality(positions)) FROM unnest(%s::text[]) AS language, "
            "unnest(headwater.lexemes(language, %s)) GROUP BY lexeme ORDER BY lexeme",
            (moment.languages, query),
        ).fetchall()
        if not words:
            return []
        rows = connection.execute(
            f"""
            WITH matched AS MATERIALIZED (
                SELECT lexeme, chunk_no, tf, length FROM headwater.postings
                WHERE lexeme = ANY(%(lexemes)s) AND {moment.visible}
            ), weights AS (
                SELECT lexeme,
                    asked * ln(1 + (%(count)s::float8 - count(*) + 0.5) / (count(*) + 0.5)) AS weight
                FROM matched
                JOIN unnest(%(lexemes)s::text[], %(asked)s::float8[]) AS words (lexeme, asked) USING (lexeme)
                GROUP BY lexeme, asked
            ), scored AS (
                -- Rounded, so that the order in which a sum is made never decides between equals.
                SELECT chunk_no, round(1e9 * sum(
                    weight * tf / (tf + %(k1)s * (1 - %(b)s + %(b)s * length / %(mean)s::float8))
                )) / 1e9 AS score
                FROM matched JOIN weights USING (lexeme)
                GROUP BY chunk_no
                ORDER BY score DESC FETCH FIRST %(depth)s ROWS WITH TIES
            )
            SELECT chunk_no, chunk_id, score FROM scored
            JOIN headwater.chunks USING (chunk_no)
            WHERE {moment.visible}
            ORDER BY score DESC, chunk_id LIMIT %(depth)s
            """,
            {
                "lexemes": [lexeme for lexeme, _ in words],
                "asked": [float(asked) for _, asked in words],
                "count": moment.chunk_count,
                "mean": moment.mean_length,
                "k1": float(self._config.bm25_k1),
                "b": float(self._config.bm25_b),
                "depth": depth,
            },
        ).fetchall()
        return [Candidate(*row) for row in rows]

    def _nearest(
        self, connection: Connection[Row], moment: _Moment, literal: str, depth: int
    ) -> list[Candidate]:
        if moment.chunk_count < self._config.exact_below:
            return _exact(connection, moment, literal, depth)
        ef_search = max(self._config.ef_search, depth)
        wanted = {
            "hnsw.ef_search": str(ef_search),
            "hnsw.iterative_scan": "relaxed_order",
            "hnsw.max_scan_tuples": str(self._config.max_scan_tuples),
        }
        for name, value in wanted.items():
            connection.execute("SELECT set_config(%s, %s, true)", (name, value))
        found = {
            name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in wanted
        }
        refused = [name for name, row in found.items() if row != (wanted[name],)]
        if refused:
            raise RuntimeError(
                f"pgvector did not take {', '.join(refused)}: it would return fewer rows unasked"
            )
        indexed = f"embedding::halfvec({moment.dimension:d})"
        # Relaxed order returns rows nearly sorted: the outer sort makes it whole.
        rows = connection.execute(
            f"""
            WITH near AS MATERIALIZED (
                SELECT chunk_no, chunk_id, {indexed} <=> %(vector)s::halfvec AS distance
                FROM headwater.chunks WHERE {moment.visible}
                ORDER BY {indexed} <=> %(vector)s::halfvec LIMIT %(depth)s
            )
            SELECT chunk_no, chunk_id, 1 - distance FROM near ORDER BY distance, chunk_id
            """,
            {"vector": literal, "depth": depth},
        ).fetchall()
        if len(rows) < min(depth, moment.chunk_count):
            return _exact(connection, moment, literal, depth)
        return [Candidate(*row) for row in rows]


def _moment(connection: Connection[Row], at: Point | None) -> _Moment:
    if at is None:
        row = connection.execute(
            "SELECT generation, r.epoch, dimension, model_digest FROM headwater.live "
            "JOIN headwater.releases r USING (release_id) JOIN headwater.index_state USING (generation)"
        ).fetchone()
        if row is None:
            raise NothingReleased("nothing is released yet: run the pipeline, then search")
    else:
        # Between releases rows may be pruned: such an epoch is not half read.
        row = connection.execute(
            "SELECT generation, %(epoch)s::bigint, dimension, model_digest FROM headwater.index_state s "
            "WHERE generation = %(generation)s AND status = 'ready' AND (epoch = %(epoch)s OR EXISTS "
            "(SELECT FROM headwater.releases r WHERE r.generation = s.generation AND r.epoch = %(epoch)s))",
            {"generation": at.generation, "epoch": at.epoch},
        ).fetchone()
        if row is None:
            raise UnknownRelease(
                f"generation {at.generation}, epoch {at.epoch} can not be read: it is neither a kept release "
                "nor the newest state of its generation"
            )
    statistics = connection.execute(
        "SELECT language, sum(chunk_count)::bigint, sum(total_length)::bigint FROM ("
        "SELECT DISTINCT ON (scope, language) language, chunk_count, total_length FROM headwater.statistics "
        "WHERE generation = %s AND epoch <= %s ORDER BY scope, language, epoch DESC) newest "
        "WHERE chunk_count > 0 GROUP BY language ORDER BY language",
        (row[0], row[1]),
    ).fetchall()
    chunk_count = sum(count for _, count, _ in statistics)
    length = sum(length for _, _, length in statistics)
    languages = [language for language, _, _ in statistics]
    # The mean is only divided by where a posting matched, and then it is above zero.
    mean_length = length / chunk_count if chunk_count else 0.0
    return _Moment(row[0], row[1], row[2], row[3], languages, chunk_count, mean_length)


def _vector_literal(vector: Any, moment: _Moment, model_digest: str | None) -> str:
    """A query's vector as pgvector reads it, after what would make its answer meaningless is ruled out."""
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
    return f"[{','.join(map(str, values.tolist()))}]"


def _exact(connection: Connection[Row], moment: _Moment, literal: str, depth: int) -> list[Candidate]:
    # Without the cast to the dimension this is not the HNSW index's expression, so every row is compared.
    rows = connection.execute(
        f"""
        SELECT chunk_no, chunk_id, 1 - distance FROM (
            SELECT chunk_no, chunk_id, embedding <=> %(vector)s::halfvec AS distance
            FROM headwater.chunks WHERE {moment.visible}
            ORDER BY distance, chunk_id LIMIT %(depth)s
        ) near ORDER BY distance, chunk_id
        """,
        {"vector": literal, "depth": depth},
    ).fetchall()
    return [Candidate(*row) for row in rows]


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
