"""Mines hard negatives and ranked lists from the index, for all questions of a tenant at once.

Negatives are positive-aware (Moreira et al., "NV-Retriever", 2407.15831): a passage that is nearly as near to
the question as its own is none, for it may answer as well. Neither is one of the same document, which stands
for its whole cluster of duplicates, nor one that says nearly the same. A question that does not find its own
passage is left out: it does not say which passage it asks for (round-trip consistency: Alberti et al.,
1906.05416).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from assets.dedup.minhash import MinHashConfig, shingle_jaccard
from retrieval.search.bulk_search import BulkRanking, LexicalMatrices, rank_in_bulk
from training.datasets.config import TrainingSetConfig

MINED_SCHEMA = pa.schema(
    [
        ("draft_no", pa.int64()),
        ("kind", pa.string()),
        ("left_out", pa.string()),
        ("chunk_ids", pa.list_(pa.string())),
        ("doc_ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
        ("teacher", pa.string()),
    ]
)
"""A retrieval pair of each question, and a ranked list of each that finds its passage, with its teacher."""

NOT_FOUND = "not_found"


@dataclass(frozen=True)
class MiningPool:
    """The passages that are mined among.

    Attributes:
        doc_ids: The ids of their documents.
        documents: A number for each one's document, int64.
        texts: Their texts.
        text_numbers: A number for each one's text, int64.
        vectors: Their unit vectors, float32 of shape (passages, dimension).
        lexical: The BM25 scores of the questions, whose columns are these passages.
    """

    chunk_ids: pa.Array
    doc_ids: pa.Array
    documents: npt.NDArray[np.int64]
    texts: pa.ChunkedArray
    text_numbers: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    lexical: LexicalMatrices


def mining_pool(passages: pa.Table, lexical: LexicalMatrices) -> MiningPool:
    """Returns the passages that the index holds, in the order in which they are given.

    Args:
        passages: chunk_id, doc_id, text, text_sha256 and vector (list of float32).
        lexical: The BM25 scores of the questions for all chunks of the tenant.
    """
    column = pc.index_in(passages["chunk_id"], lexical.chunk_ids)
    passages, column = passages.filter(column.is_valid()), column.drop_null()
    size = len(passages)
    vectors = passages["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    documents, text_numbers = (
        passages[name].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        for name in ("doc_id", "text_sha256")
    )
    columns = column.to_numpy()
    some = LexicalMatrices(
        lexical.questions, lexical.chunks[:, columns], passages["chunk_id"].combine_chunks()
    )
    return MiningPool(
        passages["chunk_id"].combine_chunks(),
        passages["doc_id"].combine_chunks(),
        documents,
        passages["text"].cast(pa.large_string()),
        text_numbers,
        vectors.reshape(size, -1 if size else 0).astype(np.float32, copy=False),
        some,
    )


def mine_examples(
    pool: MiningPool,
    questions: pa.Table,
    question_vectors: npt.NDArray[np.float32],
    config: TrainingSetConfig,
    candidates: int,
    vector_weight: float,
) -> pa.Table:
    """Returns retrieval pairs with hard negatives, and ranked lists, in `MINED_SCHEMA`.

    Args:
        pool: The passages.
        questions: draft_no; chunk_id, the passage that each was made of; and positive, the text that answers
            it. One whose passage is not in the pool is left out. The rows of `pool.lexical.questions` and of
            the vectors are these.
        question_vectors: Their unit vectors, float32 of shape (questions, dimension).
        config: How many negatives and candidates.
        candidates: How many passages each of the two rankings proposes.
    """
    own = pc.index_in(questions["chunk_id"], pool.chunk_ids)
    there = own.is_valid().to_numpy()
    own = own.drop_null().to_numpy().astype(np.int64)
    asked = questions.filter(pa.array(there))
    lexical = LexicalMatrices(pool.lexical.questions[there], pool.lexical.chunks, pool.chunk_ids)
    rankings = rank_in_bulk(lexical, question_vectors[there], pool.vectors, own, candidates, vector_weight)
    parts = [MINED_SCHEMA.empty_table()]
    for ranking in rankings:
        rows = slice(ranking.first, ranking.first + len(ranking.chunks))
        found = (ranking.chunks == own[rows, None]).any(axis=1)
        some = asked.slice(ranking.first, len(ranking.chunks))
        numbers = some["draft_no"].to_numpy()
        parts.append(_pairs(pool, ranking, own[rows], numbers, some["positive"], found, config))
        parts.append(_lists(pool, ranking, own[rows], numbers, found, config.candidates))
    return pa.concat_tables(parts)


def _pairs(
    pool: MiningPool,
    ranking: BulkRanking,
    own: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
    positives: pa.ChunkedArray,
    found: npt.NDArray[np.bool_],
    config: TrainingSetConfig,
) -> pa.Table:
    chunks = ranking.chunks
    is_negative = chunks >= 0
    is_negative &= pool.documents[chunks] != pool.documents[own][:, None]
    is_negative &= pool.text_numbers[chunks] != pool.text_numbers[own][:, None]
    is_negative &= ranking.cosines <= config.positive_ratio * ranking.own_cosines[:, None]
    is_negative &= found[:, None]
    is_negative &= is_negative.cumsum(axis=1) <= config.negatives
    # Compared last, and so in few pairs: a question may get fewer negatives for it.
    row, place = is_negative.nonzero()
    proposed, which = np.unique(chunks[row, place], return_inverse=True)
    texts = [*positives.cast(pa.large_string()).chunks, *pool.texts.take(pa.array(proposed)).chunks]
    jaccard = shingle_jaccard(
        pa.chunked_array(texts, pa.large_string()), row, len(positives) + which, MinHashConfig()
    )
    near = jaccard >= config.near_jaccard
    is_negative[row[near], place[near]] = False
    # The positive first.
    chosen = np.concatenate([np.ones((len(own), 1), bool), is_negative], axis=1)
    columns = np.concatenate([own[:, None], chunks], axis=1)
    scores = np.concatenate([ranking.own_cosines[:, None], ranking.cosines], axis=1)
    left_out = pc.if_else(pa.array(found), pa.scalar(None, pa.string()), NOT_FOUND)
    return _table("retrieval_pair", numbers, left_out, chosen, columns, scores, pool)


def _lists(
    pool: MiningPool,
    ranking: BulkRanking,
    own: npt.NDArray[np.int64],
    numbers: npt.NDArray[np.int64],
    found: npt.NDArray[np.bool_],
    most: int,
) -> pa.Table:
    chunks, fused = ranking.chunks[found], ranking.fused[found]
    is_own = chunks == own[found][:, None]
    rank = np.arange(chunks.shape[1])[None]
    # The question's own passage takes the last place where it ranks below the others.
    chosen = (rank < np.where(is_own[:, :most].any(axis=1), most, most - 1)[:, None]) | is_own
    chosen &= chunks >= 0
    nothing = pa.nulls(len(chunks), pa.string())
    return _table("ranked_list", numbers[found], nothing, chosen, chunks, fused, pool)


def _table(
    kind: str,
    numbers: npt.NDArray[np.int64],
    left_out: pa.Array,
    chosen: npt.NDArray[np.bool_],
    columns: npt.NDArray[np.int64],
    scores: npt.NDArray[np.floating],
    pool: MiningPool,
) -> pa.Table:
    """Returns rows with the chosen columns of each row, in their order."""
    offsets = pa.array(np.concatenate([[0], chosen.sum(axis=1).cumsum()]), pa.int32())
    places = pa.array(columns[chosen])
    values = pa.array(scores[chosen].astype(np.float64).round(6))
    return pa.table(
        {
            "draft_no": pa.array(numbers, pa.int64()),
            "kind": pa.repeat(kind, len(numbers)),
            "left_out": left_out,
            "chunk_ids": pa.ListArray.from_arrays(offsets, pool.chunk_ids.take(places)),
            "doc_ids": pa.ListArray.from_arrays(offsets, pool.doc_ids.take(places)),
            "scores": pa.ListArray.from_arrays(offsets, values),
            "teacher": pa.array(["fused" if kind == "ranked_list" else None] * len(numbers), pa.string()),
        },
        schema=MINED_SCHEMA,
    )
