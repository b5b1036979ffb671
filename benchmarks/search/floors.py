"""The floors of `bench search`: bm25s and faiss in memory, without tenants, transactions or changes."""

import importlib.util
import time
from collections.abc import Callable

import numpy as np

from benchmarks.search.corpus import BenchCorpus, BenchQuery
from retrieval.index.binary_copy import copied_vectors
from retrieval.index.index import IndexConfig
from retrieval.search.searcher import SearchConfig
from retrieval.search.vector_search import scaled_ef_search

FLOOR_NAMES = ("bm25s", "faiss")
_WARM_UP = 20


def bench_search_floors(
    corpus: BenchCorpus, queries: list[BenchQuery], k: int, progress: Callable[[str], None]
) -> dict[str, float]:
    """Measures bm25s and faiss: each indexes the whole corpus and then searches one query at a time.

    Returns:
        For each library that is installed, the seconds of the build and percentiles of latency; for faiss
        also recall.
    """
    figures: dict[str, float] = {}
    for name, measured in (("bm25s", _bm25s), ("faiss", _faiss)):
        if not _installed(name):
            progress(
                f"{name} is not installed, so there is no floor to compare with: `make setup EXTRAS=dev`"
            )
        else:
            progress(f"{name} over the same chunks")
            figures |= measured(corpus, queries, k)
    return figures


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _bm25s(corpus: BenchCorpus, queries: list[BenchQuery], k: int) -> dict[str, float]:
    """Measures bm25s: its own tokenizer, English stop words, no stemmer, scores computed while indexing."""
    import bm25s

    texts = [text for batch in corpus.batches() for text in batch.column("text").to_pylist()]
    began = time.perf_counter()
    model = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    model.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    build_s = time.perf_counter() - began

    def ask(query: BenchQuery) -> object:
        words = bm25s.tokenize(query.text, stopwords="en", return_ids=False, show_progress=False)
        return model.retrieve(words, k=k, show_progress=False)

    return {"bm25s_build_s": build_s} | _latency("bm25s", queries, ask)


def _faiss(corpus: BenchCorpus, queries: list[BenchQuery], k: int) -> dict[str, float]:
    """Measures faiss: HNSW with our parameters over float32, inner product of vectors of length 1."""
    import faiss

    rows = np.concatenate([copied_vectors(batch.column("vector")) for batch in corpus.batches()])
    began = time.perf_counter()
    built = IndexConfig()
    graph = faiss.IndexHNSWFlat(rows.shape[1], built.hnsw_m, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = built.hnsw_ef_construction
    graph.hnsw.efSearch = scaled_ef_search(SearchConfig(), len(rows))
    graph.add(rows)
    build_s = time.perf_counter() - began
    asked = np.stack([query.vector for query in queries])
    exact = faiss.IndexFlatIP(rows.shape[1])
    exact.add(rows)
    true = exact.search(asked, k)[1]
    faiss.omp_set_num_threads(1)
    found = graph.search(asked, k)[1]
    recall = np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(found, true, strict=True)])
    latency = _latency("faiss", queries, lambda query: graph.search(query.vector[None], k))
    return {"faiss_build_s": build_s, f"faiss_recall@{k}": float(recall)} | latency


def _latency(name: str, queries: list[BenchQuery], ask: Callable[[BenchQuery], object]) -> dict[str, float]:
    for query in queries[:_WARM_UP]:
        ask(query)
    milliseconds = []
    for query in queries:
        began = time.perf_counter()
        ask(query)
        milliseconds.append(1000 * (time.perf_counter() - began))
    return {f"{name}_p{percent}_ms": float(np.percentile(milliseconds, percent)) for percent in (50, 95, 99)}
