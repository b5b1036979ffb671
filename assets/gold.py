"""Gold: the chunks and vectors from which the index is built.

`gold/chunks` divides each document that is not a duplicate into exact spans; `gold/embeddings` holds one
vector per distinct chunk text and model.
"""

from functools import partial

import dagster as dg

from assets.dagster.metadata import dagster_asset_options, dagster_result
from assets.engine.limits import PARSED_BYTES, LocalLimits
from assets.engine.relations import BatchFunction, Relations
from assets.engine.step import begin_step
from assets.lake.audits import readable_version
from assets.lake.lake import Lake
from assets.lake.tables import CHUNKS, DOCUMENTS, DUPLICATES, EMBEDDINGS
from assets.recipe import Recipe
from retrieval.chunking.chunker import CHUNK_COLUMNS, chunk_document_batches
from retrieval.embedding.batches import EMBEDDING_COLUMNS, embed_batches
from retrieval.embedding.embedding_model import EmbeddingModel

_FEW_TEXTS = 256
"""Texts that this process embeds itself, in about the time that a JVM and its workers take to start."""

_CHUNKED_SCOPE = "SELECT doc_id FROM {changed_documents} UNION SELECT doc_id FROM {changed_duplicates}"
"""Documents whose text changed, or that another began or ceased to stand for."""
_CANONICAL_TEXTS = """
    SELECT /*+ BROADCAST(scope) */ doc_id, tenant, text, headings FROM {documents}
    SEMI JOIN {scope} AS scope USING (doc_id) ANTI JOIN {duplicates} USING (doc_id)
"""
"""The texts of those that no other stands for."""


@dg.asset(**dagster_asset_options(CHUNKS, DOCUMENTS, DUPLICATES), pool="spark")
def chunks_asset(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    model: dg.ResourceParam[EmbeddingModel],
) -> dg.MaterializeResult:
    """Divides documents into chunks if they changed, or became or ceased to be duplicates."""
    duplicates_version = lake.version(DUPLICATES.name)
    # Documents as the deduplication saw them: a newer one may yet turn out to be a duplicate.
    documents_version = lake.inputs_of(DUPLICATES.name, duplicates_version)[DOCUMENTS.name]
    step = begin_step(
        lake,
        CHUNKS,
        {DOCUMENTS: documents_version, DUPLICATES: duplicates_version},
        run_id=context.run_id,
        config_digest=recipe.chunker_digest(model),
    )
    if not step.idle:
        cut = partial(chunk_document_batches, config=recipe.chunker, tokenizer_path=model.tokenizer_path)
        limits = LocalLimits(change_bytes=PARSED_BYTES)
        with step.relations((DOCUMENTS, DUPLICATES), (DOCUMENTS, DUPLICATES), limits=limits) as on:
            on.define("scope", _CHUNKED_SCOPE, reused=True)
            on.map_batches("pieces", _CANONICAL_TEXTS, cut, CHUNK_COLUMNS, spread=True)
            step.merge(on, "pieces", "scope")
    return dagster_result(lake, CHUNKS)


@dg.asset(**dagster_asset_options(EMBEDDINGS, CHUNKS, kinds=("spark", "deltalake", "openvino")), pool="spark")
def embeddings_asset(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    model: dg.ResourceParam[EmbeddingModel],
) -> dg.MaterializeResult:
    """Embeds each chunk text that has no vector yet, and deletes vectors that no chunk needs any more."""
    step = begin_step(
        lake,
        EMBEDDINGS,
        {CHUNKS: readable_version(lake, CHUNKS)},
        run_id=context.run_id,
        config_digest=model.digest,
    )
    if not step.idle:
        model.prepare()
        limits = LocalLimits(change_bytes=PARSED_BYTES, change_rows=_FEW_TEXTS)
        with step.relations((CHUNKS,), (CHUNKS, EMBEDDINGS), limits=limits) as on:
            encode = partial(
                embed_batches, config=recipe.embedder, cache=model.cache, threads=on.threads_per_call
            )
            define_gold_vectors(on, model.digest, encode)
            step.merge(on, "vectors", "touched")
    return dagster_result(lake, EMBEDDINGS, model=model.name, model_digest=model.digest)


_TOUCHED = "SELECT DISTINCT tenant, text_sha256 FROM {changed_chunks}"
"""The texts that came or went, by their keys."""
_WANTED = """
    SELECT /*+ BROADCAST(touched) */ tenant, text_sha256, any_value(text) AS text
    FROM {chunks} SEMI JOIN {touched} AS touched USING (tenant, text_sha256) GROUP BY tenant, text_sha256
"""
"""Those of them that a chunk has."""
_KEPT = """
    SELECT tenant, text_sha256, model_digest, vector
    FROM {embeddings} SEMI JOIN {wanted} USING (tenant, text_sha256) WHERE model_digest = {digest}
"""
"""The vectors of those that have been embedded before."""


def define_gold_vectors(on: Relations, model_digest: str, encode: BatchFunction) -> None:
    """Defines `vectors`, new rows of `gold.embeddings`, and `touched`, the keys of the rows they replace.

    Args:
        on: The relations: `chunks` with their changes, and `embeddings`.
        model_digest: The digest of the embedding model.
        encode: Takes batches of tenant, text_sha256 and text, and yields batches of `EMBEDDING_COLUMNS`.
    """
    on.define("touched", _TOUCHED, reused=True)
    on.define("wanted", _WANTED, reused=True)
    on.define("kept", _KEPT, digest=model_digest)
    new = "SELECT * FROM {wanted} ANTI JOIN {kept} USING (tenant, text_sha256)"
    on.map_batches("encoded", new, encode, EMBEDDING_COLUMNS, spread=True)
    columns = ", ".join(EMBEDDING_COLUMNS.names)
    on.define("vectors", f"SELECT {columns} FROM {{kept}} UNION ALL SELECT {columns} FROM {{encoded}}")
