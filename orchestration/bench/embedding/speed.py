"""`bench embed`: documents embedded per second, and nDCG@10, compared with sentence-transformers."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from orchestration.bench.embedding.collection import (
    DEPTH,
    TextEncoder,
    Vectors,
    documents,
    ndcg,
    prose,
    sample,
)
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
_WARM_UP = 32
_REFERENCE = "sentence_transformers"


class NoBenchEmbeddingReference(RuntimeError):
    """sentence-transformers is not installed, or an endpoint is configured."""


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
        NoBenchEmbeddingReference: sentence-transformers is not installed, or an endpoint is configured.
        NoTestCollection: The folder has another layout.
    """
    encoders = {
        "headwater": _ours(settings, "none"),
        "headwater_int8": _ours(settings, "int8"),
        _REFERENCE: _theirs(settings.recipe.embedder),
    }
    corpora = {"prose": prose(_DOCUMENTS)}
    if data is not None:
        corpora["beir"] = sample(documents(data), _DOCUMENTS)
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
        ranked = {name: ndcg(data, encoder) for name, encoder in encoders.items()}
        figures |= {f"{name}_ndcg@{DEPTH}": value for name, value in ranked.items()}
        for name in ranked.keys() - {_REFERENCE}:
            figures[f"{name}_ndcg_loss_percent"] = 100 * (1 - ranked[name] / ranked[_REFERENCE])
    return BenchResult("embed", figures, ratios)


def _ours(settings: Settings, quantization: Quantization) -> TextEncoder:
    config = settings.recipe.embedder
    if config.endpoint.url:
        raise NoBenchEmbeddingReference(
            "an embeddings endpoint is configured, and this measures a model here: unset "
            "HEADWATER_RECIPE__EMBEDDER__ENDPOINT__URL"
        )
    config = config.model_copy(update={"quantization": quantization})
    embedder = EmbeddingModel.of(config, settings.home).embedder
    return TextEncoder(embedder.encode, embedder.encode_queries)


def _theirs(config: EmbedderConfig) -> TextEncoder:
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
    return TextEncoder(partial(encode, prompts.document), partial(encode, prompts.query))


def _in_turns(
    encoders: dict[str, TextEncoder], texts: Sequence[str]
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
