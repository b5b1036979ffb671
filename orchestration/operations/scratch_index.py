"""A scratch index of a test collection: built in a server of its own, searched, and removed."""

import contextlib
import fcntl
import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assets.lake.lineage import CODE_VERSION
from assets.text.normalization import normalize_text
from common.atomic_files import atomic_file
from common.counts import counted
from common.lineage import Lineage
from common.progress import Progress
from orchestration.settings import Settings
from quality.evaluation.beir_collection import BeirCollection
from retrieval.chunking.chunker import Chunk, load_chunk_tokenizer, make_chunk_id, split_into_chunks
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index, IndexState
from retrieval.index.rows import INDEX_COLUMNS
from retrieval.language.identification import detect_language
from retrieval.rerank.reranking import RerankedHits, build_reranker, search_and_rerank
from retrieval.search.bulk_search import rank_in_bulk
from retrieval.search.query import SearchQuery
from retrieval.search.searcher import RetrievalMode, Searcher, SearchHit
from retrieval.store.postgres import Postgres, PostgresConfig

ScratchChunks = Literal["default", "document"]
_TENANT = "evaluation"
_PREFIX, _IN_USE = "evaluation-", "in-use"
"""A scratch server's folder, and the file in it that its process has locked."""
_LONGEST_CHUNK = 200_000
"""Characters of a document that is one chunk: a text search vector of PostgreSQL holds a megabyte at most."""
_EMBEDDED_AT_A_TIME = 256
_SAVED_AT_A_TIME = 1024
"""Texts, a multiple of the above, that an interruption may lose."""
_BATCH_ROWS = 1024


class EvaluateRefused(ValueError):
    """The collection can not be evaluated with these options; the message says what to change."""


class ScratchIndex:
    """The index of a collection, searched as the lake's is. `open_scratch_index` makes one."""

    def __init__(
        self,
        settings: Settings,
        postgres: Postgres,
        state: IndexState,
        model: EmbeddingModel,
        vectors: "_VectorCache",
        chunks: pa.Table,
        progress: Callable[[str], None],
    ) -> None:
        self.embedder = model.embedder
        self.model_digest = model.digest
        self._reranker_config = settings.reranker
        self._reranker = build_reranker(settings.reranker) if settings.reranker.configured else None
        self._searcher = Searcher(postgres, settings.recipe.search)
        self._state = state
        self._vectors = vectors
        self._chunks = chunks
        self._config = settings.recipe.search
        self._progress = progress

    def search(self, mode: RetrievalMode, text: str, k: int) -> list[SearchHit]:
        """Returns the best chunks for one of the queries that the index was opened with."""
        query = SearchQuery.plain(text)
        vector = self._vectors.of(query.words, question=True)
        return self._searcher.search(
            _TENANT, query, vector, k, mode, self._state, model_digest=self.model_digest
        )

    def rank_in_bulk(self, texts: Sequence[str], k: int) -> pa.Table:
        """Returns the best chunks for each of many of its queries, by matrix products.

        A query in a language that no chunk is in, or in none that can be told, is read in the commonest.

        Returns:
            `doc_ids`, each chunk's document, and `scores`, fused; both lists of at most `k`, best first.
        """
        words = [SearchQuery.plain(text).words for text in texts]
        spoken = Counter(self._chunks.column("language").to_pylist())
        [(commonest, _)] = spoken.most_common(1)
        languages = [code if code in spoken else commonest for code in map(detect_language, words)]
        asked = pa.table({"question": words, "language": languages})
        lexical = self._searcher.lexical_matrices(self._state, _TENANT, asked)
        held = self._chunks.take(pc.index_in(lexical.chunk_ids, self._chunks.column("chunk_id")))
        doc_ids = held.column("doc_id").combine_chunks()
        rankings = rank_in_bulk(
            lexical,
            np.stack([self._vectors.of(each, question=True) for each in words]),
            np.stack([self._vectors.of(each, question=False) for each in held.column("text").to_pylist()]),
            np.zeros(len(words), np.int64),
            self._config.candidates,
            self._config.vector_weight,
        )
        found: dict[str, list[list[Any]]] = {"doc_ids": [], "scores": []}
        progress = Progress("questions ranked", len(words))
        for ranking in rankings:
            for columns, scores in zip(ranking.chunks, ranking.fused, strict=True):
                best = columns[:k][columns[:k] >= 0]
                found["doc_ids"].append(doc_ids.take(pa.array(best)).to_pylist())
                found["scores"].append(scores[: len(best)].tolist())
            progress.advance(len(ranking.chunks))
        return pa.table(found)

    def rerank(self, text: str, k: int) -> list[SearchHit]:
        """Returns the best chunks after reranking; the order of `hybrid` where the reranker fails or is late.

        Raises:
            ValueError: No reranker is configured.
        """
        if self._reranker is None:
            raise ValueError("no reranker is configured")

        def first_stage(depth: int) -> list[SearchHit]:
            return self.search("hybrid", text, depth)

        looked: RerankedHits = search_and_rerank(
            first_stage, SearchQuery.plain(text).words, k, self._reranker, self._reranker_config
        )
        if looked.fallback_reason:
            self._progress(f"not reranked, the fused order stands: {looked.fallback_reason}")
        return looked.hits


@contextlib.contextmanager
def open_scratch_index(
    settings: Settings, collection: BeirCollection, chunks: ScratchChunks, progress: Callable[[str], None]
) -> Iterator[ScratchIndex]:
    """Indexes a collection in a scratch server, and removes it at the end.

    The live lake and its index are not touched. The scratch folder lies in the state folder; vectors are kept
    there by text and model, so that a second evaluation embeds nothing.

    Raises:
        EvaluateRefused: A document is too long to be one chunk.
        RerankError: The configured reranker's folder is not one.
    """
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    vectors = _VectorCache(settings.home / "evaluations" / f"vectors-{model.digest}.parquet", model)
    rows = pa.Table.from_pylist(list(_rows(collection, settings, model, chunks)))
    vectors.add(rows.column("text").to_pylist(), questions=False)
    vectors.add([SearchQuery.plain(text).words for text in collection.queries.values()], questions=True)
    with _scratch(settings.home) as postgres:
        progress(
            f"indexing {counted(rows.num_rows, 'chunk')} of {counted(len(collection.documents), 'document')}"
        )
        state = _build(postgres, model, rows, vectors)
        yield ScratchIndex(settings, postgres, state, model, vectors, rows, progress)


def _rows(
    collection: BeirCollection, settings: Settings, model: EmbeddingModel, chunks: ScratchChunks
) -> Iterator[dict[str, Any]]:
    """The rows of the index, without their vectors."""
    tokenizer = load_chunk_tokenizer(model.tokenizer_path)
    progress = Progress("documents divided into chunks", len(collection.documents))
    for doc_id, document in collection.documents.items():
        progress.advance()
        title = " ".join(normalize_text(document.title).split())
        # As a file would hold it: its title is its first heading.
        text = normalize_text(f"{title}\n\n{document.text}")
        headings = [{"char_start": 0, "level": 1, "title": title}] if title else []
        if chunks == "document" and len(text) > _LONGEST_CHUNK:
            raise EvaluateRefused(
                f"document {doc_id!r} has {len(text)} characters, and as one chunk it may have "
                f"{_LONGEST_CHUNK}: use --chunks default"
            )
        if chunks == "document":
            spans = [Chunk(0, len(text), title or None, len(tokenizer.encode(text)))] if text else []
        else:
            spans = split_into_chunks(text, headings, tokenizer, settings.recipe.chunker)
        spoken = detect_language(text)
        for ordinal, span in enumerate(spans):
            body = text[span.char_start : span.char_end]
            text_sha256 = _sha256(body)
            yield {
                "chunk_id": make_chunk_id(doc_id, text_sha256, span.char_start),
                "doc_id": doc_id,
                "tenant": _TENANT,
                "uri": f"beir:{collection.name}/{doc_id}",
                "title": title or None,
                "heading": span.heading,
                "content_sha256": _sha256(text),
                "ordinal": ordinal,
                "char_start": span.char_start,
                "char_end": span.char_end,
                "text": body,
                "text_sha256": text_sha256,
                "language": spoken,
                "token_count": span.token_count,
            }


def _build(postgres: Postgres, model: EmbeddingModel, rows: pa.Table, vectors: "_VectorCache") -> IndexState:
    def batches() -> Iterator[pa.RecordBatch]:
        progress = Progress("chunks loaded into the index", rows.num_rows)
        for batch in rows.to_batches(_BATCH_ROWS):
            progress.advance(batch.num_rows)
            texts = batch.column("text").to_pylist()
            found = np.stack([vectors.of(text, question=False) for text in texts])
            column = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), found.shape[1])
            yield batch.select(INDEX_COLUMNS.names).append_column("vector", column)

    lineage = Lineage(
        run_id="", asset="serving/index", code_version=CODE_VERSION, config_digest="evaluation", inputs={}
    )
    return Index(postgres).build(model.digest, "evaluation", model.embedder.dimension, batches(), lineage)


@contextlib.contextmanager
def _scratch(home: Path) -> Iterator[Postgres]:
    """An embedded PostgreSQL in a folder that goes with it; never the one that is configured for the lake."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_abandoned(home)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=home))
    with (folder / _IN_USE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        postgres = Postgres(folder, PostgresConfig())
        try:
            yield postgres
        finally:
            postgres.remove()
            shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(home: Path) -> None:
    """Removes what killed processes left: their folders, and their servers if these still run."""
    for file in home.glob(f"{_PREFIX}*/{_IN_USE}"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), file.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            Postgres(file.parent, PostgresConfig()).remove()
            shutil.rmtree(file.parent, ignore_errors=True)


class _VectorCache:
    """Vectors of texts by their hash, kept in a file of one model; a question has one of its own."""

    def __init__(self, path: Path, model: EmbeddingModel) -> None:
        self._path, self._model = path, model
        self._found: dict[str, npt.NDArray[np.float32]] = {}
        if path.is_file():
            table = pq.read_table(path)
            values = table.column("vector").combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
            self._found = dict(zip(table.column("text_sha256").to_pylist(), values, strict=True))

    def of(self, text: str, question: bool) -> npt.NDArray[np.float32]:
        """The vector of a text that was added."""
        return self._found[_vector_key(text, question)]

    def add(self, texts: Sequence[str], questions: bool) -> None:
        """Embeds those that have no vector yet; what was embedded before an interruption is kept."""
        missing = [text for text in dict.fromkeys(texts) if _vector_key(text, questions) not in self._found]
        embedder = self._model.embedder
        encode = embedder.encode_queries if questions else embedder.encode
        # Long and short ones apart: a batch of like lengths needs no padding.
        missing.sort(key=len)
        progress = Progress("texts embedded", len(missing))
        for first in range(0, len(missing), _EMBEDDED_AT_A_TIME):
            some = missing[first : first + _EMBEDDED_AT_A_TIME]
            made = zip(some, encode(some), strict=True)
            self._found |= {_vector_key(text, questions): vector for text, vector in made}
            done = first + len(some)
            progress.reach(done)
            if done % _SAVED_AT_A_TIME == 0 or done == len(missing):
                self._save()

    def _save(self) -> None:
        values = np.stack(list(self._found.values()))
        table = pa.table(
            {
                "text_sha256": pa.array(list(self._found)),
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]),
            }
        )
        with atomic_file(self._path) as fresh:
            pq.write_table(table, fresh)


def _vector_key(text: str, question: bool) -> str:
    return _sha256(f"question\x1f{text}" if question else text)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
