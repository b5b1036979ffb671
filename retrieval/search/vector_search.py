"""Vector search: the chunks nearest to a query's vector, by HNSW graphs or by comparing every one.

A scope with many chunks has a graph of its own; the chunks of the others are compared one by one. So what a
search meets on its way are chunks that its reader may see, and no others. A graph is used where following it
costs less than comparing every chunk of its scope.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from pgvector import HalfVector
from psycopg import Connection
from pydantic import BaseModel, Field

from common.counts import counted
from retrieval.search.fusion import SearchCandidate, ranking_key
from retrieval.search.snapshot import SearchedScope, Snapshot
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
    """The most rows of a graph that a search meets before all chunks of the scope are compared instead."""


@dataclass(frozen=True)
class VectorSearchPlan:
    """The way in which a vector search found the nearest chunks, and the reason for it.

    Attributes:
        method: `exact` compared every chunk of the tenant, `graph` followed HNSW graphs, and `graph and
            exact` followed the graphs of some scopes and compared every chunk of the others.
        why: The reason in words, with the numbers that decided it.
        tenant_chunks: The number of the tenant's chunks in the snapshot.
        graph_chunks: The number of those that were searched by a graph.
        ef_search: pgvector's `hnsw.ef_search`: the number of candidates held while a graph is searched.
        asked: The number of chunks that were asked for.
        found: The number of chunks that were found; it is smaller only if the tenant has no more.
        settings: pgvector's settings for the largest graph.
    """

    method: Literal["exact", "graph", "graph and exact"]
    why: str
    tenant_chunks: int
    graph_chunks: int
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
    fit_only: bool = False,
) -> tuple[list[SearchCandidate], VectorSearchPlan]:
    """Returns the `depth` nearest chunks (or all, if there are fewer), nearest first, and the plan used.

    With `fit_only`, chunks of documents that are not fit for training are left out.
    """
    followed = [scope for scope in snapshot.scopes if _follows_graph(scope, depth, config)]
    # In a generation from before there were graphs of one scope, scopes have no keys.
    compared = [scope.key for scope in snapshot.scopes if scope not in followed] if followed else None
    plan = _plan(snapshot, followed, depth, config)
    found: list[SearchCandidate] = []
    for scope in followed:
        near = _search_graph(connection, snapshot, scope, vector, depth, config, fit_only)
        if len(near) < min(depth, scope.chunk_count):
            plan = replace(
                plan, why=f"{plan.why}; but a graph gave {len(near)}, so all its chunks were compared"
            )
            near = _compare_vectors(connection, snapshot, vector, depth, [scope.key], fit_only)
        found += near
    if compared is None or compared:
        found += _compare_vectors(connection, snapshot, vector, depth, compared, fit_only)
    found = sorted(found, key=ranking_key)[:depth]
    return found, replace(plan, found=len(found))


def scaled_ef_search(config: VectorSearchConfig, rows: int) -> int:
    """Returns pgvector's `hnsw.ef_search` for a graph of `rows` rows: the candidates that a search holds."""
    grown = config.ef_search * max(1.0, rows / _ROWS_OF_EF_SEARCH) ** (1 / 3)
    return min(round(grown), MAX_EF_SEARCH)


def search_all_vectors(
    connection: Connection[DatabaseRow], snapshot: Snapshot, vector: HalfVector, depth: int
) -> list[SearchCandidate]:
    """Returns the `depth` nearest chunks, nearest first, by comparing every chunk."""
    return sorted(_compare_vectors(connection, snapshot, vector, depth, None), key=ranking_key)


def _follows_graph(scope: SearchedScope, depth: int, config: VectorSearchConfig) -> bool:
    held = max(scaled_ef_search(config, scope.chunk_count), depth)
    return scope.has_graph and depth <= MAX_EF_SEARCH and scope.chunk_count > held * config.graph_row_cost


def _plan(
    snapshot: Snapshot, followed: list[SearchedScope], depth: int, config: VectorSearchConfig
) -> VectorSearchPlan:
    chunks, in_graphs = snapshot.chunk_count, sum(scope.chunk_count for scope in followed)
    largest = max((scope.chunk_count for scope in followed or snapshot.scopes), default=0)
    ef_search = max(scaled_ef_search(config, largest), min(depth, MAX_EF_SEARCH))
    if followed:
        method: Literal["exact", "graph", "graph and exact"] = (
            "graph" if in_graphs == chunks else "graph and exact"
        )
        why = (
            f"following a graph over {largest:,} chunks costs as much as comparing "
            f"{ef_search * config.graph_row_cost:.0f}"
        )
        return VectorSearchPlan(
            method, why, chunks, in_graphs, ef_search, depth,
            settings=_graph_settings(largest, depth, config).named(),
        )  # fmt: skip
    if depth > MAX_EF_SEARCH:
        why = f"the nearest {depth} are looked at, and a graph gives at most {MAX_EF_SEARCH}"
    elif not any(scope.has_graph for scope in snapshot.scopes):
        why = f"{counted(chunks, 'chunk')} without a graph: where there are so few, comparing takes no longer"
    else:
        why = (
            f"comparing {counted(chunks, 'chunk')} costs no more than the {ef_search} rows that a graph "
            "holds ready"
        )
    return VectorSearchPlan("exact", why, chunks, 0, ef_search, depth)


class _GraphSettings(NamedTuple):
    ef_search: int
    max_scan_tuples: int

    def named(self) -> dict[str, str]:
        return {
            "hnsw.ef_search": str(self.ef_search),
            "hnsw.iterative_scan": "relaxed_order",
            "hnsw.max_scan_tuples": str(self.max_scan_tuples),
        }


def _graph_settings(chunk_count: int, depth: int, config: VectorSearchConfig) -> _GraphSettings:
    ef_search, most = max(scaled_ef_search(config, chunk_count), depth), config.max_scan_tuples
    if config.graph_row_cost:
        # Comparing every chunk would be done by then.
        most = min(most, max(ef_search, round(chunk_count / config.graph_row_cost)))
    return _GraphSettings(ef_search, most)


def _search_graph(
    connection: Connection[DatabaseRow],
    snapshot: Snapshot,
    scope: SearchedScope,
    vector: HalfVector,
    depth: int,
    config: VectorSearchConfig,
    fit_only: bool,
) -> list[SearchCandidate]:
    settings = _graph_settings(scope.chunk_count, depth, config)
    rows = connection.execute(
        "SELECT * FROM headwater_search.nearest_by_graph(%s, %s, %s, %s::halfvec, %s, %s, %s, %s)",
        (
            snapshot.generation,
            snapshot.epoch,
            scope.key,
            vector,
            depth,
            settings.ef_search,
            settings.max_scan_tuples,
            fit_only,
        ),
    ).fetchall()
    return [SearchCandidate(*row) for row in rows]


def _compare_vectors(
    connection: Connection[DatabaseRow],
    snapshot: Snapshot,
    vector: HalfVector,
    depth: int,
    scope_keys: list[int] | None,
    fit_only: bool = False,
) -> list[SearchCandidate]:
    rows = connection.execute(
        "SELECT * FROM headwater_search.nearest_by_comparison(%s, %s, %s::bigint[], %s::halfvec, %s, %s)",
        (snapshot.generation, snapshot.epoch, scope_keys, vector, depth, fit_only),
    ).fetchall()
    return [SearchCandidate(*row) for row in rows]
