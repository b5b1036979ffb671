"""Creates the HNSW graph over a generation's vectors, and rebuilds it when it holds too many deleted rows."""

from typing import NamedTuple

from psycopg import Connection
from psycopg.sql import SQL, Literal

from retrieval.index.partitions import partition_name
from retrieval.store.postgres import DatabaseRow

_EMPTY_GRAPH_BYTES = 1 << 20
"""A smaller graph is not worth rebuilding."""
_LARGE_GRAPH_ROWS = 10_000
_MAX_BLOAT = 0.2
"""What a graph may hold beyond its rows before it is rebuilt, as a share of them."""
_PAGE_BYTES = 8160


def create_hnsw_graph(
    connection: Connection[DatabaseRow],
    generation: int,
    dimension: int,
    hnsw_m: int,
    hnsw_ef_construction: int,
) -> None:
    """Creates the HNSW graph of a loaded generation, which is by far the longest part of a build."""
    connection.execute(
        SQL(
            "CREATE INDEX ON {chunks} USING hnsw ((embedding::halfvec({dimension})) halfvec_cosine_ops) "
            "WITH (m = {m}, ef_construction = {ef_construction})"
        ).format(
            chunks=partition_name("chunks", generation),
            dimension=Literal(dimension),
            m=Literal(hnsw_m),
            ef_construction=Literal(hnsw_ef_construction),
        )
    )


def clean_hnsw_graph(
    connection: Connection[DatabaseRow], generation: int, dimension: int, hnsw_m: int
) -> bool:
    """Removes deleted chunks from a generation's indexes, and rebuilds a large HNSW graph that has too many.

    To remove a row from an HNSW graph, VACUUM finds new neighbours for every row that had it as a neighbour.
    If more than one row in a few hundred was deleted, that takes longer than rebuilding the graph. So deleted
    rows stay in a large graph, where no search returns them, until there are so many that they slow down
    searches.

    Args:
        connection: The owner's connection, outside a transaction.
        generation: The number of the generation.
        dimension: The length of a vector; a number takes two bytes.
        hnsw_m: Neighbours per vector and layer, twice as many on the lowest layer; a neighbour takes six
            bytes.

    Returns:
        Whether the graph was rebuilt; readers are not blocked.
    """
    graph = _graph(connection, generation)
    if graph is None:
        return False
    # pgvector's hnsw.h: a page of 8 KiB holds whole elements: a vector, its neighbours and 96 bytes more.
    element_bytes = 2 * dimension + 12 * hnsw_m + 96
    pages = 1 / (_PAGE_BYTES // element_bytes) if element_bytes <= _PAGE_BYTES else 2
    bloated = graph.size_bytes > (1 + _MAX_BLOAT) * graph.rows * pages * 8192 + _EMPTY_GRAPH_BYTES
    if bloated:
        connection.execute(SQL("REINDEX INDEX CONCURRENTLY {}").format(SQL(graph.name)))
    if bloated or graph.rows < _LARGE_GRAPH_ROWS:
        connection.execute(SQL("VACUUM (INDEX_CLEANUP ON) {}").format(partition_name("chunks", generation)))
    return bloated


class _Graph(NamedTuple):
    name: str
    size_bytes: int
    rows: int


def _graph(connection: Connection[DatabaseRow], generation: int) -> _Graph | None:
    """Returns a generation's HNSW graph, if it has one; its rows are as the last VACUUM counted them."""
    found = connection.execute(
        "SELECT i.indexrelid::regclass::text, pg_relation_size(i.indexrelid), "
        "greatest(t.reltuples, 0)::bigint FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid "
        "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
        "WHERE a.amname = 'hnsw' AND t.oid = %s::regclass",
        (partition_name("chunks", generation).as_string(connection),),
    ).fetchone()
    return _Graph(*found) if found else None
