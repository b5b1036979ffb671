"""The snapshot that a search reads from its first statement to its last: one epoch of one generation."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from psycopg import Connection

from retrieval.index.types import IndexPoint, UnknownIndexRelease
from retrieval.store.postgres import DatabaseRow


class NoLiveSnapshot(LookupError):
    """No release is live yet."""


class SearchedScope(NamedTuple):
    """The chunks that the same users may read: everybody of the tenant, or some groups.

    Attributes:
        key: The number that stands for the scope in the index.
        has_graph: Whether there is an HNSW graph of its chunks.
        chunk_count: The number of its chunks.
    """

    key: int
    has_graph: bool
    chunk_count: int


@dataclass(frozen=True)
class Snapshot:
    """The epoch of the index that one search reads, with the counts of the tenant's chunks in it.

    Attributes:
        generation: The generation.
        epoch: The epoch within it.
        dimension: The length of a vector.
        model_digest: The model that made the vectors.
        scopes: The scopes of the tenant's chunks, with their numbers.
        languages: The number of the tenant's chunks by language.
        chunk_count: The number of the tenant's chunks.
        mean_length: Lexemes per chunk of the tenant, on average.
    """

    generation: int
    epoch: int
    dimension: int
    model_digest: str
    scopes: tuple[SearchedScope, ...]
    languages: dict[str, int]
    chunk_count: int
    mean_length: float


def read_snapshot(connection: Connection[DatabaseRow], at: IndexPoint | None) -> Snapshot:
    """Returns the snapshot of a release or state, or of the live release if `at` is None.

    Raises:
        NoLiveSnapshot: `at` is None and nothing is live.
        UnknownIndexRelease: `at` is neither a kept release nor the newest epoch of a generation.
    """
    rows = connection.execute(
        "SELECT * FROM headwater_search.read_snapshot(%s, %s)",
        (at.generation, at.epoch) if at else (None, None),
    ).fetchall()
    if not rows and at is None:
        raise NoLiveSnapshot("nothing is released yet: run the pipeline, then search")
    if not rows and at:
        raise UnknownIndexRelease(
            f"generation {at.generation}, epoch {at.epoch} can not be read: it is neither a kept release nor "
            "the newest state of its generation"
        )
    scopes: Counter[tuple[int, bool]] = Counter()
    languages: Counter[str] = Counter()
    length = 0
    for *_, scope_key, has_graph, language, chunk_count, total_length in rows:
        if language is not None:
            scopes[scope_key, has_graph] += chunk_count
            languages[language] += chunk_count
            length += total_length
    chunk_count = languages.total()
    generation, epoch, dimension, model_digest = rows[0][:4]
    return Snapshot(
        generation,
        epoch,
        dimension,
        model_digest,
        tuple(SearchedScope(*scope, count) for scope, count in scopes.items()),
        dict(languages),
        chunk_count,
        # The mean is only divided by where a posting matched, and then it is above zero.
        length / chunk_count if chunk_count else 0.0,
    )
