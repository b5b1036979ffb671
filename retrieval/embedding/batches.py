"""Embeds the texts of Arrow batches, as a step of the lake does."""

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval.embedding.config import DEFAULT_MODEL_CACHE, EmbedderConfig, EmbeddingFault
from retrieval.embedding.embedding_model import TextEmbedder, load_embedder

EMBEDDING_COLUMNS = pa.schema(
    [
        pa.field("tenant", pa.string(), nullable=False),
        pa.field("text_sha256", pa.string(), nullable=False),
        pa.field("model_digest", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.float32())),
    ]
)
"""The columns that `embed_batches` yields: `gold.embeddings` without the run id."""


@lru_cache(maxsize=2)
def _of_process(config: str, cache: Path, threads: int) -> TextEmbedder:
    return load_embedder(EmbedderConfig.model_validate_json(config), cache, threads)


def embed_batches(
    batches: Iterator[pa.RecordBatch],
    config: EmbedderConfig,
    cache: Path = DEFAULT_MODEL_CACHE,
    threads: int = 1,
    faults: list[EmbeddingFault] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yields the embeddings of texts, as a function for Spark's `mapInArrow`; a worker loads the model once.

    Args:
        batches: Batches with the columns `tenant`, `text_sha256` and `text` (strings).
        config: The model.
        cache: The folder that `EmbeddingModel.prepare` filled; it must be on every machine of the cluster.
        threads: Threads per worker; 1 where Spark runs one task per core.
        faults: Takes the fault that stops the embedder, so that what was embedded before it can be kept; the
            rest is left out. A fault is raised unless this is given.

    Yields:
        Batches with `EMBEDDING_COLUMNS`: one per input batch, or per request to an endpoint.

    Raises:
        EmbeddingFault: The embedder stopped, and `faults` is not given.
    """
    if threads == 1:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its pool would add a set of threads per worker
    for batch in _requests(batches, config):
        embedder = _of_process(config.model_dump_json(), cache, threads)
        try:
            vectors = embedder.encode(batch.column("text").to_pylist())
        except EmbeddingFault as fault:
            if faults is None:
                raise
            faults.append(fault)
            return
        offsets = np.arange(len(vectors) + 1, dtype=np.int32) * embedder.dimension
        yield pa.RecordBatch.from_arrays(
            [
                batch.column("tenant"),
                batch.column("text_sha256"),
                pa.array([embedder.digest] * len(vectors), pa.string()),
                pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.reshape(-1))),
            ],
            schema=EMBEDDING_COLUMNS,
        )


def _requests(batches: Iterator[pa.RecordBatch], config: EmbedderConfig) -> Iterator[pa.RecordBatch]:
    """Yields the batches, for an endpoint in parts of one request: each is paid for as a whole."""
    for batch in batches:
        rows = config.endpoint.batch_texts if config.endpoint.url else max(batch.num_rows, 1)
        yield from (batch.slice(at, rows) for at in range(0, max(batch.num_rows, 1), rows))
