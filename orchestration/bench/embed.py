"""How many documents a second are embedded here and by sentence-transformers, and what the speed costs."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ir_measures import Qrel, ScoredDoc, calc_aggregate, nDCG

from assets.transforms.environment_corpus import list_environment, read_environment
from orchestration.bench.report import BenchResult
from retrieval.embedder import Embedder, EmbedderConfig

_DOCUMENTS = 300
_DOCUMENT_WORDS = 180
"""About the 240 tokens of an abstract, or of a chunk."""
_DEPTH = 10

Encode = Callable[[Sequence[str]], npt.NDArray[np.float32]]


class NoReference(RuntimeError):
    """The library that ours is compared with, or the collection to compare them on, is not there."""


def run(data: Path | None = None) -> BenchResult:
    """Embeds the same texts with both, each with its defaults and all cores, by the clock.

    Args:
        data: A folder in BEIR's layout (`corpus.jsonl`, `queries.jsonl`, `qrels/test.tsv`): nDCG@10 of
            exact search over both's vectors says what ours lose; it embeds the whole collection twice.

    Returns:
        Documents a second of each and their ratio, the least and mean cosine between the two's vectors, and
        with data `headwater_ndcg@10`, `sentence_transformers_ndcg@10` and the relative loss in percent.

    Raises:
        NoReference: sentence-transformers is not installed, or the folder is not in that layout.
    """
    ours, theirs = _ours(), _sentence_transformers()
    texts = _texts()
    ours(texts[:8])
    theirs(texts[:8])  # both have loaded everything they need
    vectors, seconds = _timed(ours, texts)
    reference, reference_s = _timed(theirs, texts)
    cosines = (vectors * reference).sum(axis=1)
    figures = {
        "documents": float(len(texts)),
        "headwater_documents_s": len(texts) / seconds,
        "sentence_transformers_documents_s": len(texts) / reference_s,
        "least_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
    }
    ratios = {"headwater_to_sentence_transformers": reference_s / seconds}
    if data is not None:
        kept, full = (_ndcg(data, encode) for encode in (ours, theirs))
        figures |= {f"headwater_ndcg@{_DEPTH}": kept, f"sentence_transformers_ndcg@{_DEPTH}": full}
        figures["ndcg_loss_percent"] = 100 * (1 - kept / full)
    return BenchResult("embed", figures, ratios)


def _ours() -> Encode:
    config = EmbedderConfig()
    Embedder.prepare(config)
    return Embedder(config).encode


def _sentence_transformers() -> Encode:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise NoReference("sentence-transformers is not installed: make setup EXTRAS=train") from error
    model = SentenceTransformer(str(EmbedderConfig().model), device="cpu")

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        found = model.encode(list(texts), show_progress_bar=False, normalize_embeddings=True)
        return np.asarray(found, np.float32)

    return encode


def _timed(encode: Encode, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], float]:
    began = time.perf_counter()
    vectors = encode(texts)
    return vectors, time.perf_counter() - began


def _texts() -> list[str]:
    """Real prose of one length: what the installed software says of itself, cut into documents."""
    rows = read_environment(list_environment())
    words = [body.decode("utf-8", "replace").split() for body in rows["body"].to_pylist() if body]
    cut = [
        " ".join(each[at : at + _DOCUMENT_WORDS])
        for each in words
        for at in range(0, len(each) - _DOCUMENT_WORDS, _DOCUMENT_WORDS)
    ]
    return [cut[i] for i in np.random.default_rng(0).permutation(len(cut))[:_DOCUMENTS]]


def _ndcg(data: Path, encode: Encode) -> float:
    corpus, queries = (_jsonl(data / name) for name in ("corpus.jsonl", "queries.jsonl"))
    qrels = [
        Qrel(query, document, int(score))
        for line in (data / "qrels" / "test.tsv").read_text().splitlines()[1:]
        for query, document, score in [line.split("\t")]
    ]
    asked = {qrel.query_id for qrel in qrels}
    ids = [row["_id"] for row in queries if row["_id"] in asked]
    documents = encode([f"{row.get('title', '')} {row['text']}".strip() for row in corpus])
    scores = encode([row["text"] for row in queries if row["_id"] in asked]) @ documents.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :_DEPTH]
    found = [
        ScoredDoc(query, corpus[place]["_id"], float(scores[row, place]))
        for row, query in enumerate(ids)
        for place in best[row]
    ]
    return float(calc_aggregate([nDCG @ _DEPTH], qrels, found)[nDCG @ _DEPTH])


def _jsonl(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise NoReference(f"there is no {path}: name a folder in BEIR's layout")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
