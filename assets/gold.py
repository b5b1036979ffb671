"""Gold: what retrieval is made from.

`gold/chunks` cuts each document that no other stands for into exact spans; `gold/embeddings` holds one vector
for each distinct chunk text and model.
"""

import hashlib
import os
from collections.abc import Iterator
from functools import partial
from typing import TypeAlias

import dagster as dg
import pyarrow as pa
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from assets.dagster.metadata import described, report
from assets.engine.step import WORK_BYTES, Step, begin, mapped
from assets.lake.ids import config_digest
from assets.lake.lake import Lake
from assets.lake.tables import CHUNKS, DOCUMENTS, DUPLICATES, EMBEDDINGS
from assets.recipe import Recipe
from retrieval.chunking.chunker import CHUNK_COLUMNS, chunk_document_batches
from retrieval.embedding.embedder import EMBEDDING_COLUMNS, embed_batches
from retrieval.embedding.embedding_model import EmbeddingModel

_TEXT_KEY = ["tenant", "text_sha256"]
_FEW_TEXTS = 256
"""Texts that this process embeds itself, in about the time that a JVM and its workers take to start."""

Batches: TypeAlias = Iterator[pa.RecordBatch]


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
        cut = partial(chunk_document_batches, config=recipe.chunker, tokenizer_path=model.tokenizer_path)
        changed = (step.changed_here(table, WORK_BYTES) for table in (DOCUMENTS, DUPLICATES))
        here = [rows for rows in changed if rows is not None]
        if len(here) == 2:
            ids = pa.concat_tables([rows.select(["doc_id"]) for rows in here])
            texts = lake.query(
                """
                select doc_id, tenant, text, headings from documents
                semi join ids using (doc_id) anti join duplicates using (doc_id)
                """,
                ids=ids,
                documents=lake.delta(DOCUMENTS.name, documents_version),
                duplicates=lake.delta(DUPLICATES.name, duplicates_version),
            )
            step.merge(mapped(texts, cut, CHUNK_COLUMNS), ids)
        else:
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
            pieces = (
                canonical.select("doc_id", "tenant", "text", "headings")
                .repartition(2 * lake.spark.sparkContext.defaultParallelism)
                .mapInArrow(cut, from_arrow_schema(CHUNK_COLUMNS))
            )
            step.merge(pieces, scope)
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
        model.prepare()
        encode = partial(embed_batches, config=recipe.embedder, cache=model.cache)
        here = step.changed_here(CHUNKS, WORK_BYTES)
        if here is not None and here.num_rows <= _FEW_TEXTS:
            _embed_here(step, here.select(_TEXT_KEY), model, encode)
        else:
            _embed(step, model, encode)
    return report(lake, EMBEDDINGS, model=str(model.config.model), model_digest=model.digest)


def _embed_here(step: Step, touched: pa.Table, model: EmbeddingModel, encode: partial[Batches]) -> None:
    """Embeds the texts of the keys that have no vector yet, in this process with all cores."""
    lake = step.lake
    tables = {
        "touched": touched,
        "chunks": lake.delta(CHUNKS.name, step.windows[CHUNKS.name].until),
        "embeddings": lake.delta(EMBEDDINGS.name, step.version),
    }
    wanted = lake.query(
        """
        select tenant, text_sha256, any_value(text) as text
        from chunks semi join touched using (tenant, text_sha256) group by all
        """,
        **tables,
    )
    kept = lake.query(
        """
        select tenant, text_sha256, model_digest, vector
        from embeddings semi join wanted using (tenant, text_sha256) where model_digest = ?
        """,
        [model.digest],
        wanted=wanted,
        **tables,
    ).cast(EMBEDDING_COLUMNS)
    new = lake.query("from wanted anti join kept using (tenant, text_sha256)", wanted=wanted, kept=kept)
    vectors = mapped(new, partial(encode, threads=os.cpu_count() or 1), EMBEDDING_COLUMNS)
    step.merge(pa.concat_tables([kept, vectors]), touched)


def _embed(step: Step, model: EmbeddingModel, encode: partial[Batches]) -> None:
    """`_embed_here` of many texts, by Spark's workers with a core each."""
    lake = step.lake
    touched = step.changed(CHUNKS).select(_TEXT_KEY).distinct().persist()
    wanted = (
        step.current(CHUNKS)
        .join(F.broadcast(touched), _TEXT_KEY, "left_semi")
        .select(*_TEXT_KEY, "text")
        .dropDuplicates(_TEXT_KEY)
    )
    there = lake.frame(EMBEDDINGS.name, step.version).where(F.col("model_digest") == model.digest)
    kept = there.join(wanted, _TEXT_KEY, "left_semi")
    new = wanted.join(there, _TEXT_KEY, "left_anti")
    cores = lake.spark.sparkContext.defaultParallelism
    encoded = new.repartition(cores).mapInArrow(
        partial(encode, threads=1), from_arrow_schema(EMBEDDING_COLUMNS)
    )
    step.merge(kept.select(*encoded.columns).unionByName(encoded), touched)
    touched.unpersist()
