"""Gold: the chunks and vectors from which the index is built, and what is answered from it.

`gold/chunks` divides each document that is not a duplicate into exact spans; `gold/embeddings` holds one
vector per distinct chunk text and model; `gold/answers` answers sets of questions, a partition each.
`gold/training_examples` holds what models can learn from, for the training sets that were asked for.
"""

from collections.abc import Iterator
from functools import partial

import dagster as dg

from assets.answers.batches import AnswerBatches
from assets.answers.stored import stored_batch_ids
from assets.dagster.answers import ANSWER_CHECKS, answers_result
from assets.dagster.metadata import asset_key, dagster_asset_options, dagster_result
from assets.dagster.models import follow_training_tenants
from assets.dagster.retry import retry_asset
from assets.engine.limits import PARSED_BYTES, LocalLimits
from assets.engine.local_relations import LocalRelations
from assets.engine.relations import BatchFunction, Relations
from assets.engine.step import Step, begin_step
from assets.lake.audits import readable_version
from assets.lake.lake import Lake
from assets.lake.tables import (
    ANSWERS,
    CHUNKS,
    DOCUMENTS,
    DUPLICATES,
    EMBEDDINGS,
    TRAINING_EXAMPLES,
    TRAINING_SPLITS,
)
from assets.recipe import Recipe
from assets.sources.source_registry import SourceRegistry
from assets.training_sets.rated_answers import rated_answers
from assets.training_sets.snapshots import mark_removed
from assets.training_sets.step import TrainingInputs, evaluation_questions, refresh_training_examples
from assets.training_sets.teachers import TeacherModels
from common.progress import Progress
from inference.answering.query_service import QueryService
from inference.answering.release_models import ReleaseModels
from inference.batch.answer_batch import answer_batch
from retrieval.chunking.chunker import CHUNK_COLUMNS, chunk_document_batches
from retrieval.embedding.batches import EMBEDDING_COLUMNS, embed_batches
from retrieval.embedding.config import EmbeddingFault
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.search.searcher import Searcher
from training.datasets.requests import DatasetRequests

_FEW_TEXTS = 256
"""Texts that this process embeds itself, and not a cluster, whose workers take about as long to start."""
_TEXTS_PER_COMMIT = 16_384
"""Texts embedded between two commits: the most that an interruption loses."""

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
            on.map_batches(
                "pieces",
                _CANONICAL_TEXTS,
                cut,
                CHUNK_COLUMNS,
                Progress("documents divided into chunks"),
                spread=True,
            )
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
    chunks, progress = {CHUNKS: readable_version(lake, CHUNKS)}, Progress("texts of chunks embedded")
    unfinished = True
    while unfinished:
        step = begin_step(lake, EMBEDDINGS, chunks, run_id=context.run_id, config_digest=model.digest)
        unfinished = not step.idle and _embed_texts(step, recipe, model, progress)
    return dagster_result(lake, EMBEDDINGS, model=model.name, model_digest=model.digest)


def _embed_texts(step: Step, recipe: Recipe, model: EmbeddingModel, progress: Progress) -> bool:
    """Embeds texts and commits their vectors.

    Returns:
        Whether there are more than one commit takes, and the next step has to go on.

    Raises:
        EmbeddingFault: The model or its endpoint stopped. What it had embedded before is committed.
    """
    model.prepare()
    faults: list[EmbeddingFault] = []
    # Where Spark has only this machine's cores, this process has them too. An endpoint wants none.
    here = step.lake.spark_is_local or bool(recipe.embedder.endpoint.url)
    limits = LocalLimits() if here else LocalLimits(PARSED_BYTES, _FEW_TEXTS)
    with step.relations((CHUNKS,), (CHUNKS, EMBEDDINGS), limits=limits) as on:
        encode = partial(
            embed_batches,
            config=recipe.embedder,
            cache=model.cache,
            threads=on.threads_per_call,
            # A fault in a worker of Spark ends its task; the commits before it stay.
            faults=faults if isinstance(on, LocalRelations) else None,
        )
        left = define_gold_vectors(on, model.digest, encode, progress)
        if not left and not faults:
            step.merge(on, "vectors", "touched")
        elif on.row("SELECT count(*) FROM {encoded}") != (0,):
            step.unfinished().merge(on, "encoded", "encoded_keys")
    if faults:
        raise faults[0]
    return left > 0


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


def define_gold_vectors(on: Relations, model_digest: str, encode: BatchFunction, progress: Progress) -> int:
    """Defines `vectors`, new rows of `gold.embeddings`, and `touched`, the keys of the rows they replace.

    Those of them that are embedded now are `encoded`, with the keys `encoded_keys`: as many as one commit
    takes, the longest first, so that texts of one length are embedded together.

    Args:
        on: The relations: `chunks` with their changes, and `embeddings`.
        model_digest: The digest of the embedding model.
        encode: Takes batches of tenant, text_sha256 and text, and yields batches of `EMBEDDING_COLUMNS`.
        progress: Counts the texts.

    Returns:
        The number of texts without a vector that are left for the next commit.
    """
    on.define("touched", _TOUCHED, reused=True)
    on.define("wanted", _WANTED, reused=True)
    on.define("kept", _KEPT, digest=model_digest)
    new = "FROM {wanted} ANTI JOIN {kept} USING (tenant, text_sha256)"
    count: int = on.row(f"SELECT count(*) {new}")[0]
    if progress.total is None:
        progress.total = count
    some = f"SELECT * {new} ORDER BY length(text) DESC, tenant, text_sha256 LIMIT {_TEXTS_PER_COMMIT}"
    on.map_batches("encoded", some, encode, EMBEDDING_COLUMNS, progress, spread=True, reused=True)
    on.define("encoded_keys", "SELECT tenant, text_sha256, model_digest FROM {encoded}")
    columns = ", ".join(EMBEDDING_COLUMNS.names)
    on.define("vectors", f"SELECT {columns} FROM {{kept}} UNION ALL SELECT {columns} FROM {{encoded}}")
    return max(count - _TEXTS_PER_COMMIT, 0)


QUESTION_SETS = dg.DynamicPartitionsDefinition(name="question_sets")
"""A partition per set of questions, by its name."""


@dg.asset(
    **dagster_asset_options(ANSWERS, kinds=("deltalake", "postgres"))
    | {
        "deps": [dg.AssetKey(["ops", "release"])],
        # A release does not ask every set again by itself: answers may cost money.
        "automation_condition": None,
        "freshness_policy": None,
    },
    partitions_def=QUESTION_SETS,
    pool="generator",
    check_specs=ANSWER_CHECKS,
)
@retry_asset
def answers_asset(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    query_service: dg.ResourceParam[QueryService],
    answer_batches: dg.ResourceParam[AnswerBatches],
) -> dg.MaterializeResult:
    """Answers the questions of a set that have no answer yet, and checks the set's answers."""
    name = context.partition_key
    with answer_batches.exclusive(name):
        journal = answer_batches.journal(name)
        journal.commit(lake, context.run_id)  # what a killed run had answered
        outcome = answer_batch(
            name,
            answer_batches.questions(name),
            query_service,
            stored_batch_ids(lake, name),
            keep=journal.add,
            commit=lambda: journal.commit(lake, context.run_id),
        )
        answer_batches.keep_outcome(outcome)
    return answers_result(lake, recipe.answers, outcome)


@dg.multi_asset(
    name="training_examples",
    specs=[
        dg.AssetSpec(**dagster_asset_options(TRAINING_SPLITS, DOCUMENTS, DUPLICATES, kinds=("deltalake",))),
        dg.AssetSpec(
            **dagster_asset_options(TRAINING_EXAMPLES, kinds=("deltalake", "openvino", "postgres"))
            # Examples are mined from the index that is live.
            | {
                "deps": [
                    *map(asset_key, (TRAINING_SPLITS.name, CHUNKS.name)),
                    dg.AssetKey(["ops", "release"]),
                ]
            }
        ),
    ],
    pool="spark",
)
def training_examples_asset(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    sources: dg.ResourceParam[SourceRegistry],
    search_index: dg.ResourceParam[Index],
    searcher: dg.ResourceParam[Searcher],
    release_models: dg.ResourceParam[ReleaseModels],
    dataset_requests: dg.ResourceParam[DatasetRequests],
    answer_batches: dg.ResourceParam[AnswerBatches],
    teacher_models: dg.ResourceParam[TeacherModels],
) -> Iterator[dg.MaterializeResult]:
    """Makes examples of the documents of tenants for which a training set was asked, and marks old sets."""
    rated = rated_answers(lake, dataset_requests.tenants)
    asked = evaluation_questions(sources, answer_batches, rated)
    follow_training_tenants(context.instance, dataset_requests.tenants)
    # Where none is asked for any more, the examples go.
    if dataset_requests.tenants or lake.last_commit(TRAINING_EXAMPLES.name) is not None:
        refresh_training_examples(
            TrainingInputs(
                *(lake, recipe, sources, dataset_requests, rated, asked, teacher_models), context.run_id
            ),
            search_index,
            searcher,
            release_models,
        )
        mark_removed(lake, dataset_requests.folder)
    yield dagster_result(lake, TRAINING_SPLITS)
    yield dagster_result(lake, TRAINING_EXAMPLES)
