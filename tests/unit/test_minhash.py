"""The MinHash kernel: what it estimates, what it takes for a word, and how it reads Arrow's buffers."""

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from assets.dedup.minhash import (
    SIGNATURE_SCHEMA,
    MinHashConfig,
    compile_minhash_kernels,
    lsh_bands,
    minhash_signatures,
    shingle_jaccard,
    signature_batches,
)

CONFIG = MinHashConfig()
WORDS = st.lists(st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]), max_size=30)


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Else the first example of a property pays for the compilation and misses its deadline."""
    compile_minhash_kernels()


def one(text: str | None, config: MinHashConfig = CONFIG) -> np.ndarray:
    return minhash_signatures(pa.array([text], pa.string()), config)[0]


def jaccard_of(left: str, right: str, config: MinHashConfig = CONFIG) -> float:
    return float(shingle_jaccard(pa.array([left, right]), np.array([0]), np.array([1]), config)[0])


def with_itself(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    places = np.arange(len(texts))
    return shingle_jaccard(texts, places, places, CONFIG)


def shingles(words: list[str], size: int) -> set[tuple[str, ...]]:
    if not words:
        return set()
    size = min(size, len(words))
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


@given(WORDS, WORDS, st.integers(1, 6))
def test_jaccard_is_that_of_the_sets_of_shingles(left: Any, right: Any, size: int) -> None:
    a, b = shingles(left, size), shingles(right, size)
    expected = len(a & b) / len(a | b) if a | b else 0.0
    assert (
        jaccard_of(" ".join(left), " ".join(right), CONFIG.model_copy(update={"shingle_words": size}))
        == expected
    )


@given(WORDS, st.randoms(use_true_random=False))
def test_a_signature_depends_on_the_set_and_not_on_the_order(words: list[str], rng: random.Random) -> None:
    config = CONFIG.model_copy(update={"shingle_words": 1})
    shuffled = words * 2
    rng.shuffle(shuffled)
    assert (one(" ".join(words), config) == one(" ".join(shuffled), config)).all()


def test_signatures_estimate_jaccard_without_bias_and_within_the_binomial_error() -> None:
    rng = random.Random(7)
    for shared in (20, 50, 80, 95):
        left, right = [], []
        for _ in range(400):
            common = [f"c{rng.random()}" for _ in range(shared)]
            left.append(" ".join([*common, *(f"l{rng.random()}" for _ in range(100 - shared))]))
            right.append(" ".join([*common, *(f"r{rng.random()}" for _ in range(100 - shared))]))
        texts_left, texts_right = (
            pa.array([t.replace(".", "") for t in left]),
            pa.array([t.replace(".", "") for t in right]),
        )
        config = CONFIG.model_copy(update={"shingle_words": 1})
        places = np.arange(len(left))
        both = pa.chunked_array([texts_left, texts_right])
        true = shingle_jaccard(both, places, places + len(left), config)
        estimate = (minhash_signatures(texts_left, config) == minhash_signatures(texts_right, config)).mean(
            axis=1
        )
        error = estimate - true
        standard_error = np.sqrt(true * (1 - true) / config.permutations).mean()
        assert abs(error.mean()) < 4 * standard_error / np.sqrt(len(error))
        assert error.std() < 1.15 * standard_error, "permutations are correlated"


@given(
    st.lists(st.one_of(st.none(), st.text(max_size=60)), max_size=12),
    st.integers(0, 12),
    st.integers(0, 12),
    st.booleans(),
)
@settings(deadline=None)
def test_slices_nulls_chunks_and_large_strings_read_the_same_bytes(
    texts: list[str | None], start: int, length: int, large: bool
) -> None:
    kind = pa.large_string() if large else pa.string()
    array = pa.array(texts, kind)
    expected = (
        np.stack([one(text) for text in texts]) if texts else np.empty((0, CONFIG.permutations), np.uint32)
    )
    sliced = array.slice(min(start, len(texts)), length)
    assert (minhash_signatures(sliced, CONFIG) == expected[start : start + length]).all()
    chunked = pa.chunked_array([array, array.slice(min(start, len(texts)))], kind)
    assert (minhash_signatures(chunked, CONFIG) == np.concatenate([expected, expected[start:]])).all()
    words = np.array([(row != 0xFFFFFFFF).any() for row in expected], np.bool_)
    assert (with_itself(chunked) == np.concatenate([words, words[start:]])).all()


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_unicode_resembles_itself_or_has_no_word(text: Any) -> None:
    without_word = bool((one(text) == 0xFFFFFFFF).all())
    assert jaccard_of(text, text) == (0.0 if without_word else 1.0)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("The quick-brown (fox) jumps over it", "the QUICK brown fox   jumps\nover it"),
        ("don't stop the music for me now", "don’t stop the “music” — for me now"),
        ("a b\u00a0c d e f g", "a b c d e f g"),
        ("これは、日本語の文章です", "これは 日本語の文章です"),
    ],
)
def test_case_punctuation_and_space_do_not_matter(left: Any, right: Any) -> None:
    assert jaccard_of(left, right) == 1.0


def test_text_without_spaces_has_shingles_of_characters() -> None:
    text = "今日は天気がとても良いので公園を散歩しました" * 1
    assert 0.5 < jaccard_of(text, text + "楽") < 1.0
    assert jaccard_of(text, "昨夜の会議では予算について長い議論がありましたよ") == 0.0
    assert jaccard_of("naïve café", "nave caf") == 0.0


def test_a_short_text_is_one_shingle_of_all_its_words() -> None:
    assert jaccard_of("only three words", "Only three words!") == 1.0
    assert jaccard_of("only three words", "only three") == 0.0


@pytest.mark.parametrize("text", [None, "", "  \n\t", "— … ! 。"])
def test_a_text_without_words_is_a_candidate_for_nothing(text: Any) -> None:
    batch = pa.record_batch({"doc_id": ["a"], "text": pa.array([text], pa.string()), "text_sha256": ["t"]})
    (signed,) = signature_batches(iter([batch]), CONFIG)
    assert signed["bands"].to_pylist() == [None]
    assert with_itself(batch["text"]).tolist() == [0.0]


def test_batches_carry_ids_signatures_and_bands() -> None:
    texts = pa.array(["one two three four five six", "", "one two three four five six", None, "seven eight"])
    batch = pa.record_batch({"doc_id": list("abcde"), "text": texts, "text_sha256": list("vwxyz")}).slice(1)
    (signed,) = signature_batches(iter([batch]), CONFIG)
    assert signed.schema == SIGNATURE_SCHEMA
    assert signed["doc_id"].to_pylist() == list("bcde")
    assert set(signed["config_hash"].to_pylist()) == {CONFIG.config_hash}
    expected = minhash_signatures(texts.slice(1), CONFIG)
    assert [np.frombuffer(s, "<u4").tolist() for s in signed["signature"].to_pylist()] == expected.tolist()
    values = lsh_bands(expected, CONFIG).tolist()
    assert signed["bands"].to_pylist() == [None, values[1], None, values[3]]


def test_bands_agree_exactly_where_their_rows_agree() -> None:
    rng = np.random.default_rng(3)
    left = rng.integers(0, 2**32, (50, CONFIG.permutations), np.uint32)
    right = np.where(rng.random(left.shape) < 0.9, left, left + np.uint32(1))
    same = (left == right).reshape(50, CONFIG.bands, CONFIG.rows).all(axis=2)
    assert 0 < same.sum() < same.size
    assert ((lsh_bands(left, CONFIG) == lsh_bands(right, CONFIG)) == same).all()
    assert len(np.unique(lsh_bands(left[:1].repeat(1, 0) * 0, CONFIG))) == CONFIG.bands, (
        "a band's number is hashed in"
    )


def test_signatures_stay_what_they_were() -> None:
    """Signatures are kept in the lake: a change here must raise KERNEL_VERSION."""
    signed = one("The quick brown fox jumps over the lazy dog, naïvely: 今日は.")
    assert signed[:4].tolist() == [535527648, 227611660, 448920636, 344544935]
    assert lsh_bands(signed[None, :], CONFIG)[0, 0] == -4154667605989601428


def test_config_hash_follows_the_signature_settings_only() -> None:
    for decides in ({"jaccard_threshold": 0.9}, {"hot_bucket": 9}):
        assert MinHashConfig(**decides).config_hash == CONFIG.config_hash
        assert MinHashConfig(**decides).decision_hash != CONFIG.decision_hash
    for changed in (
        {"seed": 2},
        {"shingle_words": 3},
        {"bands": 8, "rows": 16},
        {"permutations": 64, "rows": 4},
    ):
        assert MinHashConfig(**changed).config_hash != CONFIG.config_hash
    assert (one("a b c d e f") != one("a b c d e f", MinHashConfig(seed=2))).mean() > 0.9


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"bands \* rows must equal permutations, but 16 \* 8 = 128"):
        MinHashConfig(permutations=100)


def test_other_columns_and_missing_texts_are_refused() -> None:
    with pytest.raises(TypeError, match="texts are int64"):
        minhash_signatures(pa.array([1]), CONFIG)
    with pytest.raises(IndexError, match="pairs name texts 0 to 1, and there are 1"):
        shingle_jaccard(pa.array(["a"]), np.array([0]), np.array([1]), CONFIG)


def test_jaccard_of_many_pairs_is_that_of_each() -> None:
    texts = pa.array(["a b c d e f g", None, "", "a b c d e f", "x y", "a b c d e f g h"])
    left, right = (side.ravel() for side in np.meshgrid(np.arange(6), np.arange(6), indexing="ij"))
    together = shingle_jaccard(texts, left, right, CONFIG).reshape(6, 6)
    assert (together == together.T).all()
    assert together[0].tolist() == [1.0, 0.0, 0.0, 2 / 3, 0.0, 3 / 4]
