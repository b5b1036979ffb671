"""What a search of the graph holds ready grows with the graph."""

import pytest

from retrieval.search.vector_search import MAX_EF_SEARCH, VectorSearchConfig, scaled_ef_search


@pytest.mark.parametrize(
    ("rows", "held"),
    [(-1, 350), (0, 350), (100_000, 350), (800_000, 700), (1_000_000, 754), (10**9, MAX_EF_SEARCH)],
)
def test_ef_search_grows_with_the_cube_root_of_the_rows(rows: int, held: int) -> None:
    assert scaled_ef_search(VectorSearchConfig(), rows) == held
