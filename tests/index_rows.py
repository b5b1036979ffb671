"""Small chunks with known texts and vectors, for tests of the index and of search."""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from psycopg import Connection

from common.lineage import Lineage
from retrieval.access import access_token
from retrieval.embedding.config import EmbedderConfig
from retrieval.index.index import Index, IndexConfig
from retrieval.index.types import IndexReleaseDetails
from retrieval.search.searcher import SearchHit
from retrieval.store.postgres import Postgres

DIMENSION = 8
NO_DETAILS = IndexReleaseDetails(
    metrics={}, versions={}, model_digest="", embedder=EmbedderConfig(), run_id=""
)
NO_LINEAGE = Lineage(run_id="", asset="serving/index", code_version="", config_digest="", inputs={})


def made_from(**versions: int) -> Lineage:
    return NO_LINEAGE.model_copy(update={"inputs": versions})


def made_with(model_digest: str) -> IndexReleaseDetails:
    return NO_DETAILS.model_copy(update={"model_digest": model_digest})


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Chunk:
    name: str
    text: str
    tenant: str = "acme"
    title: str | None = None
    heading: str | None = None
    language: str = "en"
    vector: tuple[float, ...] | None = None
    groups: str | None = None
    fit: bool = True

    @property
    def chunk_id(self) -> str:
        return sha256(f"{self.tenant}/{self.name}")

    def embedding(self) -> np.ndarray:
        if self.vector is not None:
            return np.asarray(self.vector, np.float32)
        seed = int(sha256(self.text)[:8], 16)
        values = np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
        return values / np.linalg.norm(values)


def batch(chunks: Iterable[Chunk]) -> pa.RecordBatch:
    rows = list(chunks)
    vectors = np.stack([row.embedding() for row in rows]) if rows else np.zeros((0, DIMENSION), np.float32)
    return pa.record_batch(
        {
            "chunk_id": pa.array([row.chunk_id for row in rows], pa.string()),
            "doc_id": pa.array([sha256(row.name) for row in rows], pa.string()),
            "tenant": pa.array([row.tenant for row in rows], pa.string()),
            "access_groups": pa.array([row.groups for row in rows], pa.string()),
            "training_fit": pa.array([row.fit for row in rows], pa.bool_()),
            "uri": pa.array([f"file:///{row.name}" for row in rows], pa.string()),
            "title": pa.array([row.title for row in rows], pa.string()),
            "heading": pa.array([row.heading for row in rows], pa.string()),
            "content_sha256": pa.array([sha256("bytes of " + row.text) for row in rows], pa.string()),
            "ordinal": pa.array(range(len(rows)), pa.int32()),
            "char_start": pa.array([0] * len(rows), pa.int32()),
            "char_end": pa.array([len(row.text) for row in rows], pa.int32()),
            "text": pa.array([row.text for row in rows], pa.string()),
            "text_sha256": pa.array([sha256(row.text) for row in rows], pa.string()),
            "language": pa.array([row.language for row in rows], pa.string()),
            "token_count": pa.array([len(row.text.split()) for row in rows], pa.int32()),
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.ravel(), pa.float32()), vectors.shape[1]
            ),
        }
    )


def emptied(postgres: Postgres, config: IndexConfig | None = None) -> Index:
    index = Index(postgres, config)
    with postgres.owner() as connection:
        connection.execute("DELETE FROM headwater.release_log")
    index.prune([])
    return index


def found(hits: list[SearchHit]) -> list[str]:
    return [hit.uri.removeprefix("file:///") for hit in hits]


def prove(connection: Connection[Any], key: bytes, tenant: str, groups: Collection[str] = ()) -> str:
    """Makes the transaction of a connection that of a reader; returns its proof."""
    row = connection.execute("SELECT headwater_search.begin_reading()").fetchone()
    assert row is not None
    token = access_token(key, row[0], tenant, groups)
    connection.execute("SELECT set_config('headwater.access', %s, true)", (token,))
    return token


@contextmanager
def policy_reader(postgres: Postgres, tenant: str, groups: Collection[str] = ()) -> Iterator[Connection[Any]]:
    """A connection of the role that owns the serving functions, to which the row policies apply."""
    key = postgres._access_key()
    with postgres.owner() as connection:
        connection.execute("SET LOCAL ROLE headwater_reader")
        prove(connection, key, tenant, groups)
        yield connection
