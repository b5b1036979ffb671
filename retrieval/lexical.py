"""The chunks that hold a query's words, ranked by BM25 over the postings, in plain SQL."""

from typing import Protocol

from psycopg import Connection
from pydantic import BaseModel, Field

from retrieval.fusion import Candidate
from retrieval.postgres import Row


class LexicalConfig(BaseModel):
    """How words are scored."""

    bm25_k1: float = Field(default=0.9, ge=0)
    """How soon repetitions of a word stop counting."""
    bm25_b: float = Field(default=0.4, ge=0, le=1)
    """How much a long chunk is held back: 0 not at all, 1 fully."""


class Moment(Protocol):
    """What one search reads from start to end, as far as words are concerned."""

    @property
    def languages(self) -> list[str]:
        """Those of the tenant's chunks."""
        ...

    @property
    def chunk_count(self) -> int:
        """Chunks of the tenant."""
        ...

    @property
    def mean_length(self) -> float:
        """Of a chunk, in lexemes."""
        ...

    @property
    def visible(self) -> str:
        """The condition on a row of the index."""
        ...


def bm25(
    connection: Connection[Row], moment: Moment, query: str, depth: int, config: LexicalConfig
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
            "k1": float(config.bm25_k1),
            "b": float(config.bm25_b),
            "depth": depth,
        },
    ).fetchall()
    return [Candidate(*row) for row in rows]
