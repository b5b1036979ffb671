"""Filters candidates by a query's phrases and exclusions, as conditions in SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from retrieval.index.postings import chunk_posting_sql
from retrieval.search.fusion import SearchCandidate
from retrieval.search.query import SearchQuery, phrase_regex
from retrieval.search.snapshot import Snapshot
from retrieval.store.postgres import DatabaseRow


@dataclass(frozen=True)
class QueryFilters:
    """The SQL conditions that a query's phrases and exclusions put on a chunk.

    Attributes:
        having: A HAVING clause over a chunk's lexemes, or an empty one. It excludes chunks that cannot hold
            the phrase before the best candidates are chosen.
        where: Conditions on a row `c` of `headwater.chunks`, each with a leading AND.
        arguments: The parameter values of both.
    """

    having: str
    where: str
    arguments: dict[str, Any]


def matching_candidates(
    connection: Connection[DatabaseRow],
    snapshot: Snapshot,
    query: SearchQuery,
    candidates: Sequence[SearchCandidate],
) -> list[SearchCandidate]:
    """Returns the candidates that hold every phrase of the query and nothing it excludes, in their order."""
    filters = query_filters(connection, snapshot, query, set())
    rows = connection.execute(
        "SELECT chunk_no FROM headwater.chunks c "
        f"WHERE chunk_no = ANY(%(candidates)s) AND {snapshot.visible} {filters.where}",
        filters.arguments | {"candidates": [candidate.chunk_no for candidate in candidates]},
    ).fetchall()
    kept = {row[0] for row in rows}
    return [candidate for candidate in candidates if candidate.chunk_no in kept]


def query_filters(
    connection: Connection[DatabaseRow], snapshot: Snapshot, query: SearchQuery, read: set[str]
) -> QueryFilters:
    """Returns the SQL conditions of a query's phrases and exclusions.

    Args:
        connection: A serving connection.
        snapshot: The snapshot that the search reads.
        query: The query.
        read: The lexemes whose postings the search reads in full; `having` uses only these.
    """
    arguments: dict[str, Any] = {}
    having, where = [], []
    passage = "concat_ws(E'\\n', c.title, c.heading, c.text)"
    for number, phrase in enumerate(query.phrases):
        name = f"phrase_{number}"
        arguments[name] = phrase_regex(phrase)
        where.append(f"AND {passage} ~* %({name})s")
        readings = []
        for place, lexemes in enumerate(_lexemes(connection, snapshot, phrase) if read else []):
            arguments[f"{name}_{place}"] = sorted(lexemes & read)
            readings.append(f"array_agg(lexeme) @> %({name}_{place})s::text[]")
        if readings:
            having.append(f"({' OR '.join(readings)})")
    for number, phrase in enumerate(query.without_phrases):
        arguments[f"without_{number}"] = phrase_regex(phrase)
        where.append(f"AND {passage} !~* %(without_{number})s")
    excluded = [_lexemes(connection, snapshot, word) for word in query.without_words]
    if excluded:
        arguments["without"] = sorted(set().union(*(each for readings in excluded for each in readings)))
        where.append(
            "AND NOT EXISTS (SELECT FROM unnest(%(without)s::text[]) AS words (lexeme) "
            f"CROSS JOIN LATERAL ({chunk_posting_sql(snapshot.generation)}) held)"
        )
    return QueryFilters(f"HAVING {' AND '.join(having)}" if having else "", " ".join(where), arguments)


def _lexemes(connection: Connection[DatabaseRow], snapshot: Snapshot, text: str) -> list[set[str]]:
    """Returns a text's lexemes, one set for each different reading by the tenant's languages."""
    rows = connection.execute(
        "SELECT DISTINCT (SELECT coalesce(array_agg(lexeme ORDER BY lexeme), '{}') "
        "FROM headwater.terms(language, %s, true)) FROM unnest(%s::text[]) AS language",
        (text, list(snapshot.languages)),
    ).fetchall()
    return [set(lexemes) for (lexemes,) in rows]
