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
from retrieval.embedding.model_folder import ModelFolder, read_model_folder
from retrieval.embedding.tokenization import load_text_tokenizer

_DOCUMENTS = 288
_SLICE = 96
"""Documents per turn: the encoders take turns, so that other work on the machine slows all alike."""
_DOCUMENT_WORDS = 180
"""About the 240 tokens of an abstract, or of a chunk."""
_WARM_UP = 32
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
        data: A folder in BEIR's layout (`corpus.jsonl`, `queries.jsonl`, `qrels/test.tsv`). The speed is
            measured on its documents too. Then the bench embeds the collection with each of the three and
            measures nDCG@10 of an exact search.

    Returns:
        For the texts of the installed software (`prose`), and of a collection (`beir`): their mean number of
        tokens and the share of them that is as long as the model reads; for each of the three, documents per
        second and processor time per document; ratios of Headwater's figures to those of
        sentence-transformers (a busy machine distorts processor time least), and the minimum and mean cosine
        similarity of the vectors of the two. With `data` also the nDCG@10 of each, and Headwater's loss in
        percent of that of sentence-transformers.

    Raises:
        NoBenchEmbeddingReference: sentence-transformers is not installed, the folder has another layout, or
            an endpoint is configured.
    """
    encoders = {
        "headwater": _ours(settings, "none"),
        "headwater_int8": _ours(settings, "int8"),
        _REFERENCE: _theirs(settings.recipe.embedder),
    }
    corpora = {"prose": _prose()}
    if data is not None:
        corpora["beir"] = _sample([_text(row) for row in _jsonl(data / "corpus.jsonl")])
    figures, ratios = dict[str, float](), dict[str, float]()
    for corpus, texts in corpora.items():
        figures |= _lengths(corpus, texts, read_model_folder(settings.recipe.embedder.model_path))
        for encoder in encoders.values():
            encoder.documents(texts[:_WARM_UP])  # each has loaded everything it needs
        vectors, wall_s, processor_s = _in_turns(encoders, texts)
        for name in encoders:
            named = f"{corpus}_{name}"
            figures[f"{named}_documents_s"] = len(texts) / wall_s[name]
            figures[f"{named}_processor_ms_document"] = 1000 * processor_s[name] / len(texts)
            if name != _REFERENCE:
                cosines = (vectors[name] * vectors[_REFERENCE]).sum(axis=1)
                figures |= {f"{named}_{of}_cosine": float(getattr(cosines, of)()) for of in ("min", "mean")}
                ratios[f"{named}_to_{_REFERENCE}"] = wall_s[_REFERENCE] / wall_s[name]
                ratios[f"{named}_to_{_REFERENCE}_processor_time"] = (
                    processor_s[_REFERENCE] / processor_s[name]
                )
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


def _lengths(corpus: str, texts: Sequence[str], folder: ModelFolder) -> dict[str, float]:
    tokens = [len(each) for each in load_text_tokenizer(folder).encode_batch_fast(list(texts))]
    return {
        f"{corpus}_documents": float(len(texts)),
        f"{corpus}_tokens_mean": float(np.mean(tokens)),
        f"{corpus}_share_cut_off": float(np.mean(np.equal(tokens, folder.max_tokens))),
    }


def _sample(texts: list[str]) -> list[str]:
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:_DOCUMENTS]]


def _prose() -> list[str]:
    """Returns real prose in documents of one length, from the texts of the installed software."""
    rows = read_environment_corpus(list_environment_corpus())
    words = [body.decode("utf-8", "replace").split() for body in rows["body"].to_pylist() if body]
    return _sample(
        [
            " ".join(each[at : at + _DOCUMENT_WORDS])
            for each in words
            for at in range(0, len(each) - _DOCUMENT_WORDS, _DOCUMENT_WORDS)
        ]
    )


def _ndcg(data: Path, encoder: _Encoder) -> float:
    corpus, queries = (_jsonl(data / name) for name in ("corpus.jsonl", "queries.jsonl"))
    qrels = [
        Qrel(query, document, int(score))
        for line in (data / "qrels" / "test.tsv").read_text().splitlines()[1:]
        for query, document, score in [line.split("\t")]
    ]
    asked = {qrel.query_id for qrel in qrels}
    ids = [row["_id"] for row in queries if row["_id"] in asked]
    documents = encoder.documents([_text(row) for row in corpus])
    scores = encoder.questions([row["text"] for row in queries if row["_id"] in asked]) @ documents.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :_DEPTH]
    found = [
        ScoredDoc(query, corpus[place]["_id"], float(scores[row, place]))
        for row, query in enumerate(ids)
        for place in best[row]
    ]
    return float(calc_aggregate([nDCG @ _DEPTH], qrels, found)[nDCG @ _DEPTH])


def _text(row: dict[str, str]) -> str:
    return f"{row.get('title', '')} {row['text']}".strip()


def _jsonl(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise NoBenchEmbeddingReference(f"there is no {path}: name a folder in BEIR's layout")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
