"""Connected components of an edge list: on the driver under a cap, distributed above it, same result."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as scipy_components

DRIVER_EDGE_CAP = 5_000_000
"""Edges up to which the driver does it: about 1 GB for ids of 64 characters, and seconds against minutes."""


class _State(NamedTuple):
    """What two rounds of the distributed method agree on when nothing changed any more."""

    edges: int
    digest: int | None


def connected_components(edges: DataFrame, driver_edge_cap: int = DRIVER_EDGE_CAP) -> DataFrame:
    """Finds which nodes hang together.

    Args:
        edges: Two string columns, `left_id` and `right_id`; direction, repeats and self-loops do not matter.
        driver_edge_cap: Edges above which the work is distributed.

    Returns:
        Columns `node` and `component`, one row a node that has an edge; a component is named by its
        least node.
    """
    edges = edges.select("left_id", "right_id").persist()
    try:
        if edges.count() > driver_edge_cap:
            return distributed_components(edges)
        return edges.sparkSession.createDataFrame(components_of(edges.toArrow()))
    finally:
        edges.unpersist()


def components_of(edges: pa.Table) -> pa.Table:
    """`connected_components` of edges in memory.

    Args:
        edges: Two string columns, `left_id` and `right_id`.

    Returns:
        String columns `node` and `component`.
    """
    ends = pa.chunked_array([*edges["left_id"].chunks, *edges["right_id"].chunks], pa.string())
    nodes = ends.unique().sort()
    left, right = (pc.index_in(edges[side], nodes).to_numpy() for side in ("left_id", "right_id"))
    shape = (len(nodes), len(nodes))
    count, label = scipy_components(
        coo_array((np.ones(len(left), np.bool_), (left, right)), shape), directed=False
    )
    least = np.full(count, len(nodes))
    np.minimum.at(least, label, np.arange(len(nodes)))
    return pa.table({"node": nodes, "component": nodes.take(pa.array(least[label], pa.int64()))})


def distributed_components(edges: DataFrame) -> DataFrame:
    """`connected_components` by alternating large-star and small-star operations.

    Every round points nodes at lesser neighbours until each component is a star around its least node:
    O(log^2 n) rounds, and never more edges than there were (Kiveris, Lattanzi, Mirrokni, Rastogi and
    Vassilvitskii, "Connected Components in MapReduce and Beyond", 2014).

    Args:
        edges: Two string columns, `left_id` and `right_id`.

    Returns:
        String columns `node` and `component`.
    """
    nodes = edges.select(F.explode(F.array("left_id", "right_id")).alias("node")).distinct()
    # A star is rows (node, parent), parent < node.
    stars = edges.where("left_id <> right_id").select(
        F.greatest("left_id", "right_id").alias("node"), F.least("left_id", "right_id").alias("parent")
    )
    state, before = _State(-1, None), None
    while state != before:
        before = state
        # Each round's plan would otherwise hold all rounds before it.
        stars = _small_star(_large_star(stars)).localCheckpoint()
        digest = F.bit_xor(F.xxhash64("node", "parent"))
        ((count, value),) = stars.agg(F.count("*"), digest).collect()
        state = _State(count, value)
    return nodes.join(stars, "node", "left").select("node", F.coalesce("parent", "node").alias("component"))


def _large_star(stars: DataFrame) -> DataFrame:
    """Links each node's greater neighbours to the least node of its neighbourhood."""
    both = stars.union(stars.select(F.col("parent").alias("node"), F.col("node").alias("parent")))
    least = both.groupBy("node").agg(F.least("node", F.min("parent")).alias("least"))
    return (
        both.join(least, "node")
        .where("parent > node")
        .select(F.col("parent").alias("node"), F.col("least").alias("parent"))
        .distinct()
    )


def _small_star(stars: DataFrame) -> DataFrame:
    """Links each node and its lesser neighbours to the least of them."""
    least = stars.groupBy("node").agg(F.min("parent").alias("least"))
    neighbours = stars.join(least, "node").where("parent <> least")
    return (
        neighbours.select(F.col("parent").alias("node"), F.col("least").alias("parent"))
        .union(least.select("node", F.col("least").alias("parent")))
        .distinct()
    )
