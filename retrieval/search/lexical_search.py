"""Lexical search: the chunks that hold a query's words, ranked by BM25 over the postings."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pgvector import HalfVector
from psycopg import Connection
from psycopg.types.json import Jsonb
from pydantic import BaseModel, Field

from retrieval.index.postings import POSTINGS_PER_BLOCK
from retrieval.search.filters import query_readings, read_query_filters
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
        self._filters = read_query_filters(connection, snapshot, query)
        self._phrase_readings = [query_readings(connection, snapshot, phrase) for phrase in query.phrases]
        # Without a mean length there are no postings, so its value does not matter.
        slope = config.bm25_k1 * config.bm25_b / (snapshot.mean_length or 1.0)
        self._length_weights = [config.bm25_k1 * (1 - config.bm25_b), slope]
        self._field_weights = [config.title_weight, config.heading_weight, config.text_weight]

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
        dearer = _BLOCKS_PER_LOOKUP * POSTINGS_PER_BLOCK * (pool + len(also))
        scanned = [word for word in common if word.chunk_count <= dearer]
        looked_up = common[len(scanned) :]
        # Only a word that alone exceeds the limit is not read in full.
        most = self._config.max_postings if essential[0].chunk_count > self._config.max_postings else None
        rows = self._connection.execute(
            """
            SELECT chunk_no, chunk_id, score, similarity FROM headwater_search.rank_by_words(
                %(generation)s, %(epoch)s, %(lexemes)s::text[], %(weights)s::float8[], %(most)s,
                %(scanned)s::text[], %(scanned_weights)s::float8[],
                %(looked_up)s::text[], %(looked_up_weights)s::float8[],
                %(field_weights)s::float8[], %(length_weights)s::float8[], %(phrase_lexemes)s,
                %(phrases)s::text[], %(without_phrases)s::text[], %(without_lexemes)s::text[],
                %(pool)s, %(best)s, %(depth)s, %(also)s::integer[], %(vector)s::halfvec, %(fit_only)s
            )
            """,
            {
                "generation": snapshot.generation,
                "epoch": snapshot.epoch,
                "lexemes": [word.lexeme for word in essential],
                "weights": [word.weight for word in essential],
                "most": most,
                "scanned": [word.lexeme for word in scanned],
                "scanned_weights": [word.weight for word in scanned],
                "looked_up": [word.lexeme for word in looked_up],
                "looked_up_weights": [word.weight for word in looked_up],
                "field_weights": self._field_weights,
                "length_weights": self._length_weights,
                "phrase_lexemes": self._phrase_lexemes({word.lexeme for word in essential}),
                "phrases": self._filters.phrases,
                "without_phrases": self._filters.without_phrases,
                "without_lexemes": self._filters.without_lexemes,
                "pool": pool,
                # Without common words, candidates that are not valid would leave places open.
                "best": depth if common and pool < _ALL else _ALL,
                "depth": depth,
                "also": list(also),
                "vector": vector,
                "fit_only": self._query.fit_only,
            },
        ).fetchall()
        best = [SearchCandidate(*row[:3]) for row in rows if row[1] is not None]
        best.sort(key=ranking_key)
        scores = {chunk_no: score for chunk_no, chunk_id, score, _ in rows if chunk_id is None}
        similarities = {row[0]: row[3] for row in rows if row[3] is not None}
        found = scores.pop(None) or 0
        more = found > pool or (found > depth and bool(common))
        return LexicalRanking(best[:depth], scores, similarities), more

    def _phrase_lexemes(self, read: set[str]) -> Jsonb | None:
        """Returns each phrase's readings, as far as their words are read in full; None without a phrase.

        So chunks that can't hold a phrase are excluded before the best candidates are chosen.
        """
        phrases = [[sorted(reading & read) for reading in readings] for readings in self._phrase_readings]
        return Jsonb([readings for readings in phrases if readings]) if any(phrases) else None


def _words(
    connection: Connection[DatabaseRow], snapshot: Snapshot, words: str, config: LexicalConfig
) -> list[_Word]:
    """Returns the query's lexemes that the tenant's chunks hold, rarest first.

    A lexeme's rarity is measured among the chunks of the languages that read the query that way. `the` is a
    stop word in English: it must not look rare because it is found in the one chunk of an unknown language.
    """
    rows = connection.execute(
        "SELECT lexeme, asked, among, chunk_count "
        "FROM headwater_search.query_lexemes(%s, %s, %s::text[], %s::bigint[], %s, %s)",
        (
            snapshot.generation,
            snapshot.epoch,
            list(snapshot.languages),
            list(snapshot.languages.values()),
            words,
            config.max_words,
        ),
    ).fetchall()
    found = []
    for lexeme, asked, among, holding in rows:
        idf = math.log1p((max(among - holding, 0) + 0.5) / (holding + 0.5))
        [weight] = identifier_weights([lexeme], config)
        found.append(_Word(lexeme, asked * weight * idf, holding))
    return found


def identifier_weights(lexemes: Sequence[str], config: LexicalConfig) -> list[float]:
    """Returns how much each lexeme counts for what it is: an identifier more than a word."""
    return [config.identifier_weight if _IDENTIFIER.search(each) else 1.0 for each in lexemes]


def _affordable(words: Sequence[_Word], max_postings: int) -> int:
    """Returns how many words, from the rarest on, have together at most `max_postings`; at least one."""
    total = 0
    for place, word in enumerate(words):
        total += word.chunk_count
        if place and total > max_postings:
            return place
    return len(words)
