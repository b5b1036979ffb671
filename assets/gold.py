"""Gold: what retrieval is made from.

`gold/chunks` cuts each document that no other stands for into exact spans; `gold/embeddings` holds one vector
for each distinct chunk text and model.
"""

import hashlib
from functools import partial

import dagster as dg
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from assets.ids import config_digest
from assets.lake import Lake
from assets.recipe import Recipe
from assets.report import described, report
from assets.step import begin
from assets.tables import CHUNKS, DOCUMENTS, DUPLICATES, EMBEDDINGS
from retrieval.chunker import CHUNK_COLUMNS, chunk_batches
from retrieval.embedder import EMBEDDING_COLUMNS, encode_batches
from retrieval.embedding_model import EmbeddingModel


def chunker_digest(recipe: Recipe, model: EmbeddingModel) -> str:
    """What decides how a document is cut: the budget, and the tokenizer that counts it."""
    tokenizer = hashlib.sha256(model.tokenizer_path.read_bytes()).hexdigest()
    return config_digest(f"{recipe.chunker.digest}/{tokenizer}")


@dg.asset(**described(CHUNKS, DOCUMENTS, DUPLICATES), pool="spark")
def chunks(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    model: dg.ResourceParam[EmbeddingModel],
) -> dg.MaterializeResult:
    """Cuts the documents that changed, or that another began or ceased to stand for."""
    duplicates_version = lake.version(DUPLICATES.name)
    # Documents as the deduplication saw them: a newer one may yet turn out to be a duplicate.
    documents_version = lake.inputs_of(DUPLICATES.name, duplicates_version)[DOCUMENTS.name]
    step = begin(
        lake,
        CHUNKS,
        {DOCUMENTS: documents_version, DUPLICATES: duplicates_version},
        run_id=context.run_id,
        config_digest=chunker_digest(recipe, model),
    )
    if not step.idle:
        documents, duplicates = step.current(DOCUMENTS), step.current(DUPLICATES)
        scope = (
            step.changed(DOCUMENTS)
            .select("doc_id")
            .unionByName(step.changed(DUPLICATES).select("doc_id"))
            .distinct()
            .persist()
        )
        canonical = documents.join(F.broadcast(scope), "doc_id", "left_semi").join(
            duplicates, "doc_id", "left_anti"
        )
        cut = (
            canonical.select("doc_id", "tenant", "text", "headings")
            .repartition(2 * lake.spark.sparkContext.defaultParallelism)
            .mapInArrow(
                partial(chunk_batches, config=recipe.chunker, tokenizer_path=model.tokenizer_path),
                from_arrow_schema(CHUNK_COLUMNS),
            )
        )
        step.merge(cut, scope)
        scope.unpersist()
    return report(lake, CHUNKS)


@dg.asset(**described(EMBEDDINGS, CHUNKS, kinds=("spark", "deltalake", "openvino")), pool="spark")
def embeddings(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    model: dg.ResourceParam[EmbeddingModel],
) -> dg.MaterializeResult:
    """Embeds each chunk text that has no vector yet; vectors that no chunk needs any more go."""
    step = begin(
        lake,
        EMBEDDINGS,
        {CHUNKS: lake.readable_version(CHUNKS)},
        run_id=context.run_id,
        config_digest=model.digest,
    )
    if not step.idle:
        key = ["tenant", "text_sha256"]
        touched = step.changed(CHUNKS).select(key).distinct().persist()
        wanted = (
            step.current(CHUNKS)
            .join(F.broadcast(touched), key, "left_semi")
            .select(*key, "text")
            .dropDuplicates(key)
        )
        there = lake.frame(EMBEDDINGS.name, step.version).where(F.col("model_digest") == model.digest)
        kept = there.join(wanted, key, "left_semi")
        new = wanted.join(there, key, "left_anti")
        model.prepare()
        cores = lake.spark.sparkContext.defaultParallelism
        encoded = new.repartition(cores).mapInArrow(
            partial(encode_batches, config=recipe.embedder, cache=model.cache, threads=1),
            from_arrow_schema(EMBEDDING_COLUMNS),
        )
        step.merge(kept.select(*encoded.columns).unionByName(encoded), touched)
        touched.unpersist()
    return report(lake, EMBEDDINGS, model=str(model.config.model), model_digest=model.digest)
