"""The snapshot that a search reads from its first statement to its last: one epoch of one generation."""

from dataclasses import dataclass

from psycopg import Connection

from retrieval.index.types import IndexPoint, UnknownIndexRelease
from retrieval.store.postgres import DatabaseRow


class NoLiveSnapshot(LookupError):
    """No release is live yet."""


@dataclass(frozen=True)
class Snapshot:
    """The epoch of the index that one search reads, with the counts of the tenant's chunks in it.

    Attributes:
        generation: The generation.
        epoch: The epoch within it.
        dimension: The length of a vector.
        model_digest: The model that made the vectors.
        graph_rows: Rows in the HNSW graph, of all tenants and epochs, as last counted; -1 if never counted.
        languages: The number of the tenant's chunks by language.
        chunk_count: The number of the tenant's chunks.
        mean_length: Lexemes per chunk of the tenant, on average.
    """

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
        """The SQL condition that selects the snapshot's rows; literals let the planner pick a partition."""
        return (
            f"generation = {self.generation:d} AND valid_from <= {self.epoch:d} "
            f"AND (valid_to IS NULL OR valid_to > {self.epoch:d})"
        )


def read_snapshot(connection: Connection[DatabaseRow], at: IndexPoint | None) -> Snapshot:
    """Returns the snapshot of a release or state, or of the live release if `at` is None.

    Raises:
        NoLiveSnapshot: `at` is None and nothing is live.
        UnknownIndexRelease: `at` is neither a kept release nor the newest epoch of a generation.
    """
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
        raise NoLiveSnapshot("nothing is released yet: run the pipeline, then search")
    if not rows and at:
        raise UnknownIndexRelease(
            f"generation {at.generation}, epoch {at.epoch} can not be read: it is neither a kept release nor "
            "the newest state of its generation"
        )
    languages = {language: count for *_, language, count, _ in rows if language is not None}
    chunk_count = sum(languages.values())
    length = sum(length or 0 for *_, length in rows)
    # The mean is only divided by where a posting matched, and then it is above zero.
    mean_length = length / chunk_count if chunk_count else 0.0
    generation, epoch, dimension, model_digest, graph_rows = rows[0][:5]
    return Snapshot(
        generation, epoch, dimension, model_digest, graph_rows, languages, chunk_count, mean_length
    )
