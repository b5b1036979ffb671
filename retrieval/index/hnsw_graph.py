"""Creates a generation's HNSW graphs, one per scope with many chunks, and rebuilds those with deleted rows.

A graph holds the chunks of one scope alone, so that what a search meets on its way says nothing of the chunks
that its reader may not see. The chunks of a smaller scope are compared one by one, which takes no longer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier, Literal
from pydantic import BaseModel, Field

from common.progress import Progress, polled_progress
from retrieval.index.partitions import partition_name
from retrieval.store.postgres import DatabaseRow

_EMPTY_GRAPH_BYTES = 1 << 20
"""A smaller graph is not worth rebuilding."""
_LARGE_GRAPH_ROWS = 10_000
_MAX_BLOAT = 0.2
"""What a graph may hold beyond its rows before it is rebuilt, as a share of them."""
_PAGE_BYTES = 8160

_CREATION = "SELECT blocks_done, blocks_total FROM pg_stat_progress_create_index WHERE pid = %s"


class HnswGraphConfig(BaseModel):
    """Which scopes get an HNSW graph, and how it is built."""

    hnsw_m: int = Field(default=16, ge=2, le=100)
    """Neighbours per vector in the HNSW graph; more neighbours find more and take more memory."""
    hnsw_ef_construction: int = Field(default=128, ge=4, le=1000)
    """Candidates that are compared while a vector is put into the graph; at least twice `hnsw_m`."""
    graph_min_chunks: int = Field(default=10_000, ge=1)
    """Chunks from which on the readers of the same rows (a tenant, or groups in it) get an HNSW graph."""


def create_hnsw_graphs(
    connection: Connection[DatabaseRow], generation: int, dimension: int, config: HnswGraphConfig
) -> None:
    """Creates the graphs of a loaded generation that no reader sees yet, the longest part of a build."""
    for scope_key in _large_scopes(connection, generation, config):
        with _said_progress(connection):
            connection.execute(_create_index(generation, scope_key, dimension, config, concurrently=False))
        _insert_graph(connection, generation, scope_key)


def create_missing_hnsw_graphs(
    connection: Connection[DatabaseRow], generation: int, dimension: int, config: HnswGraphConfig
) -> int:
    """Creates the graphs of scopes that have grown large; readers and writers are not blocked.

    Args:
        connection: The owner's connection, outside a transaction.
        generation: The number of the generation.
        dimension: The length of a vector.
        config: Which scopes get a graph, and how it is built.

    Returns:
        How many were created.
    """
    missing = _large_scopes(connection, generation, config)
    for scope_key in missing:
        # A creation that was interrupted leaves an index that is not valid.
        name = Identifier("headwater", _index_name(generation, scope_key))
        connection.execute(SQL("DROP INDEX IF EXISTS {}").format(name))
        with _said_progress(connection):
            connection.execute(_create_index(generation, scope_key, dimension, config, concurrently=True))
        _insert_graph(connection, generation, scope_key)
    return len(missing)


def clean_hnsw_graphs(
    connection: Connection[DatabaseRow], generation: int, dimension: int, config: HnswGraphConfig
) -> int:
    """Removes deleted chunks from a generation's indexes, and rebuilds large graphs that hold too many.

    To remove a row from an HNSW graph, VACUUM finds new neighbours for every row that had it as a neighbour.
    If more than one row in a few hundred was deleted, that takes longer than rebuilding the graph. So deleted
    rows stay in a large graph, where no search returns them, until there are so many that they slow down
    searches.

    Args:
        connection: The owner's connection, outside a transaction.
        generation: The number of the generation.
        dimension: The length of a vector; a number takes two bytes.
        config: How the graphs were built.

    Returns:
        How many graphs were rebuilt; readers are not blocked.
    """
    # pgvector's hnsw.h: a page of 8 KiB holds whole elements: a vector, its neighbours (six bytes each, twice
    # as many on the lowest layer) and 96 bytes more.
    element_bytes = 2 * dimension + 12 * config.hnsw_m + 96
    pages = 1 / (_PAGE_BYTES // element_bytes) if element_bytes <= _PAGE_BYTES else 2
    graphs = _graphs(connection, generation)
    bloated = [
        graph
        for graph in graphs
        if graph.size_bytes > (1 + _MAX_BLOAT) * graph.rows * pages * 8192 + _EMPTY_GRAPH_BYTES
    ]
    for graph in bloated:
        with _said_progress(connection):
            connection.execute(SQL("REINDEX INDEX CONCURRENTLY {}").format(SQL(graph.name)))
    if bloated or all(graph.rows < _LARGE_GRAPH_ROWS for graph in graphs):
        connection.execute(SQL("VACUUM (INDEX_CLEANUP ON) {}").format(partition_name("chunks", generation)))
    return len(bloated)


def _large_scopes(connection: Connection[DatabaseRow], generation: int, config: HnswGraphConfig) -> list[int]:
    """Returns the keys of the scopes that have enough chunks for a graph, and none yet."""
    # Counted from the statistics, not by a pass over all chunks after every change. A generation from before
    # there were graphs of one scope has no keys.
    rows = connection.execute(
        SQL(
            "SELECT scope_key FROM ("
            "SELECT DISTINCT ON (scope, language) scope, chunk_count FROM headwater.statistics "
            "WHERE generation = {generation} ORDER BY scope, language, epoch DESC"
            ") newest JOIN headwater.scopes k USING (scope) "
            "WHERE scope_key NOT IN (SELECT scope_key FROM headwater.graphs WHERE generation = {generation}) "
            "GROUP BY k.scope, k.scope_key HAVING sum(chunk_count) >= {most} AND EXISTS ("
            "SELECT FROM {chunks} c WHERE c.scope = k.scope AND c.scope_key = k.scope_key) ORDER BY scope_key"
        ).format(
            chunks=partition_name("chunks", generation),
            generation=Literal(generation),
            most=Literal(config.graph_min_chunks),
        )
    ).fetchall()
    return [row[0] for row in rows]


@contextmanager
def _said_progress(connection: Connection[DatabaseRow]) -> Iterator[None]:
    """Says how far the creation of an index by a connection is, asked by another one."""
    progress, other = Progress("blocks of chunks in an HNSW graph"), list[Connection[DatabaseRow]]()

    def poll() -> None:
        if not other:
            other.append(
                psycopg.connect(
                    connection.info.dsn, password=connection.info.password or None, autocommit=True
                )
            )
        row = other[0].execute(_CREATION, (connection.info.backend_pid,)).fetchone()
        if row is not None and row[1]:
            progress.total = row[1]
            progress.reach(row[0])

    try:
        with polled_progress(poll):
            yield
    finally:
        for each in other:
            each.close()


def _index_name(generation: int, scope_key: int) -> str:
    return f"chunks_g{generation}_graph_{scope_key}"


def _create_index(
    generation: int, scope_key: int, dimension: int, config: HnswGraphConfig, concurrently: bool
) -> Composed:
    return SQL(
        "CREATE INDEX {concurrently} {name} ON {chunks} "
        "USING hnsw ((embedding::halfvec({dimension})) halfvec_cosine_ops) "
        "WITH (m = {m}, ef_construction = {ef_construction}) WHERE scope_key = {scope_key}::bigint"
    ).format(
        concurrently=SQL("CONCURRENTLY" if concurrently else ""),
        name=Identifier(_index_name(generation, scope_key)),
        chunks=partition_name("chunks", generation),
        dimension=Literal(dimension),
        m=Literal(config.hnsw_m),
        ef_construction=Literal(config.hnsw_ef_construction),
        scope_key=Literal(str(scope_key)),
    )


def _insert_graph(connection: Connection[DatabaseRow], generation: int, scope_key: int) -> None:
    connection.execute(
        "INSERT INTO headwater.graphs (generation, scope_key) VALUES (%s, %s)", (generation, scope_key)
    )


class _Graph(NamedTuple):
    name: str
    size_bytes: int
    rows: int


def _graphs(connection: Connection[DatabaseRow], generation: int) -> list[_Graph]:
    """Returns a generation's HNSW graphs; their rows are as the last VACUUM counted them."""
    rows = connection.execute(
        "SELECT c.oid::regclass::text, pg_relation_size(c.oid), greatest(c.reltuples, 0)::bigint "
        "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
        "WHERE a.amname = 'hnsw' AND i.indrelid = %s::regclass",
        (partition_name("chunks", generation).as_string(connection),),
    ).fetchall()
    return [_Graph(*row) for row in rows]
