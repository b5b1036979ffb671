"""The chunks whose vectors lie nearest to a query's: by the HNSW graph, or by comparing every one."""

from collections.abc import Sequence
from typing import Protocol

from psycopg import Connection
from pydantic import BaseModel, Field

from retrieval.fusion import Candidate
from retrieval.postgres import Row

LARGEST_EF_SEARCH = 1000
"""pgvector's own limit; a LIMIT above `ef_search` is cut to it without a word."""


class NearestConfig(BaseModel):
    """How near vectors are found."""

    exact_below: int = Field(default=20_000, ge=0)
    """A tenant with fewer chunks is compared one by one: exact, and quicker than a filtered graph."""
    ef_search: int = Field(default=200, ge=1, le=LARGEST_EF_SEARCH)
    """Candidates the HNSW search holds; never fewer than are asked for."""
    max_scan_tuples: int = Field(default=100_000, ge=1)
    """How far the HNSW search goes on for a tenant's rows before every one of them is compared instead."""


class Moment(Protocol):
    """What one search reads from start to end, as far as vectors are concerned."""

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        ...

    @property
    def chunk_count(self) -> int:
        """Chunks of the tenant."""
        ...

    @property
    def visible(self) -> str:
        """The condition on a row of `headwater.chunks`."""
        ...


def nearest(
    connection: Connection[Row], moment: Moment, literal: str, depth: int, config: NearestConfig
) -> list[Candidate]:
    """The `depth` nearest chunks, or all there are; nearest first."""
    if moment.chunk_count < config.exact_below:
        return exact(connection, moment, literal, depth)
    ef_search = max(config.ef_search, depth)
    wanted = {
        "hnsw.ef_search": str(ef_search),
        "hnsw.iterative_scan": "relaxed_order",
        "hnsw.max_scan_tuples": str(config.max_scan_tuples),
    }
    for name, value in wanted.items():
        connection.execute("SELECT set_config(%s, %s, true)", (name, value))
    found = {name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in wanted}
    refused = [name for name, row in found.items() if row != (wanted[name],)]
    if refused:
        raise RuntimeError(f"pgvector did not take {', '.join(refused)}: it would return fewer rows unasked")
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
        return exact(connection, moment, literal, depth)
    return [Candidate(*row) for row in rows]


def exact(connection: Connection[Row], moment: Moment, literal: str, depth: int) -> list[Candidate]:
    """The `depth` nearest chunks by comparing every one; nearest first."""
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


def similarities(
    connection: Connection[Row], moment: Moment, literal: str, chunk_nos: Sequence[int]
) -> dict[int, float]:
    """The cosine similarity of each of some chunks."""
    rows = connection.execute(
        "SELECT chunk_no, 1 - (embedding <=> %(vector)s::halfvec) FROM headwater.chunks "
        f"WHERE chunk_no = ANY(%(chunk_nos)s) AND {moment.visible}",
        {"vector": literal, "chunk_nos": list(chunk_nos)},
    ).fetchall()
    return dict(rows)
