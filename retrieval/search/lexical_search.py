"""Lexical search: the chunks that hold a query's words, ranked by BM25 over the postings, in plain SQL."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pgvector import HalfVector
from psycopg import Connection
from pydantic import BaseModel, Field

from retrieval.index.postings import (
    CHUNK_LENGTH_SQL,
    HEADING_TF_SQL,
    IN_TEXT_ONLY_SQL,
    POSTINGS_PER_BLOCK,
    TEXT_TF_SQL,
    TITLE_TF_SQL,
    chunk_posting_sql,
)
from retrieval.search.filters import query_filters
from retrieval.search.fusion import SearchCandidate, ranking_key
from retrieval.search.query import SearchQuery
from retrieval.search.snapshot import Snapshot
from retrieval.store.postgres import DatabaseRow

_POOL_PER_HIT = 4
"""Candidates per hit: chunks that score best by the words read in full, whose scores are then completed."""
_SMALLEST_POOL = 400
_ALL = (1 << 31) - 2
_BLOCKS_PER_LOOKUP = 6
"""Blocks that are scanned in the time that looking up one chunk's block takes."""

_IDENTIFIER = re.compile(r"[:/@=+#_\\]|\d\.\d")


class LexicalConfig(BaseModel):
    """The settings of BM25 scoring."""

    bm25_k1: float = Field(default=0.9, ge=0)
    """How much repetitions of a word count: the lower, the sooner they stop adding to the score."""
    bm25_b: float = Field(default=0.4, ge=0, le=1)
    """How much a long chunk is penalised: 0 not at all, 1 fully."""
    title_weight: float = Field(default=2.0, gt=0)
    """The weight of a word in the document's title."""
    heading_weight: float = Field(default=1.0, gt=0)
    """The weight of a word in the path of headings."""
    text_weight: float = Field(default=1.0, gt=0)
    """The weight of a word in the chunk's own text."""
    identifier_weight: float = Field(default=2.0, gt=0)
    """The weight of an identifier such as `std::vector` or `4.4.0`, beside the words in it."""
    max_words: int = Field(default=128, ge=1)
    """The most lexemes that one search looks for; of a longer query, the rarest ones."""
    max_postings: int = Field(default=12_000, ge=1)
    """The most postings that one search reads to find its candidates, beginning with the rarest word."""


class LexicalRanking(NamedTuple):
    """The result of a lexical search.

    Attributes:
        best: The chunks of the highest scores, best first, equal scores by chunk_id.
        scores: The scores of the further chunks in `also`; 0 for a chunk without a word of the query.
        similarities: The cosine similarities of the best chunks to the query's vector, if one was given.
    """

    best: list[SearchCandidate]
    scores: dict[int, float]
    similarities: dict[int, float]


@dataclass(frozen=True)
class _Word:
    """A lexeme of the query, with its weight and the number of chunks that hold it."""

    lexeme: str
    weight: float
    chunk_count: int


# weight * tf / (tf + k1 (1 - b + b length / mean)), written with tf once: PostgreSQL computes tf wherever it
# stands, and that is most of the cost of a posting. Rounded, so that the order of a sum never decides between
# equals.
_SCORE = "round(1e9 * sum(weight / (1 + (%(length_0)s::float8 + %(length_1)s::float8 * length) / tf))) / 1e9"
# Most chunks that hold a word hold it only in their text.
_COUNTED = (
    f"{CHUNK_LENGTH_SQL} AS length, %(text)s * {TEXT_TF_SQL} + CASE WHEN {IN_TEXT_ONLY_SQL} THEN 0 "
    f"ELSE %(title)s * {TITLE_TF_SQL} + %(heading)s * {HEADING_TF_SQL} END AS tf"
)


class Bm25Search:
    """The BM25 search of one query over weighted fields, with Lucene's idf, in one snapshot.

    A lexeme's frequency in a chunk is the weighted sum of its frequencies in the fields (Robertson, Zaragoza
    and Taylor, "Simple BM25 Extension to Multiple Weighted Fields", 2004); a chunk's length is that of
    all fields. This variant of BM25 is "Lucene (accurate)" in Kamphuis et al., "Which BM25 Do You Mean?"
    (2020).

    Args:
        connection: A connection of the serving role.
        snapshot: The snapshot that the search reads.
        query: The query.
        config: The settings of BM25.
    """

    def __init__(
        self,
        connection: Connection[DatabaseRow],
        snapshot: Snapshot,
        query: SearchQuery,
        config: LexicalConfig,
    ) -> None:
        self._connection, self._snapshot, self._query, self._config = connection, snapshot, query, config
        self._words = _words(connection, snapshot, query.words, config)
        self._affordable = _affordable(self._words, config.max_postings)
        self._arguments: dict[str, Any] = {
            "title": config.title_weight,
            "heading": config.heading_weight,
            "text": config.text_weight,
            "length_0": config.bm25_k1 * (1 - config.bm25_b),
            # Without a mean length there are no postings, so its value does not matter.
            "length_1": config.bm25_k1 * config.bm25_b / (snapshot.mean_length or 1.0),
        }

    def best(self, depth: int, also: Sequence[int] = (), vector: HalfVector | None = None) -> LexicalRanking:
        """Returns the best `depth` chunks that hold a word of the query and meet its filters.

        To find candidates, a search reads at most `max_postings` postings: all of the rarest word, then those
        of the next rarest words while they fit. The other words only add to the scores of the best
        candidates, as the non-essential lists of MaxScore do (Turtle and Flood, 1995), but without the
        guarantee of MaxScore. If all postings fit, as for every query of a small tenant, the ranking is
        exact. Every score is always exact.

        Args:
            depth: How many chunks.
            also: The numbers of further chunks whose scores are returned, whatever their rank.
            vector: The query's vector, if the similarities to it are to be returned.
        """
        if not self._words:
            return LexicalRanking([], {}, {})
        return self._ranked(self._words[: self._affordable], depth, also, vector)

    def filled(self, depth: int) -> list[SearchCandidate]:
        """Returns `best`, and if it has too few chunks, also the best chunks that hold only common words."""
        best = {c.chunk_no: c for c in self.best(depth).best}
        for word in self._words[self._affordable :]:
            if len(best) >= depth:
                break
            best |= {c.chunk_no: c for c in self._ranked([word], depth, (), None).best}
        return sorted(best.values(), key=ranking_key)[:depth]

    def _ranked(
        self, essential: Sequence[_Word], depth: int, also: Sequence[int], vector: HalfVector | None
    ) -> LexicalRanking:
        """Returns the best chunks among those that hold one of the essential words."""
        pool = max(_POOL_PER_HIT * depth, _SMALLEST_POOL)
        ranking, more = self._read(essential, depth, also, vector, pool)
        if len(ranking.best) < depth and more:
            # Some of the best candidates are not in this snapshot, or do not meet the filters.
            ranking, _ = self._read(essential, depth, also, vector, _ALL)
        return ranking

    def _read(
        self,
        essential: Sequence[_Word],
        depth: int,
        also: Sequence[int],
        vector: HalfVector | None,
        pool: int,
    ) -> tuple[LexicalRanking, bool]:
        """Ranks the `pool` candidates of the highest scores by essential words, and those equal to the last.

        Returns:
            The ranking, and whether other chunks with an essential word were left out, valid or not.
        """
        snapshot, common = self._snapshot, [word for word in self._words if word not in essential]
        filters = query_filters(self._connection, snapshot, self._query, {word.lexeme for word in essential})
        dearer = _BLOCKS_PER_LOOKUP * POSTINGS_PER_BLOCK * (pool + len(also))
        scanned = [word for word in common if word.chunk_count <= dearer]
        looked_up = common[len(scanned) :]
        # Only a word that alone exceeds the limit is not read in full. Its newest postings are read, because
        # the postings of closed chunks, which are still there, are among the older ones.
        most = self._config.max_postings
        similarity = "1 - (embedding <=> %(vector)s::halfvec)" if vector else "NULL::float8"
        bound = "ORDER BY p.first_no DESC LIMIT %(most)s" if essential[0].chunk_count > most else ""
        # A candidate that even all of the common words could not bring among the best is not scored further.
        # The others are tested on their text from the best on, until there are enough.
        rows = self._connection.execute(
            f"""
            WITH found AS MATERIALIZED (
                SELECT chunk_no, {_SCORE} AS score
                FROM (
                    SELECT lexeme, weight, chunk_no, {_COUNTED}
                    FROM unnest(%(lexemes)s::text[], %(weights)s::float8[]) AS words (lexeme, weight)
                    CROSS JOIN LATERAL (
                        SELECT unnest(p.chunk_nos) AS chunk_no, unnest(p.counts) AS counts
                        FROM headwater.postings p
                        WHERE p.generation = {snapshot.generation:d} AND p.lexeme = words.lexeme {bound}
                    ) postings
                ) counted
                GROUP BY chunk_no {filters.having}
            ), cut AS MATERIALIZED (
                SELECT array_agg(score) AS best
                FROM (SELECT score FROM found ORDER BY score DESC LIMIT %(pool)s + 1) best
            ), picked AS MATERIALIZED (
                SELECT chunk_no, score, score >= {_cut("%(pool)s")} AS ranked
                FROM found WHERE score >= {_cut("%(pool)s")} OR {_ASKED}
            ), asked AS MATERIALIZED (
                SELECT chunk_no, score, ranked FROM picked
                WHERE score >= {_cut("%(best)s")} - %(most_added)s OR {_ASKED}
                UNION ALL
                SELECT chunk_no, 0, false FROM unnest(%(also)s::integer[]) AS also (chunk_no)
                WHERE chunk_no NOT IN (SELECT chunk_no FROM picked)
            ), scored AS MATERIALIZED (
                SELECT chunk_no, score + coalesce(added, 0) AS score, ranked
                FROM asked LEFT JOIN ({_added(snapshot, bool(looked_up)) if common else _NOTHING}) more
                USING (chunk_no)
            )
            (
                SELECT chunk_no, chunk_id, score, similarity
                FROM (SELECT chunk_no, score FROM scored WHERE ranked ORDER BY score DESC OFFSET 0) best
                CROSS JOIN LATERAL (
                    SELECT chunk_id, {similarity} AS similarity FROM headwater.chunks c
                    WHERE c.chunk_no = best.chunk_no AND {snapshot.visible} {filters.where} LIMIT 1
                ) chunks
                ORDER BY score DESC FETCH FIRST %(depth)s ROWS WITH TIES
            )
            UNION ALL
            SELECT chunk_no, NULL, score, NULL FROM scored WHERE {_ASKED}
            UNION ALL
            SELECT NULL, NULL, cardinality(best), NULL FROM cut
            """,
            self._arguments
            | filters.arguments
            | {
                "lexemes": [word.lexeme for word in essential],
                "weights": [word.weight for word in essential],
                "common": [word.lexeme for word in scanned],
                "common_weights": [word.weight for word in scanned],
                "commonest": [word.lexeme for word in looked_up],
                "commonest_weights": [word.weight for word in looked_up],
                "most_added": sum(word.weight for word in common),
                "most": most,
                "pool": pool,
                # Without common words, candidates that are not valid would leave places open.
                "best": depth if common and pool < _ALL else _ALL,
                "also": list(also),
                "vector": vector,
                "depth": depth,
            },
        ).fetchall()
        best = [SearchCandidate(*row[:3]) for row in rows if row[1] is not None]
        best.sort(key=ranking_key)
        scores = {chunk_no: score for chunk_no, chunk_id, score, _ in rows if chunk_id is None}
        similarities = {row[0]: row[3] for row in rows if row[3] is not None}
        found = scores.pop(None) or 0
        more = found > pool or (found > depth and bool(common))
        return LexicalRanking(best[:depth], scores, similarities), more


_NOTHING = "SELECT 0 AS chunk_no, 0 AS added WHERE false"
_ASKED = "chunk_no = ANY(%(also)s::integer[])"


def _cut(place: str) -> str:
    """Returns SQL for the score of the chunk at a place, from 1, among those found; 0 if there are fewer."""
    return f"coalesce((SELECT best[{place}] FROM cut), 0)"


def _added(snapshot: Snapshot, looked_up: bool) -> str:
    """Returns SQL for what the common words add to the scores of the chunks `asked` that hold one.

    All blocks of a word are scanned, and each is matched with the chunks between its first and last number.
    For a word of too many blocks, the block of each chunk is looked up instead.

    Args:
        snapshot: What the search reads.
        looked_up: Whether there are words of too many blocks.
    """
    lookups = f"""
        UNION ALL
        SELECT weight, c.chunk_no, counts
        FROM unnest(%(commonest)s::text[], %(commonest_weights)s::float8[]) AS words (lexeme, weight)
        CROSS JOIN asked
        JOIN headwater.chunks c ON c.chunk_no = asked.chunk_no AND c.generation = {snapshot.generation:d}
        CROSS JOIN LATERAL ({chunk_posting_sql(snapshot.generation)}) held
    """
    return f"""
    SELECT chunk_no, {_SCORE} AS added
    FROM (
        SELECT weight, chunk_no, {_COUNTED}
        FROM (
            SELECT weight, chunk_no, counts[width_bucket(chunk_no, chunk_nos)] AS counts
            FROM (
                SELECT weight, p.chunk_nos, p.counts, unnest(nos[
                    width_bucket(p.first_no::integer - 1, nos) + 1
                    : width_bucket(p.chunk_nos[cardinality(p.chunk_nos)], nos)
                ]) AS chunk_no
                FROM (SELECT array_agg(chunk_no ORDER BY chunk_no) AS nos FROM asked) sorted
                CROSS JOIN unnest(%(common)s::text[], %(common_weights)s::float8[]) AS words (lexeme, weight)
                JOIN headwater.postings p
                    ON p.generation = {snapshot.generation:d} AND p.lexeme = words.lexeme
            ) blocks
            WHERE chunk_nos[width_bucket(chunk_no, chunk_nos)] = chunk_no
            {lookups if looked_up else ""}
        ) postings
    ) counted
    GROUP BY chunk_no
    """


def _words(
    connection: Connection[DatabaseRow], snapshot: Snapshot, words: str, config: LexicalConfig
) -> list[_Word]:
    """Returns the query's lexemes that the tenant's chunks hold, rarest first.

    A lexeme's rarity is measured among the chunks of the languages that read the query that way. `the` is a
    stop word in English: it must not look rare because it is found in the one chunk of an unknown language.
    """
    rows = connection.execute(
        """
        SELECT lexeme, asked, among, sum(chunk_count)::bigint
        FROM (
            SELECT lexeme, max(tf) AS asked, sum(chunks)::bigint AS among
            FROM unnest(%(languages)s::text[], %(chunks)s::bigint[]) AS languages (language, chunks)
            CROSS JOIN LATERAL headwater.terms(language, %(words)s, true) GROUP BY lexeme
        ) terms
        CROSS JOIN LATERAL (
            SELECT DISTINCT ON (scope) chunk_count FROM headwater.frequencies f
            WHERE f.lexeme = terms.lexeme AND generation = %(generation)s AND epoch <= %(epoch)s
            ORDER BY scope, epoch DESC
        ) newest
        GROUP BY lexeme, asked, among HAVING sum(chunk_count) > 0 ORDER BY sum(chunk_count), lexeme
        LIMIT %(most)s
        """,
        {
            "languages": list(snapshot.languages),
            "chunks": list(snapshot.languages.values()),
            "words": words,
            "most": config.max_words,
            "generation": snapshot.generation,
            "epoch": snapshot.epoch,
        },
    ).fetchall()
    found = []
    for lexeme, asked, among, holding in rows:
        idf = math.log1p((max(among - holding, 0) + 0.5) / (holding + 0.5))
        times = asked * (config.identifier_weight if _IDENTIFIER.search(lexeme) else 1.0)
        found.append(_Word(lexeme, times * idf, holding))
    return found


def _affordable(words: Sequence[_Word], max_postings: int) -> int:
    """Returns how many words, from the rarest on, have together at most `max_postings`; at least one."""
    total = 0
    for place, word in enumerate(words):
        total += word.chunk_count
        if place and total > max_postings:
            return place
    return len(words)
