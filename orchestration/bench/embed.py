"""`bench embed`: documents embedded per second, and nDCG@10, compared with sentence-transformers."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ir_measures import Qrel, ScoredDoc, calc_aggregate, nDCG

from assets.sources.environment_corpus import list_environment_corpus, read_environment_corpus
from orchestration.bench.report import BenchResult
from orchestration.settings import Settings
from retrieval.embedding.config import EmbedderConfig, Quantization
from retrieval.embedding.embedder import effective_prompts
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.embedding.model_folder import read_model_folder

_DOCUMENTS = 288
_SLICE = 96
"""Documents per turn: the encoders take turns, so that other work on the machine slows all alike."""
_DOCUMENT_WORDS = 180
"""About the 240 tokens of an abstract, or of a chunk."""
_DEPTH = 10
_REFERENCE = "sentence_transformers"

Vectors = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True)
class _Encoder:
    documents: Encode
    questions: Encode


class NoBenchEmbeddingReference(RuntimeError):
    """sentence-transformers is not installed, or the folder holds no test collection."""


def bench_embedding(settings: Settings, data: Path | None = None) -> BenchResult:
    """Compares the embedder, the embedder in int8, and sentence-transformers on the same texts and all cores.

    Args:
        settings: Whose embedder is measured; not an endpoint.
        data: A folder in BEIR's layout (`corpus.jsonl`, `queries.jsonl`, `qrels/test.tsv`). The bench embeds
            the collection with each of the three and measures nDCG@10 of an exact search.

    Returns:
        For each of the three, documents per second and processor time per document. Ratios of Headwater's
        figures to those of sentence-transformers (a busy machine distorts processor time least), and the
        minimum and mean cosine similarity of the vectors of the two. With `data` also the nDCG@10 of each,
        and Headwater's loss in percent of that of sentence-transformers.

    Raises:
        NoBenchEmbeddingReference: sentence-transformers is not installed, the folder has another layout, or
            an endpoint is configured.
    """
    encoders = {
        "headwater": _ours(settings, "none"),
        "headwater_int8": _ours(settings, "int8"),
        _REFERENCE: _theirs(settings.recipe.embedder),
    }
    texts = _texts()
    for encoder in encoders.values():
        encoder.documents(texts[:8])  # each has loaded everything it needs
    vectors, wall_s, processor_s = _in_turns(encoders, texts)
    figures = {"documents": float(len(texts))}
    ratios = {}
    for name in encoders:
        figures[f"{name}_documents_s"] = len(texts) / wall_s[name]
        figures[f"{name}_processor_ms_document"] = 1000 * processor_s[name] / len(texts)
        if name != _REFERENCE:
            cosines = (vectors[name] * vectors[_REFERENCE]).sum(axis=1)
            figures |= {f"{name}_{of}_cosine": float(getattr(cosines, of)()) for of in ("min", "mean")}
            ratios[f"{name}_to_{_REFERENCE}"] = wall_s[_REFERENCE] / wall_s[name]
            ratios[f"{name}_to_{_REFERENCE}_processor_time"] = processor_s[_REFERENCE] / processor_s[name]
    if data is not None:
        ndcg = {name: _ndcg(data, encoder) for name, encoder in encoders.items()}
        figures |= {f"{name}_ndcg@{_DEPTH}": value for name, value in ndcg.items()}
        for name in ndcg.keys() - {_REFERENCE}:
            figures[f"{name}_ndcg_loss_percent"] = 100 * (1 - ndcg[name] / ndcg[_REFERENCE])
    return BenchResult("embed", figures, ratios)


def _ours(settings: Settings, quantization: Quantization) -> _Encoder:
    config = settings.recipe.embedder
    if config.endpoint.url:
        raise NoBenchEmbeddingReference(
            "an embeddings endpoint is configured, and this measures a model here: unset "
            "HEADWATER_RECIPE__EMBEDDER__ENDPOINT__URL"
        )
    config = config.model_copy(update={"quantization": quantization})
    embedder = EmbeddingModel.of(config, settings.home).embedder
    return _Encoder(embedder.encode, embedder.encode_queries)


def _theirs(config: EmbedderConfig) -> _Encoder:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise NoBenchEmbeddingReference(
            "sentence-transformers is not installed: make setup EXTRAS=train"
        ) from error
    folder = read_model_folder(config.model_path)
    model = SentenceTransformer(str(folder.path), device="cpu", trust_remote_code=False)

    def encode(prompt: str, texts: Sequence[str]) -> Vectors:
        found = model.encode(
            list(texts),
            prompt=prompt,
            truncate_dim=config.dimension,
            show_progress_bar=False,
            normalize_embeddings=True,
        )
        return np.asarray(found, np.float32)

    prompts = effective_prompts(folder, config)
    return _Encoder(partial(encode, prompts.document), partial(encode, prompts.query))


def _in_turns(
    encoders: dict[str, _Encoder], texts: Sequence[str]
) -> tuple[dict[str, Vectors], dict[str, float], dict[str, float]]:
    """Returns the vectors of each encoder, and the wall-clock and processor seconds that it took."""
    parts: dict[str, list[Vectors]] = {name: [] for name in encoders}
    wall_s, processor_s = (dict.fromkeys(encoders, 0.0) for _ in range(2))
    for first in range(0, len(texts), _SLICE):
        for name, encoder in encoders.items():
            wall, processor = time.perf_counter(), time.process_time()
            parts[name].append(encoder.documents(texts[first : first + _SLICE]))
            wall_s[name] += time.perf_counter() - wall
            processor_s[name] += time.process_time() - processor
    return {name: np.concatenate(each) for name, each in parts.items()}, wall_s, processor_s


def _texts() -> list[str]:
    """Returns real prose in documents of one length, from the texts of the installed software."""
    rows = read_environment_corpus(list_environment_corpus())
    words = [body.decode("utf-8", "replace").split() for body in rows["body"].to_pylist() if body]
    cut = [
        " ".join(each[at : at + _DOCUMENT_WORDS])
        for each in words
        for at in range(0, len(each) - _DOCUMENT_WORDS, _DOCUMENT_WORDS)
    ]
    return [cut[i] for i in np.random.default_rng(0).permutation(len(cut))[:_DOCUMENTS]]


def _ndcg(data: Path, encoder: _Encoder) -> float:
    corpus, queries = (_jsonl(data / name) for name in ("corpus.jsonl", "queries.jsonl"))
    qrels = [
        Qrel(query, document, int(score))
        for line in (data / "qrels" / "test.tsv").read_text().splitlines()[1:]
        for query, document, score in [line.split("\t")]
    ]
    asked = {qrel.query_id for qrel in qrels}
    ids = [row["_id"] for row in queries if row["_id"] in asked]
    documents = encoder.documents([f"{row.get('title', '')} {row['text']}".strip() for row in corpus])
    scores = encoder.questions([row["text"] for row in queries if row["_id"] in asked]) @ documents.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :_DEPTH]
    found = [
        ScoredDoc(query, corpus[place]["_id"], float(scores[row, place]))
        for row, query in enumerate(ids)
        for place in best[row]
    ]
    return float(calc_aggregate([nDCG @ _DEPTH], qrels, found)[nDCG @ _DEPTH])


def _jsonl(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise NoBenchEmbeddingReference(f"there is no {path}: name a folder in BEIR's layout")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
