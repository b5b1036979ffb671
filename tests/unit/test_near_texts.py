"""Which texts are near others: as comparing all with all says."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.dedup.minhash import MinHashConfig, shingle_jaccard
from assets.dedup.near_texts import near_texts

WORDS = st.sampled_from(["ice", "bread", "tide", "bee", "dance", "moon", "salt"])
TEXTS = st.lists(st.lists(WORDS, max_size=12).map(" ".join), max_size=12)


def chunked(texts: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(texts, pa.string())])


@settings(max_examples=25, deadline=None)
@given(TEXTS, TEXTS)
def test_it_says_what_comparing_all_with_all_says(texts: list[str], others: list[str]) -> None:
    near = near_texts(chunked(texts), chunked(others), 0.8)
    left = np.repeat(np.arange(len(texts)), len(others))
    right = np.tile(np.arange(len(others)), len(texts)) + len(texts)
    jaccard = shingle_jaccard(chunked([*texts, *others]), left, right, MinHashConfig())
    expected = (jaccard.reshape(len(texts), len(others)) >= 0.8).any(axis=1)
    assert near.tolist() == expected.tolist()


def test_case_and_punctuation_make_no_difference_and_an_edit_does_little() -> None:
    text = " ".join(f"word{number} of the text" for number in range(40))
    edited = text.replace("word20", "another")
    near = near_texts(
        chunked([text.upper() + "!", edited, "word1 of the text", ""]), chunked([text, ""]), 0.8
    )
    assert near.tolist() == [True, True, False, False]
