"""A state folder whose live release serves three sentences: for tests of questions and of reranking."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from index_rows import NO_LINEAGE, Chunk, batch, made_with

from orchestration.operations.ask import open_ask_service
from orchestration.settings import Settings
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.store.postgres import Postgres

TEXTS = {
    "danube": "The Danube rises in the Black Forest in Germany.",
    "bread": "Bread is baked from flour, water and salt.",
    "rivers": "Rivers rise in hills and end in the sea.",
}


@contextmanager
def state_with_small_release(home: Path) -> Iterator[Settings]:
    """Yields the settings of a state folder with the release `live` of `TEXTS`, all of the tenant acme."""
    settings = Settings(home=home)
    settings.home.mkdir()
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    vectors = model.embedder.encode(list(TEXTS.values()))
    rows = [
        replace(Chunk(name, text), vector=tuple(vector.tolist()))
        for (name, text), vector in zip(TEXTS.items(), vectors, strict=True)
    ]
    index = open_ask_service(settings).index
    built = index.build(model.digest, "chunker", vectors.shape[1], [batch(rows)], NO_LINEAGE)
    details = made_with(model.digest).model_copy(
        update={"versions": {"silver.documents": 0}, "metrics": {"ndcg@10": 1.0}}
    )
    index.release("live", built, None, details)
    try:
        yield settings
    finally:
        Postgres(settings.home, settings.postgres).stop()
