"""Connected components: in memory and in rounds, both against a plain search."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.dedup.components import connected_nodes, define_components
from assets.engine.relations import Relations

EDGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40)


def by_search(edges: list[tuple[str, str]]) -> dict[str, str]:
    neighbours: dict[str, set[str]] = {}
    for left, right in edges:
        neighbours.setdefault(left, set()).add(right)
        neighbours.setdefault(right, set()).add(left)
    component: dict[str, str] = {}
    for node in sorted(neighbours):
        reached = [node] if node not in component else []
        while reached:
            at = reached.pop()
            component[at] = node
            reached += [n for n in neighbours[at] if n not in component]
    return component


def as_table(edges: list[tuple[str, str]]) -> pa.Table:
    return pa.table(
        {
            "left_id": pa.array([left for left, _ in edges], pa.string()),
            "right_id": pa.array([right for _, right in edges], pa.string()),
        }
    )


@settings(deadline=None)
@given(EDGES)
def test_connected_nodes_agree_with_a_search(pairs: list[tuple[int, int]]) -> None:
    edges = [(f"n{left}", f"n{right}") for left, right in pairs]
    found = connected_nodes(as_table(edges)).to_pydict()
    assert dict(zip(found["node"], found["component"], strict=True)) == by_search(edges)


def test_components_in_rounds_agree_with_those_in_memory(
    local_and_spark: tuple[Relations, Relations],
) -> None:
    # A long path is the worst case for methods that walk; the rest are stars, cycles, a self-loop, an island.
    path = [(f"p{(i * 17) % 30:02}", f"p{((i + 1) * 17) % 30:02}") for i in range(29)]
    star = [("s00", f"s{i:02}") for i in range(1, 9)]
    cycle = [(f"c{i}", f"c{(i + 1) % 5}") for i in range(5)]
    edges = [*path, *star, *star, *cycle, ("self", "self"), ("island", "land")]
    for on in local_and_spark:
        on.add("edges", as_table(edges))
        for most in (len(edges), len(edges) - 1):
            define_components(on, "found", "edges", in_memory_edges=most)
            found = on.arrow("found").to_pydict()
            assert dict(zip(found["node"], found["component"], strict=True)) == by_search(edges), most
            assert len(found["node"]) == len(by_search(edges))


def test_no_edges_have_no_components(local_and_spark: tuple[Relations, Relations]) -> None:
    for on in local_and_spark:
        on.add("edges", as_table([]))
        for most in (0, -1):
            define_components(on, "found", "edges", in_memory_edges=most)
            assert on.row("SELECT count(*) FROM {found}") == (0,)
