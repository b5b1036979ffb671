"""Filters chunks by a query's phrases and exclusions."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import Connection

from retrieval.search.fusion import SearchCandidate
from retrieval.search.query import SearchQuery, phrase_regex
from retrieval.search.snapshot import Snapshot
from retrieval.store.postgres import DatabaseRow


@dataclass(frozen=True)
class QueryFilters:
    """The conditions that a query's phrases and exclusions put on a chunk, for the functions of search.sql.

    Attributes:
        phrases: Regular expressions, each of which the chunk's title, headings or text match.
        without_phrases: Regular expressions, none of which they match.
        without_lexemes: Lexemes, none of which the chunk holds.
    """

    phrases: list[str]
    without_phrases: list[str]
    without_lexemes: list[str]


def matching_candidates(
    connection: Connection[DatabaseRow],
    snapshot: Snapshot,
    filters: QueryFilters,
    candidates: Sequence[SearchCandidate],
) -> list[SearchCandidate]:
    """Returns the candidates that hold every phrase of the query and nothing it excludes, in their order."""
    rows = connection.execute(
        "SELECT * FROM headwater_search.matching_chunks"
        "(%s, %s, %s::bigint[], %s::text[], %s::text[], %s::text[])",
        (
            snapshot.generation,
            snapshot.epoch,
            [candidate.chunk_no for candidate in candidates],
            filters.phrases,
            filters.without_phrases,
            filters.without_lexemes,
        ),
    ).fetchall()
    kept = {row[0] for row in rows}
    return [candidate for candidate in candidates if candidate.chunk_no in kept]


def read_query_filters(
    connection: Connection[DatabaseRow], snapshot: Snapshot, query: SearchQuery
) -> QueryFilters:
    """Returns the conditions of a query's phrases and exclusions."""
    excluded = [query_readings(connection, snapshot, word) for word in query.without_words]
    return QueryFilters(
        [phrase_regex(phrase) for phrase in query.phrases],
        [phrase_regex(phrase) for phrase in query.without_phrases],
        sorted(set().union(*(reading for readings in excluded for reading in readings))),
    )


def query_readings(connection: Connection[DatabaseRow], snapshot: Snapshot, text: str) -> list[set[str]]:
    """Returns a text's lexemes, one set for each different reading by the tenant's languages."""
    rows = connection.execute(
        "SELECT * FROM headwater_search.query_readings(%s::text[], %s)", (list(snapshot.languages), text)
    ).fetchall()
    return [set(lexemes) for (lexemes,) in rows]
