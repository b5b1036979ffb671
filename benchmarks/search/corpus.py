"""The corpus of `bench search`: any number of chunks, with texts and vectors recombined from real prose."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.sources.environment_corpus import list_environment_corpus, read_environment_corpus
from common.atomic_files import atomic_file
from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedder import Embedder

_SEED = 2026
_PASSAGES = 2_000
"""Distinct passages of real prose; each pair of them gives a different chunk, so four million."""
_PASSAGE_WORDS = 160
"""About 240 tokens, the default of the chunker."""
_HEAD_WORDS = 96
"""Words that a chunk takes from the start of one passage; the rest is the end of another."""
_NEW_WORDS = 2
"""Words of a chunk that few others have: a vocabulary grows with its texts (Heaps' law)."""
_NOISE = 0.35
"""Length of the noise that is added to a vector of length 1; the cosine between the two is 0.94."""
_QUESTIONS = 400
_QUERY_WORDS = 10
_WORD = re.compile(r"[^\W_]+")
_BATCH_ROWS = 5_000


@dataclass(frozen=True)
class BenchQuery:
    """A query that a client sends.

    Attributes:
        tenant: The tenant that searches.
        text: Consecutive words of one passage.
        vector: Their embedding.
    """

    tenant: str
    text: str
    vector: npt.NDArray[np.float32]


class BenchCorpus:
    """A corpus of chunks of several tenants, the same each time it is made.

    The first tenant has half of the chunks. The other tenants share the other half by Zipf's law: of a
    hundred tenants, the second has a tenth of all chunks and the last a thousandth.

    Args:
        chunks: How many chunks.
        tenants: How many tenants.
        folder: The folder in which the embedded passages are kept for the next time.
    """

    def __init__(self, chunks: int, tenants: int, folder: Path) -> None:
        self.chunks, self.tenants = chunks, tenants
        rest = 1 / np.arange(1, tenants)
        self._shares = np.concatenate([[0.5], rest / rest.sum() / 2]) if tenants > 1 else np.ones(1)
        passages, questions, vectors = _embedded(folder)
        words = [passage.split(" ") for passage in passages]
        self._heads = pa.array([" ".join(each[:_HEAD_WORDS]) for each in words])
        self._tails = pa.array([" ".join(each[_HEAD_WORDS:]) for each in words])
        self._questions = questions
        self._passage_vectors, self._question_vectors = np.split(vectors, [len(passages)])

    def batches(self, first: int = 0, count: int | None = None, salt: int = 0) -> Iterator[pa.RecordBatch]:
        """Yields batches of chunks for `Index.build`; their order does not depend on the tenants.

        Args:
            first: The number of the first chunk.
            count: How many chunks; by default all.
            salt: Another salt gives the chunks the same ids but other texts and vectors.
        """
        end = first + (self.chunks if count is None else count)
        for start in range(first, end, _BATCH_ROWS):
            yield self._batch(np.arange(start, min(start + _BATCH_ROWS, end)), salt)

    def queries(self, count: int) -> list[BenchQuery]:
        """Returns queries, which are divided among the tenants as the chunks are."""
        rng = np.random.default_rng(_SEED + 1)
        tenants = rng.choice(self.tenants, count, p=self._shares)
        places = rng.permutation(len(self._questions))[np.arange(count) % len(self._questions)]
        return [
            BenchQuery(_name(tenant), self._questions[place], self._question_vectors[place])
            for tenant, place in zip(tenants, places, strict=True)
        ]

    def _batch(self, numbers: npt.NDArray[np.int64], salt: int) -> pa.RecordBatch:
        # One stream of random numbers per batch: any part of the corpus can be made alone.
        rng = np.random.default_rng([_SEED, salt, int(numbers[0])])
        count = len(numbers)
        head, tail = rng.integers(0, len(self._heads), (2, count))
        new = [
            pc.binary_join_element_wise("x", pa.array(drawn).cast(pa.string()), "")
            for drawn in rng.integers(0, 2 * self.chunks, (_NEW_WORDS, count))
        ]
        text = pc.binary_join_element_wise(self._heads.take(head), self._tails.take(tail), *new, " ")
        vectors = 0.6 * self._passage_vectors[head] + 0.4 * self._passage_vectors[tail]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        dimension = vectors.shape[1]
        vectors += rng.normal(0, _NOISE / dimension**0.5, vectors.shape).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        tenants = np.searchsorted(np.cumsum(self._shares)[:-1], _uniform(numbers), side="right")
        identity = pa.array([bench_chunk_id(number) for number in numbers])
        size = pc.utf8_length(text).cast(pa.int32())
        columns = {
            "char_start": np.zeros(count, np.int32),
            "char_end": size,
            "ordinal": np.zeros(count, np.int32),
            "token_count": pc.divide(size, 4),
            "chunk_id": identity,
            "tenant": pa.array([_name(tenant) for tenant in tenants]),
            "doc_id": identity,
            "uri": pc.binary_join_element_wise("bench:", identity, ""),
            "title": pa.nulls(count, pa.string()),
            "heading": pa.nulls(count, pa.string()),
            "content_sha256": identity,
            "text": text,
            "text_sha256": identity,
            "language": pa.array(["en"] * count),
        }
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension)
        return pa.RecordBatch.from_pydict(columns)


def bench_chunk_id(number: int) -> str:
    """Returns the chunk_id of the chunk with this number."""
    return f"{number:064x}"


def _name(tenant: int) -> str:
    return f"tenant-{tenant}"


def _uniform(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Hashes each number to [0, 1), by SplitMix64 (Steele, Lea and Flood, 2014)."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)) / float(1 << 53)


def _embedded(folder: Path) -> tuple[list[str], list[str], npt.NDArray[np.float32]]:
    """Returns passages, questions and the vectors of both, in this order; made once per folder."""
    file = folder / "passages.parquet"
    if not file.is_file():
        passages, questions = _prose()
        config = EmbedderConfig()
        Embedder.prepare(config)
        embedder = Embedder(config)
        vectors = np.concatenate([embedder.encode(passages), embedder.encode_queries(questions)])
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        asked = np.arange(len(vectors)) >= len(passages)
        table = pa.table({"text": passages + questions, "asked": pa.array(asked), "vector": column})
        with atomic_file(file) as fresh:
            pq.write_table(table, fresh)
    table = pq.read_table(file)
    texts = table["text"].to_pylist()
    count = len(texts) - pc.sum(table["asked"]).as_py()
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    return texts[:count], texts[count:], flat.reshape(len(texts), -1)


def _prose() -> tuple[list[str], list[str]]:
    """Returns passages from the texts of the installed software, and words of some of them as questions."""
    distinct: dict[str, None] = {}
    for body in read_environment_corpus(list_environment_corpus())["body"].to_pylist():
        text = (body or b"").decode("utf-8", "replace")
        words = "".join(c for c in text if c.isprintable() or c.isspace()).split()
        for at in range(0, len(words) - _PASSAGE_WORDS + 1, _PASSAGE_WORDS):
            distinct[" ".join(words[at : at + _PASSAGE_WORDS])] = None
    rng = np.random.default_rng(_SEED)
    found = list(distinct)
    passages = [found[i] for i in rng.permutation(len(found))[:_PASSAGES]]
    questions = []
    for place in rng.integers(0, len(passages), _QUESTIONS):
        words = _WORD.findall(passages[place])  # quotes and a leading hyphen ask for something else
        at = int(rng.integers(0, max(1, len(words) - _QUERY_WORDS)))
        questions.append(" ".join(words[at : at + _QUERY_WORDS]))
    return passages, questions
