"""Serving: the search index in PostgreSQL, built from the gold tables and updated with their changes."""

import logging
from collections.abc import Iterator

import dagster as dg
import duckdb
import pyarrow as pa

from assets.dagster.metadata import POLICIES, asset_key
from assets.dagster.retry import retry_asset
from assets.lake.audits import readable_version
from assets.lake.delta import delta_rows, register_delta_table
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import CHUNKS, DOCUMENTS, EMBEDDINGS, RELEASES
from assets.recipe import Recipe
from common.counts import counted
from common.lineage import Lineage
from common.progress import Progress
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index, IndexState

logger = logging.getLogger(__name__)

_BATCH_ROWS = 2048

_SHOWN_QUARANTINED = 100

_TITLE_CHARACTERS = 1000
"""A longer title is cut: every chunk of its document carries it, and its words are indexed with each."""

_ROWS = """
    select c.chunk_id, c.doc_id, c.tenant, d.uri, left(d.title, {title_characters}) as title, c.heading,
           d.content_sha256, c.ordinal, c.char_start, c.char_end, c.text, c.text_sha256, d.language,
           c.token_count, e.vector, {access_groups} as access_groups, {training_fit} as training_fit
    from chunks c
    join documents d on d.doc_id = c.doc_id
    join embeddings e on e.tenant = c.tenant and e.text_sha256 = c.text_sha256 and e.model_digest = $model
"""


def serving_rows(
    lake: Lake, pins: dict[str, int], model_digest: str, doc_ids: list[str] | None
) -> Iterator[pa.RecordBatch]:
    """Yields the rows of the index from one consistent set of table versions.

    Args:
        lake: The tables.
        pins: The versions of chunks, documents and embeddings to read.
        model_digest: The digest of the model whose vectors are read.
        doc_ids: Only these documents' chunks; None for all.
    """
    with duckdb.connect() as connection:
        for name in (CHUNKS.name, DOCUMENTS.name, EMBEDDINGS.name):
            register_delta_table(connection, name.partition(".")[2], lake.delta(name, pins[name]))
        # A version from before there were groups, or fitness for training, has no such column.
        named = {field.name for field in lake.delta(DOCUMENTS.name, pins[DOCUMENTS.name]).schema().fields}
        rows = _ROWS.format(
            access_groups="d.access_groups" if "access_groups" in named else "null::varchar",
            training_fit="d.training_fit" if "training_fit" in named else "null::boolean",
            title_characters=_TITLE_CHARACTERS,
        )
        if doc_ids is not None:
            connection.register("wanted", pa.table({"doc_id": pa.array(doc_ids, pa.string())}))
            rows += " semi join wanted on wanted.doc_id = c.doc_id"
        total = delta_rows(lake.delta(CHUNKS.name, pins[CHUNKS.name])) if doc_ids is None else None
        progress = Progress("chunks loaded into the index", total)
        for batch in connection.sql(rows, params={"model": model_digest}).to_arrow_reader(_BATCH_ROWS):
            yield batch
            progress.advance(batch.num_rows)


def _has_changes(lake: Lake, seen: dict[str, int], pins: dict[str, int]) -> bool:
    """True when what an index of some table versions lacks of others can be read as changes."""
    return all(lake.has_changes(name, seen[name], pins[name]) for name in (CHUNKS.name, DOCUMENTS.name))


def serving_versions(lake: Lake) -> dict[str, int]:
    """Returns the version of every table that the index should be made from.

    These are the versions from which the newest readable embeddings were made. If since then only titles or
    groups of documents changed, there was nothing to embed, and the newer versions of the other tables are
    returned.
    """
    pins = lake.pinned(EMBEDDINGS.name, readable_version(lake, EMBEDDINGS))
    embedded, newest = pins[CHUNKS.name], readable_version(lake, CHUNKS)
    if newest > lake.settled_version(CHUNKS.name, embedded) and (
        lake.content_digest(CHUNKS, newest) == lake.content_digest(CHUNKS, embedded)
    ):
        pins |= lake.pinned(CHUNKS.name, newest)
    return pins


def refresh_serving_index(
    lake: Lake, index: Index, state: IndexState | None, lineage: Lineage, key: tuple[str, str, int]
) -> IndexState:
    """Brings the index to the table versions of a lineage, as a new generation or the next epoch of one.

    Args:
        lake: The lake with the tables.
        index: The index.
        state: The newest generation of this model and chunker, or None if a new one must be built.
        lineage: The run, and the versions to serve.
        key: The digests of the model and the chunker, and the length of the vectors.

    Raises:
        IndexConflict: Another run has changed the index meanwhile; nothing was changed.
    """
    model_digest, chunker, dimension = key
    pins = lineage.inputs
    if state is not None and not _has_changes(lake, state.lineage.inputs, pins):
        logger.warning(
            "the index is built anew: files that its changes since %s are read from were deleted",
            state.lineage.inputs,
        )
        state = None
    if state is None:
        rows = serving_rows(lake, pins, model_digest, None)
        named = lake.query("select max(generation) as n from releases", releases=lake.delta(RELEASES.name))
        after = named["n"][0].as_py() or 0
        logger.info("a new generation of the index is built from gold.chunks %d", pins[CHUNKS.name])
        return index.build(model_digest, chunker, dimension, rows, lineage, after=after)
    seen = state.lineage.inputs
    _, removed = lake.changed_keys(CHUNKS.name, "chunk_id", seen[CHUNKS.name], pins[CHUNKS.name])
    # A document's title, groups, fitness or bytes can change while its chunks stay: the index holds them with
    # each chunk.
    touched = {
        doc_id
        for name in (CHUNKS.name, DOCUMENTS.name)
        for doc_ids in lake.changed_keys(name, "doc_id", seen[name], pins[name])
        for doc_id in doc_ids
    }
    logger.info(
        "the index takes over the changes of %s documents; %s chunks go",
        f"{len(touched):,}",
        f"{len(removed):,}",
    )
    return index.apply(state, serving_rows(lake, pins, model_digest, sorted(touched)), removed, lineage)


@dg.asset(
    key=["serving", "index"],
    deps=[asset_key(each.name) for each in (CHUNKS, EMBEDDINGS, DOCUMENTS)],
    group_name="serving",
    kinds={"postgres"},
    code_version=CODE_VERSION,
    pool="index",
    **POLICIES,
)
@retry_asset
def index_asset(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    model: dg.ResourceParam[EmbeddingModel],
    search_index: dg.ResourceParam[Index],
) -> dg.MaterializeResult:
    """The index in PostgreSQL: a generation per model, an epoch per change; what is live stays as it is."""
    pins = serving_versions(lake)
    chunker = recipe.chunker_digest(model)
    state = search_index.state(model.digest, chunker)
    lineage = Lineage(
        run_id=context.run_id,
        asset="serving/index",
        code_version=CODE_VERSION,
        config_digest=chunker,
        inputs=pins,
    )
    if state is None or state.lineage.inputs != pins:
        state = refresh_serving_index(
            lake, search_index, state, lineage, (model.digest, chunker, model.embedder.dimension)
        )
    return dg.MaterializeResult(
        metadata={
            "generation": state.generation,
            "epoch": state.epoch,
            "model_digest": state.model_digest,
            "input_versions": state.lineage.inputs,
            "quarantined_chunks": len(search_index.quarantined(state)),
        },
        data_version=dg.DataVersion(f"{state.generation}.{state.epoch}"),
    )


@dg.asset_check(
    asset=["serving", "index"],
    name="every_chunk_is_indexed",
    pool="index",
    description="A chunk that PostgreSQL can not index is left out with its reason; the others are served.",
)
def indexed_chunks_asset_check(
    recipe: dg.ResourceParam[Recipe],
    model: dg.ResourceParam[EmbeddingModel],
    search_index: dg.ResourceParam[Index],
) -> dg.AssetCheckResult:
    """Warns of the chunks that the newest state of the index leaves out, with the reason for each."""
    state = search_index.state(model.digest, recipe.chunker_digest(model))
    left_out = search_index.quarantined(state) if state else []
    lines = [
        f"| {each.tenant} | {each.uri} | {each.chunk_id} | index | {each.expectation} | {each.reason} |"
        for each in left_out[:_SHOWN_QUARANTINED]
    ]
    table = [
        "| tenant | document | chunk | stage | expectation | reason |",
        "|---|---|---|---|---|---|",
        *lines,
    ]
    return dg.AssetCheckResult(
        passed=not left_out,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{counted(len(left_out), 'chunk')} of "
        f"{counted(len({each.doc_id for each in left_out}), 'document')} left out",
        metadata={"chunks": len(left_out), "quarantined": dg.MetadataValue.md("\n".join(table))},
    )
