"""Finds which of some texts are near one of others, by exact Jaccard similarity of candidate pairs.

A duplicate must be missed by no more than chance: with 32 bands of 4 rows two texts of Jaccard 0.8 share a
band but for one pair in ten million, where the 16 bands of 8 rows that documents are compared by miss one in
twenty.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from assets.dedup.minhash import MinHashConfig, lsh_bands, minhash_signatures, shingle_jaccard

_PAIRS_AT_ONCE = 1_000_000


def near_texts(texts: pa.ChunkedArray, others: pa.ChunkedArray, jaccard: float) -> npt.NDArray[np.bool_]:
    """Returns which texts have at least a Jaccard similarity to one of the other texts.

    The similarity is that of their sets of five consecutive words; a shorter text is one such set by itself,
    so that it is near only what has the same words.

    Args:
        others: The texts that they are compared with.

    Returns:
        bool of shape (len(texts),).
    """
    near = np.zeros(len(texts), bool)
    # Each text once: boilerplate is the same in many places.
    left, right = pc.unique(texts.cast(pa.large_string())), pc.unique(others.cast(pa.large_string()))
    if not len(left) or not len(right):
        return near
    config = MinHashConfig(bands=32, rows=4, jaccard_threshold=jaccard)
    ours, theirs = _candidates(left, right, config)
    both = pa.chunked_array([left, right])
    found = np.zeros(len(left), bool)
    for first in range(0, len(ours), _PAIRS_AT_ONCE):
        part = slice(first, first + _PAIRS_AT_ONCE)
        similar = shingle_jaccard(both, ours[part], theirs[part] + len(left), config) >= jaccard
        found[ours[part][similar]] = True
    where = pc.index_in(texts.cast(pa.large_string()), left).to_numpy()
    near[:] = found[where]
    return near


def _candidates(
    left: pa.Array, right: pa.Array, config: MinHashConfig
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the pairs of a left and a right text that share a band, as two arrays of places."""
    values, places = [], []
    for texts in (left, right):
        signed = minhash_signatures(texts, config)
        worded = np.flatnonzero(~(signed == np.uint32(0xFFFFFFFF)).all(axis=1))
        bands = lsh_bands(signed[worded], config)
        values.append(bands.ravel())
        places.append(np.repeat(worded, config.bands))
    order = np.argsort(values[1], kind="stable")
    sorted_values, sorted_places = values[1][order], places[1][order]
    low = np.searchsorted(sorted_values, values[0], "left")
    counts = np.searchsorted(sorted_values, values[0], "right") - low
    ours = np.repeat(places[0], counts)
    # For each match the place in the sorted run: its start, and how far into the run it is.
    into = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    theirs = sorted_places[np.repeat(low, counts) + into]
    pairs = np.unique(ours * np.int64(len(right)) + theirs)
    return pairs // len(right), pairs % len(right)
