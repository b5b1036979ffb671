"""MinHash signatures, their LSH bands and exact Jaccard similarity, over Arrow string buffers.

MinHash estimates the Jaccard similarity of two sets from the minima of their random permutations (Broder,
"On the resemblance and containment of documents", 1997). Cutting a signature into bands and comparing only
documents that agree on a whole band finds the similar pairs without looking at all pairs (Leskovec, Rajaraman
and Ullman, "Mining of Massive Datasets", section 3.4).

A document's set is its word shingles:

* A word is a maximal run of ASCII letters and digits (folded to lower case) and of other letters' bytes.
  ASCII punctuation, Latin-1 punctuation (U+0080 to U+00BF, with the no-break space) and U+2000 to U+2FFF
  (typographic quotes, dashes, bullets, symbols) separate words, so that `don't` and `don’t` agree.
* In scripts without spaces a whole sentence would be one word. So every character from U+3000 to U+DFFF
  (Chinese, Japanese, Korean) and from U+10000 up is a word. U+3000 to U+303F separate words.
* A shingle is `shingle_words` consecutive words. A text with fewer words has one shingle, all of its words. A
  text without words has no shingle and no near-duplicates; only its exact hash is compared.

The kernels read the UTF-8 bytes where Arrow holds them, and make no Python object per document or shingle.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field, model_validator

KERNEL_VERSION = 1
"""Changes whenever the same text and settings would give another signature."""

SIGNATURE_SCHEMA = pa.schema(
    [
        ("doc_id", pa.string()),
        ("config_hash", pa.string()),
        ("text_sha256", pa.string()),
        ("signature", pa.binary()),
        ("bands", pa.list_(pa.int64())),
    ]
)
"""What `signature_batches` yields: `silver.signatures` without its run id."""

Texts: TypeAlias = pa.StringArray | pa.LargeStringArray | pa.ChunkedArray


class MinHashConfig(BaseModel):
    """The settings of near-duplicate detection by MinHash."""

    shingle_words: int = Field(default=5, ge=1)
    """Words per shingle. Five is usual for web text: fewer make unlike texts alike, more miss edits."""
    permutations: int = Field(default=128, ge=1)
    """Hash functions per signature; the standard error of the estimated Jaccard is at most 0.5/sqrt of it."""
    bands: int = Field(default=16, ge=1)
    """Bands per signature. Two documents that agree on one whole band are compared."""
    rows: int = Field(default=8, ge=1)
    """Hash values per band. Candidates set in around a Jaccard of (1/bands)^(1/rows), here 0.71."""
    seed: int = Field(default=1, ge=0)
    """Seed of the hash functions; signatures made with different seeds can not be compared."""
    jaccard_threshold: float = Field(default=0.8, gt=0, le=1)
    """Least exact Jaccard similarity of near-duplicates; 0.8 is usual (NeMo Curator, SlimPajama)."""
    hot_bucket: int = Field(default=64, ge=1)
    """Members of an LSH bucket, the earliest seen ones, that each other member is compared with."""

    @model_validator(mode="after")
    def _bands_cover_the_signature(self) -> Self:
        if self.bands * self.rows != self.permutations:
            raise ValueError(
                f"bands * rows must equal permutations, but {self.bands} * {self.rows} = "
                f"{self.bands * self.rows} and permutations = {self.permutations}: change one of the three"
            )
        return self

    @property
    def config_hash(self) -> str:
        """Returns a hex digest of all settings that signatures depend on; only those with one digest compare.

        The Jaccard threshold and `hot_bucket` are left out, because signatures do not depend on them.
        """
        return self._digest(exclude={"jaccard_threshold", "hot_bucket"})

    @property
    def decision_hash(self) -> str:
        """Returns a hex digest of all settings that decide which documents are duplicates."""
        return self._digest(exclude=set())

    def _digest(self, exclude: set[str]) -> str:
        settings = self.model_dump(exclude=exclude) | {"kernel": KERNEL_VERSION}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _hash_functions(config: MinHashConfig) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Returns multipliers and increments of x -> a*x + b mod 2^32, a odd: bijections of the 32-bit integers.

    They come from SplitMix64 (Steele, Lea and Flood, 2014) and not from numpy's generators, whose streams may
    change between releases while signatures are kept for years.
    """
    with np.errstate(over="ignore"):
        z = np.arange(1, config.permutations + 1, dtype=np.uint64) + np.uint64(config.seed << 20)
        z *= np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(32)).astype(np.uint32) | np.uint32(1), z.astype(np.uint32)


def _chunks(texts: Texts) -> list[pa.Array]:
    return texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]


def _buffers(texts: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Returns the UTF-8 bytes, not copied, n + 1 offsets into them, and which of n texts are not null."""
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise TypeError(f"texts are {texts.type}, not string or large_string: cast the column to one of them")
    if len(texts) == 0:
        return np.frombuffer(b"", np.uint8), np.zeros(1, np.int64), np.zeros(0, np.bool_)
    _, offsets, values = texts.buffers()
    width = np.int32 if pa.types.is_string(texts.type) else np.int64
    ends = np.frombuffer(offsets, width)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    data = np.frombuffer(values if values is not None else b"", np.uint8)
    return data, ends, pc.is_valid(texts).to_numpy(zero_copy_only=False)


def minhash_signatures(texts: Texts, config: MinHashConfig) -> npt.NDArray[np.uint32]:
    """Returns the MinHash signatures of texts.

    Args:
        texts: n texts; slices and nulls are allowed.
        config: Shingle length, number and seed of the hash functions.

    Returns:
        uint32 of shape (n, permutations). A null text and a text without a word have 0xFFFFFFFF throughout.

    Raises:
        TypeError: When the texts are neither string nor large_string.
    """
    from assets.dedup import minhash_kernels as kernels

    multipliers, increments = _hash_functions(config)
    parts = [np.empty((0, config.permutations), np.uint32)]
    for chunk in _chunks(texts):
        data, offsets, valid = _buffers(chunk)
        part = np.empty((len(chunk), config.permutations), np.uint32)
        kernels.fill_signatures(data, offsets, valid, config.shingle_words, multipliers, increments, part)
        parts.append(part)
    return np.concatenate(parts) if len(parts) > 2 else parts[-1]


def lsh_bands(signatures: npt.NDArray[np.uint32], config: MinHashConfig) -> npt.NDArray[np.int64]:
    """Returns the LSH band values of signatures: two documents that share a value are a candidate pair.

    Args:
        signatures: uint32 of shape (n, permutations).
        config: Bands and rows.

    Returns:
        int64 of shape (n, bands); the band's number is hashed in, so one column can hold all of them.
    """
    from assets.dedup import minhash_kernels as kernels

    out = np.empty((len(signatures), config.bands), np.uint64)
    kernels.fill_lsh_bands(signatures, config.rows, out)
    return out.view(np.int64)


def shingle_jaccard(
    texts: Texts, left: npt.NDArray[np.int64], right: npt.NDArray[np.int64], config: MinHashConfig
) -> npt.NDArray[np.float64]:
    """Returns the exact Jaccard similarity of the shingle sets of pairs of texts.

    Args:
        texts: The texts, each once.
        left: Shape (n,): a place in `texts` for each pair.
        right: Shape (n,): the place of the text it is compared with.
        config: Shingle length.

    Returns:
        float64 of shape (n,), from 0 to 1; 0 where either text is null or both are without a word.

    Raises:
        IndexError: When a place is outside of `texts`.
        TypeError: When the texts are neither string nor large_string.
    """
    from assets.dedup import minhash_kernels as kernels

    places = np.concatenate([left, right])
    if len(places) and (places.min() < 0 or places.max() >= len(texts)):
        raise IndexError(f"pairs name texts {places.min()} to {places.max()}, and there are {len(texts)}")
    whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    out = np.empty(len(left), np.float64)
    kernels.fill_jaccard(
        *_buffers(whole), left.astype(np.int64), right.astype(np.int64), config.shingle_words, out
    )
    return out


def signature_batches(batches: Iterator[pa.RecordBatch], config: MinHashConfig) -> Iterator[pa.RecordBatch]:
    """Yields the signatures of documents, as a function for `Relations.map_batches`.

    Args:
        batches: Columns doc_id, text, text_sha256.
        config: The signatures' settings.

    Yields:
        Batches of `SIGNATURE_SCHEMA`. `signature` holds the hash values as little-endian uint32. `bands` is
        null for a text without a word: it is a candidate for nothing.
    """
    for batch in batches:
        signed = minhash_signatures(batch["text"], config)
        values = lsh_bands(signed, config).reshape(-1)
        wordless = (signed == np.uint32(0xFFFFFFFF)).all(axis=1)
        starts = np.arange(len(signed) + 1, dtype=np.int32) * config.bands
        width = pa.binary(4 * config.permutations)
        packed = pa.Array.from_buffers(width, len(signed), [None, pa.py_buffer(signed.astype("<u4"))])
        yield pa.RecordBatch.from_arrays(
            [
                batch["doc_id"],
                pa.repeat(config.config_hash, len(signed)),
                batch["text_sha256"],
                packed.cast(pa.binary()),
                pa.ListArray.from_arrays(pa.array(starts), pa.array(values), mask=pa.array(wordless)),
            ],
            schema=SIGNATURE_SCHEMA,
        )


def compile_minhash_kernels() -> None:
    """Compiles the kernels into Numba's cache, so that runs and Spark workers need not compile them."""
    config = MinHashConfig()
    texts = pa.array(["Compile once, at set-up."])
    lsh_bands(minhash_signatures(texts, config), config)
    shingle_jaccard(texts, np.zeros(1, np.int64), np.zeros(1, np.int64), config)


if __name__ == "__main__":
    compile_minhash_kernels()
