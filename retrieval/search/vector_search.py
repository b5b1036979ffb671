"""Vector search: the chunks nearest to a query's vector, by the HNSW graph or by comparing every one.

One graph holds the rows of all tenants, and a search follows it until it has met enough rows of its tenant.
Following the graph is expensive if the tenant's share of the rows is small; comparing all rows of the tenant
is expensive if they are many. The cheaper way is chosen by an estimate of both costs. A graph per tenant was
not worth its cost: see docs/scaling.md.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from pgvector import HalfVector
from psycopg import Connection
from pydantic import BaseModel, Field

from retrieval.search.fusion import SearchCandidate
from retrieval.search.snapshot import Snapshot
from retrieval.store.postgres import DatabaseRow

MAX_EF_SEARCH = 1000
"""pgvector's own limit; it silently cuts a LIMIT above `ef_search`."""


_ROWS_OF_EF_SEARCH = 100_000


class VectorSearchConfig(BaseModel):
    """The settings of vector search."""

    graph_row_cost: float = Field(default=10.0, ge=0)
    """The cost of a row that the HNSW search meets, in rows compared one by one; 0 always uses the graph."""
    ef_search: int = Field(default=350, ge=1, le=MAX_EF_SEARCH)
    """Candidates that the HNSW search holds in a graph of up to 100,000 rows, never fewer than are asked for.
    In a larger graph, they grow with the cube root of its rows."""
    max_scan_tuples: int = Field(default=100_000, ge=1)
    """The most rows that the HNSW search meets before all of the tenant's rows are compared instead."""


@dataclass(frozen=True)
class VectorSearchPlan:
    """The way in which a vector search found the nearest chunks, and the reason for it.

    Attributes:
        method: `exact` compared every chunk of the tenant, `graph` followed the HNSW graph, and `graph, then
            exact` did both, because the graph gave too few.
        why: The reason in words, with the numbers that decided it.
        tenant_chunks: The number of the tenant's chunks in the snapshot.
        graph_rows: The number of rows in the graph, of all tenants and epochs.
        ef_search: pgvector's `hnsw.ef_search`: the number of candidates held while the graph is searched.
        asked: The number of chunks that were asked for.
        found: The number of chunks that were found; it is smaller only if the tenant has no more.
        settings: pgvector's settings, as read back from the database.
    """

    method: Literal["exact", "graph", "graph, then exact"]
    why: str
    tenant_chunks: int
    graph_rows: int
    ef_search: int
    asked: int
    found: int = 0
    settings: dict[str, str] = field(default_factory=dict)


def search_nearest_vectors(
    connection: Connection[DatabaseRow],
    snapshot: Snapshot,
    vector: HalfVector,
    depth: int,
    config: VectorSearchConfig,
) -> tuple[list[SearchCandidate], VectorSearchPlan]:
    """Returns the `depth` nearest chunks (or all, if there are fewer), nearest first, and the plan used."""
    plan = _plan(snapshot, depth, config)
    if plan.method == "graph":
        settings = _set(connection, snapshot, plan.ef_search, config)
        found = _by_graph(connection, snapshot, vector, depth)
        connection.execute("SET LOCAL enable_sort = on")
        plan = replace(plan, settings=settings)
        if len(found) < min(depth, snapshot.chunk_count):
            why = f"{plan.why}; but it gave {len(found)}, so every chunk was compared"
            plan = replace(plan, method="graph, then exact", why=why)
    if plan.method != "graph":
        found = search_all_vectors(connection, snapshot, vector, depth)
    return found, replace(plan, found=len(found))


def scaled_ef_search(config: VectorSearchConfig, rows: int) -> int:
    """Returns pgvector's `hnsw.ef_search` for a graph of `rows` rows: the candidates that a search holds."""
    grown = config.ef_search * max(1.0, rows / _ROWS_OF_EF_SEARCH) ** (1 / 3)
    return min(round(grown), MAX_EF_SEARCH)


def _plan(snapshot: Snapshot, depth: int, config: VectorSearchConfig) -> VectorSearchPlan:
    chunks, rows = snapshot.chunk_count, max(snapshot.graph_rows, snapshot.chunk_count)
    ef_search = max(scaled_ef_search(config, rows), depth)
    met = max(ef_search, math.ceil(depth * rows / chunks)) if chunks else 0
    cost = met * config.graph_row_cost
    method: Literal["exact", "graph"] = "exact" if chunks <= cost else "graph"
    if depth > MAX_EF_SEARCH:
        method, why = "exact", f"{depth} are asked for, and the graph gives at most {MAX_EF_SEARCH}"
    elif chunks <= ef_search * config.graph_row_cost:
        why = f"comparing {chunks} chunks costs no more than the {ef_search} rows that the graph holds ready"
    else:
        why = (
            f"the tenant has {chunks} of {rows} rows ({chunks / rows:.1%}), so the graph meets about {met} "
            f"for {depth} of its own, which cost as much as comparing {cost:.0f}"
        )
    return VectorSearchPlan(method, why, chunks, rows, ef_search, depth)


def _set(
    connection: Connection[DatabaseRow], snapshot: Snapshot, ef_search: int, config: VectorSearchConfig
) -> dict[str, str]:
    """Makes pgvector search until there are enough rows, and reads back the settings that it took.

    Raises:
        RuntimeError: It took other settings, and would silently return fewer rows.
    """
    most = config.max_scan_tuples
    if config.graph_row_cost:
        # Comparing every chunk would be done by then.
        most = min(most, max(ef_search, round(snapshot.chunk_count / config.graph_row_cost)))
    wanted = {
        "hnsw.ef_search": str(ef_search),
        "hnsw.iterative_scan": "relaxed_order",
        "hnsw.max_scan_tuples": str(most),
        # PostgreSQL does not know which tenant asks and plans for an average one: it would sort all rows of a
        # large tenant rather than use the graph.
        "enable_sort": "off",
    }
    each = ", ".join(["set_config(%s, %s, true)"] * len(wanted))
    row = connection.execute(f"SELECT {each}", [text for pair in wanted.items() for text in pair]).fetchone()
    found = dict(zip(wanted, row or (), strict=False))
    refused = [name for name, value in wanted.items() if found.get(name) != value]
    if refused:
        raise RuntimeError(
            f"PostgreSQL did not take {', '.join(refused)}: it would return fewer rows unasked"
        )
    return found


def _by_graph(
    connection: Connection[DatabaseRow], snapshot: Snapshot, vector: HalfVector, depth: int
) -> list[SearchCandidate]:
    indexed = f"embedding::halfvec({snapshot.dimension:d})"
    # Relaxed order returns rows nearly sorted; the outer query sorts them.
    rows = connection.execute(
        f"""
        WITH near AS MATERIALIZED (
            SELECT chunk_no, chunk_id, {indexed} <=> %(vector)s::halfvec AS distance
            FROM headwater.chunks WHERE {snapshot.visible}
            ORDER BY {indexed} <=> %(vector)s::halfvec LIMIT %(depth)s
        )
        SELECT chunk_no, chunk_id, 1 - distance FROM near ORDER BY distance, chunk_id
        """,
        {"vector": vector, "depth": depth},
    ).fetchall()
    return [SearchCandidate(*row) for row in rows]


def search_all_vectors(
    connection: Connection[DatabaseRow], snapshot: Snapshot, vector: HalfVector, depth: int
) -> list[SearchCandidate]:
    """Returns the `depth` nearest chunks, nearest first, by comparing every chunk."""
    # Without the cast to the dimension this is not the expression of the HNSW index, so every row is
    # compared.
    rows = connection.execute(
        f"""
        SELECT chunk_no, chunk_id, 1 - distance FROM (
            SELECT chunk_no, chunk_id, embedding <=> %(vector)s::halfvec AS distance
            FROM headwater.chunks WHERE {snapshot.visible}
            ORDER BY distance, chunk_id LIMIT %(depth)s
        ) near ORDER BY distance, chunk_id
        """,
        {"vector": vector, "depth": depth},
    ).fetchall()
    return [SearchCandidate(*row) for row in rows]
