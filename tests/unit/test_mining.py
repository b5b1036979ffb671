"""Mining of examples: which questions are left out, and which passages are no negatives."""

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
        "text": ["One text.", "Another text.", "A third text.", "A fourth text."],
        "text_sha256": ["t0", "t1", "t2", "t3"],
        "vector": pa.array([[1, 0], [0.8, 0.6], [0, 1], [-1, 0]], pa.list_(pa.float32())),
    }
)


def mined(
    candidates: int, passages: pa.Table = PASSAGES
) -> dict[tuple[str, int], tuple[str | None, list[str]]]:
    """Two questions that ask for the first passage, of which the second was made of the last one."""
    words = LexicalMatrices(
        sp.csr_matrix(np.ones((2, 1), np.float32)),
        sp.csr_matrix(np.array([[1, 0, 0, 0]], np.float32)),
        pa.array(passages["chunk_id"].to_pylist()),
    )
    positives = [passages["text"][0].as_py(), passages["text"][3].as_py()]
    questions = pa.table(
        {"draft_no": pa.array([1, 2], pa.int64()), "chunk_id": ["c0", "c3"], "positive": positives}
    )
    vectors = np.array([[1, 0], [1, 0]], np.float32)
    config = TrainingSetConfig()
    rows = mine_examples(mining_pool(passages, words), questions, vectors, config, candidates, 0.5)
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


def test_a_passage_that_says_nearly_the_same_is_no_negative() -> None:
    assert mined(candidates=4)["retrieval_pair", 1][1] == ["c0", "c1", "c2", "c3"]
    words = [f"word{number}" for number in range(60)]
    text = pa.array([" ".join(words), " ".join([*words, "more"]), " ".join(words[::-1]), "A fourth text."])
    near = PASSAGES.set_column(PASSAGES.schema.get_field_index("text"), "text", text)
    assert mined(candidates=4, passages=near)["retrieval_pair", 1][1] == ["c0", "c2", "c3"]
