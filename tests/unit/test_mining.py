"""Mining of examples: a question that does not find its own passage says nothing about it."""

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from assets.training_sets.mining import NOT_FOUND, mine_examples, mining_pool
from retrieval.search.bulk_search import LexicalMatrices
from training.datasets.config import TrainingSetConfig

PASSAGES = pa.table(
    {
        "chunk_id": ["c0", "c1", "c2", "c3"],
        "doc_id": ["d0", "d1", "d2", "d3"],
        "text_sha256": ["t0", "t1", "t2", "t3"],
        "vector": pa.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], pa.list_(pa.float32())),
    }
)


def mined(candidates: int) -> dict[tuple[str, int], tuple[str | None, list[str]]]:
    """Two questions that ask for the first passage, of which the second was made of the last one."""
    words = LexicalMatrices(
        sp.csr_matrix(np.ones((2, 1), np.float32)),
        sp.csr_matrix(np.array([[1, 0, 0, 0]], np.float32)),
        pa.array(PASSAGES["chunk_id"].to_pylist()),
    )
    questions = pa.table({"draft_no": pa.array([1, 2], pa.int64()), "chunk_id": ["c0", "c3"]})
    vectors = np.array([[1, 0], [1, 0]], np.float32)
    config = TrainingSetConfig()
    rows = mine_examples(mining_pool(PASSAGES, words), questions, vectors, config, candidates, 0.5)
    return {(row["kind"], row["draft_no"]): (row["left_out"], row["chunk_ids"]) for row in rows.to_pylist()}


def test_a_question_that_does_not_find_its_passage_is_left_out_and_has_no_list() -> None:
    found = mined(candidates=1)
    assert found == {
        ("retrieval_pair", 1): (None, ["c0"]),
        ("retrieval_pair", 2): (NOT_FOUND, ["c3"]),
        ("ranked_list", 1): (None, ["c0"]),
    }
    every = mined(candidates=4)
    assert {left_out for left_out, _ in every.values()} == {None}
    assert every["ranked_list", 2][1][-1] == "c3"
