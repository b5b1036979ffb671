"""Computes the exact similarity of pairs of documents, and holds only the texts that are being compared."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from assets.dedup.minhash import MinHashConfig, shingle_jaccard
from assets.engine.local_relations import LocalRelations
from assets.engine.relations import Relations
from common.progress import Progress

PAIRS_PER_FETCH = 100_000
"""Pairs whose texts this process holds at once while it compares them."""

_COMPARED = pa.schema(
    [
        ("left_id", pa.string()),
        ("right_id", pa.string()),
        ("wanted", pa.bool_()),
        ("hot", pa.int64()),
        ("jaccard", pa.float64()),
    ]
)


def define_similarities(on: Relations, name: str, pairs: str, config: MinHashConfig) -> None:
    """Defines a relation with the columns of `pairs` and `jaccard`, the similarity of the two texts.

    `pairs` has the columns left_id, right_id, wanted and hot. In this process a document's text is read once
    for many pairs. Spark sends both texts with each pair to the worker that compares them.

    Args:
        on: The relations, among them the pairs, and `documents` with doc_id and text.
        pairs: The name of the relation with the pairs.
        config: Shingle length.
    """
    if isinstance(on, LocalRelations):
        on.add(name, _compared_here(on, pairs, config))
        return

    def compare(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            left = np.arange(len(batch))
            texts = pa.chunked_array([batch["left_text"], batch["right_text"]]).cast(pa.large_string())
            jaccard = shingle_jaccard(texts, left, left + len(batch), config)
            yield batch.select(_COMPARED.names[:-1]).append_column("jaccard", pa.array(jaccard))

    on.map_batches(
        name,
        f"""
        SELECT left_id, right_id, wanted, hot, a.text AS left_text, b.text AS right_text
        FROM {{{pairs}}} JOIN {{documents}} AS a ON left_id = a.doc_id
        JOIN {{documents}} AS b ON right_id = b.doc_id
        """,
        compare,
        _COMPARED,
        Progress("pairs of documents compared"),
        reused=True,
    )


def _compared_here(on: LocalRelations, pairs: str, config: MinHashConfig) -> pa.Table:
    # Pairs of one senior document lie together: its text is fetched once.
    on.define("sorted_pairs", f"SELECT * FROM {{{pairs}}} ORDER BY left_id, right_id")
    table = on.arrow("sorted_pairs")
    parts, progress = [np.empty(0)], Progress("pairs of documents compared", len(table))
    for at in range(0, len(table), PAIRS_PER_FETCH):
        parts.append(_similarity(on, table.slice(at, PAIRS_PER_FETCH), config))
        progress.advance(PAIRS_PER_FETCH)
    jaccard = np.concatenate(parts)
    return table.append_column("jaccard", pa.array(jaccard)).cast(_COMPARED)


def _similarity(on: LocalRelations, pairs: pa.Table, config: MinHashConfig) -> npt.NDArray[np.float64]:
    ids = pa.chunked_array([*pairs["left_id"].chunks, *pairs["right_id"].chunks], pairs["left_id"].type)
    on.add("fetched_ids", pa.table({"doc_id": ids.unique()}))
    on.define("fetched", "SELECT doc_id, text FROM {documents} SEMI JOIN {fetched_ids} USING (doc_id)")
    texts = on.arrow("fetched")
    left, right = (pc.index_in(pairs[side], texts["doc_id"]).to_numpy() for side in ("left_id", "right_id"))
    # large_string: all of them together may pass the 2 GiB that string can address.
    return shingle_jaccard(texts["text"].cast(pa.large_string()), left, right, config)
