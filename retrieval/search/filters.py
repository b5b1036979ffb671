"""What a query demands of a chunk beside its words, phrases and exclusions, in plain SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from psycopg import Connection

from retrieval.index.postings import held_by_chunk
from retrieval.search.fusion import Candidate
from retrieval.search.query import Query, literal
from retrieval.store.postgres import Row


class Moment(Protocol):
    """What one search reads from start to end, as far as what a chunk holds is concerned."""

    @property
    def generation(self) -> int:
        """Which model and chunker."""
        ...

    @property
    def languages(self) -> dict[str, int]:
        """Those of the tenant's chunks, and how many are in each."""
        ...

    @property
    def visible(self) -> str:
        """The condition on a row of the index."""
        ...


def wanted(
    connection: Connection[Row], moment: Moment, query: Query, candidates: Sequence[Candidate]
) -> list[Candidate]:
    """Those of another ranking's candidates that hold the query's phrases and nothing it leaves out."""
    demands = demanded(connection, moment, query, set())
    rows = connection.execute(
        f"SELECT chunk_no FROM headwater.chunks c WHERE chunk_no = ANY(%(candidates)s) AND {moment.visible} "
        f"{demands.tested}",
        demands.arguments | {"candidates": [candidate.chunk_no for candidate in candidates]},
    ).fetchall()
    kept = {row[0] for row in rows}
    return [candidate for candidate in candidates if candidate.chunk_no in kept]


@dataclass(frozen=True)
class Demands:
    """What a chunk must meet beside its score, as SQL.

    Attributes:
        held: On the lexemes of one chunk, grouped: a HAVING clause or nothing. Needed for a phrase's chunk to
            be a candidate at all, where not every chunk that was found is looked at.
        tested: On a row `c` of `headwater.chunks`, to be added to a WHERE clause.
        arguments: Of both.
    """

    held: str
    tested: str
    arguments: dict[str, Any]


def demanded(connection: Connection[Row], moment: Moment, query: Query, read: set[str]) -> Demands:
    """A query's phrases and exclusions; `read` are the lexemes whose postings are read in full."""
    arguments: dict[str, Any] = {}
    held, tested = [], []
    passage = "concat_ws(E'\\n', c.title, c.heading, c.text)"
    for number, phrase in enumerate(query.phrases):
        name = f"phrase_{number}"
        arguments[name] = literal(phrase)
        tested.append(f"AND {passage} ~* %({name})s")
        readings = []
        for place, lexemes in enumerate(_lexemes(connection, moment, phrase) if read else []):
            arguments[f"{name}_{place}"] = sorted(lexemes & read)
            readings.append(f"array_agg(lexeme) @> %({name}_{place})s::text[]")
        if readings:
            held.append(f"({' OR '.join(readings)})")
    for number, phrase in enumerate(query.without_phrases):
        arguments[f"without_{number}"] = literal(phrase)
        tested.append(f"AND {passage} !~* %(without_{number})s")
    unwanted = [_lexemes(connection, moment, word) for word in query.without_words]
    if unwanted:
        arguments["without"] = sorted(set().union(*(each for readings in unwanted for each in readings)))
        tested.append(
            "AND NOT EXISTS (SELECT FROM unnest(%(without)s::text[]) AS words (lexeme) "
            f"CROSS JOIN LATERAL ({held_by_chunk(moment.generation)}) held)"
        )
    return Demands(f"HAVING {' AND '.join(held)}" if held else "", " ".join(tested), arguments)


def _lexemes(connection: Connection[Row], moment: Moment, text: str) -> list[set[str]]:
    """A text's lexemes, once for each language of the tenant that reads it differently."""
    rows = connection.execute(
        "SELECT DISTINCT (SELECT coalesce(array_agg(lexeme ORDER BY lexeme), '{}') "
        "FROM headwater.terms(language, %s, true)) FROM unnest(%s::text[]) AS language",
        (text, list(moment.languages)),
    ).fetchall()
    return [set(lexemes) for (lexemes,) in rows]
