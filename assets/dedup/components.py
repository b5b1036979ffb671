"""Connected components of an edge list: in memory up to a number of edges, above it by rounds of SQL."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from assets.engine.relations import Relations

IN_MEMORY_EDGES = 5_000_000
"""Edges up to which this process does it: about 1 GB for ids of 64 characters, in seconds, not minutes."""


def define_components(on: Relations, name: str, edges: str, in_memory_edges: int = IN_MEMORY_EDGES) -> None:
    """Defines the connected components of a graph: columns `node` and `component`, one row per node.

    Args:
        on: The relations, among them the edges.
        name: The name of the relation to define. A component's id is its smallest node.
        edges: The name of the relation with the edges, as two string columns, `left_id` and `right_id`;
            direction, repeats and self-loops do not matter.
        in_memory_edges: The most edges that are solved in memory; more are solved by rounds of SQL.
    """
    if on.row(f"SELECT count(*) FROM {{{edges}}}")[0] <= in_memory_edges:
        on.add(name, connected_nodes(on.arrow(edges)))
    else:
        define_components_in_rounds(on, name, edges)


def connected_nodes(edges: pa.Table) -> pa.Table:
    """Returns the connected components of a graph, computed in memory by a depth-first search.

    Args:
        edges: Two string columns, `left_id` and `right_id`.

    Returns:
        String columns `node` and `component`.
    """
    ends = pa.chunked_array([*edges["left_id"].chunks, *edges["right_id"].chunks], pa.string())
    nodes = ends.unique().sort()
    left, right = (pc.index_in(edges[side], nodes).to_numpy() for side in ("left_id", "right_id"))
    shape = (len(nodes), len(nodes))
    count, label = connected_components(
        coo_array((np.ones(len(left), np.bool_), (left, right)), shape), directed=False
    )
    least = np.full(count, len(nodes))
    np.minimum.at(least, label, np.arange(len(nodes)))
    return pa.table({"node": nodes, "component": nodes.take(pa.array(least[label], pa.int64()))})


def define_components_in_rounds(on: Relations, name: str, edges: str) -> None:
    """Defines the same relation as `define_components`, by alternating large-star and small-star operations.

    Every round connects nodes with smaller neighbours, until each component is a star around its smallest
    node. This takes O(log^2 n) rounds and never more edges than there were (Kiveris, Lattanzi, Mirrokni,
    Rastogi and Vassilvitskii, "Connected Components in MapReduce and Beyond", 2014).

    Args:
        on: The relations, among them the edges.
        edges: The name of the relation with the edges, as two string columns, `left_id` and `right_id`.
    """
    # A star is rows (node, parent), parent < node.
    on.define(
        "stars",
        f"""
        SELECT greatest(left_id, right_id) AS node, least(left_id, right_id) AS parent
        FROM {{{edges}}} WHERE left_id <> right_id
        """,
    )
    state, before = (-1, None), None
    while state != before:
        before = state
        on.define("links_both_ways", _BOTH_WAYS)
        on.define("large_stars", _LARGE_STARS)
        # Each round's plan would otherwise hold all rounds before it.
        on.define("stars", _SMALL_STARS, reused=True)
        count, digest = on.row("SELECT count(*), bit_xor(xxhash64(node, parent)) FROM {stars}")
        state = (count, digest)
    on.define(
        name,
        f"""
        SELECT node, coalesce(parent, node) AS component
        FROM (SELECT left_id AS node FROM {{{edges}}} UNION SELECT right_id FROM {{{edges}}})
        LEFT JOIN {{stars}} USING (node)
        """,
    )


_BOTH_WAYS = "SELECT node, parent FROM {stars} UNION ALL SELECT parent, node FROM {stars}"

_LARGE_STARS = """
    SELECT DISTINCT parent AS node, lesser AS parent FROM {links_both_ways}
    JOIN (
        SELECT node, least(node, min(parent)) AS lesser FROM {links_both_ways} GROUP BY node
    ) USING (node) WHERE parent > node
"""
"""Links each node's greater neighbours to the least node of its neighbourhood."""

_SMALL_STARS = """
    WITH lesser AS (SELECT node, min(parent) AS least_parent FROM {large_stars} GROUP BY node)
    SELECT parent AS node, least_parent AS parent FROM {large_stars} JOIN lesser USING (node)
    WHERE parent <> least_parent
    UNION SELECT node, least_parent FROM lesser
"""
"""Links each node and its lesser neighbours to the least of them."""
