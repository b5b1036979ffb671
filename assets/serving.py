"""Serving: the retrieval index in PostgreSQL, made from gold and changed only as gold changed."""

import logging
from collections.abc import Iterator

import dagster as dg
import duckdb
import pyarrow as pa

from assets.dagster.metadata import POLICIES, asset_key
from assets.dagster.retry import retried
from assets.gold import chunker_digest
from assets.lake.delta import register
from assets.lake.lake import Lake
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import CHUNKS, DOCUMENTS, EMBEDDINGS, RELEASES
from assets.recipe import Recipe
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index, IndexState
from retrieval.lineage import Lineage

logger = logging.getLogger(__name__)

_BATCH_ROWS = 2048

_ROWS = """
    select c.chunk_id, c.doc_id, c.tenant, d.uri, d.title, c.heading, d.content_sha256, c.ordinal,
           c.char_start, c.char_end, c.text, c.text_sha256, d.language, c.token_count, e.vector,
           {access_groups} as access_groups
    from chunks c
    join documents d on d.doc_id = c.doc_id
    join embeddings e on e.tenant = c.tenant and e.text_sha256 = c.text_sha256 and e.model_digest = $model
"""


def index_rows(
    lake: Lake, pins: dict[str, int], model_digest: str, doc_ids: list[str] | None
) -> Iterator[pa.RecordBatch]:
    """What the index holds, from one consistent set of table versions.

    Args:
        lake: The tables.
        pins: The versions of chunks, documents and embeddings to read.
        model_digest: Whose vectors.
        doc_ids: Only these documents' chunks; None for all.
    """
    with duckdb.connect() as connection:
        for name in (CHUNKS.name, DOCUMENTS.name, EMBEDDINGS.name):
            register(connection, name.partition(".")[2], lake.delta(name, pins[name]))
        # A version of before there were groups has no column of them.
        named = {field.name for field in lake.delta(DOCUMENTS.name, pins[DOCUMENTS.name]).schema().fields}
        groups = "d.access_groups" if "access_groups" in named else "null::varchar"
        rows = _ROWS.format(access_groups=groups)
        if doc_ids is not None:
            connection.register("wanted", pa.table({"doc_id": pa.array(doc_ids, pa.string())}))
            rows += " semi join wanted on wanted.doc_id = c.doc_id"
        yield from connection.sql(rows, params={"model": model_digest}).to_arrow_reader(_BATCH_ROWS)


def _has_changes(lake: Lake, seen: dict[str, int], pins: dict[str, int]) -> bool:
    """True when what an index of some table versions lacks of others can be read as changes."""
    return all(lake.has_changes(name, seen[name], pins[name]) for name in (CHUNKS.name, DOCUMENTS.name))


def refresh(
    lake: Lake, index: Index, state: IndexState | None, lineage: Lineage, key: tuple[str, str, int]
) -> IndexState:
    """Brings the index to the versions that a lineage names: a new generation, or the next epoch of one.

    Args:
        lake: The tables.
        index: The index.
        state: Its newest generation of this model and chunker, or None where one has to be built.
        lineage: The run, and the versions to serve.
        key: The model's digest, the chunker's, and the vectors' dimension.

    Raises:
        IndexConflict: When another run has changed the index meanwhile; nothing was changed.
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
        rows = index_rows(lake, pins, model_digest, None)
        named = lake.query("select max(generation) as n from releases", releases=lake.delta(RELEASES.name))
        after = named["n"][0].as_py() or 0
        return index.build(model_digest, chunker, dimension, rows, lineage, after=after)
    seen = state.lineage.inputs
    _, removed = lake.changed_keys(CHUNKS.name, "chunk_id", seen[CHUNKS.name], pins[CHUNKS.name])
    # A document can change its title or bytes and keep its chunks, which the index shows beside them.
    touched = {
        doc_id
        for name in (CHUNKS.name, DOCUMENTS.name)
        for doc_ids in lake.changed_keys(name, "doc_id", seen[name], pins[name])
        for doc_id in doc_ids
    }
    return index.apply(state, index_rows(lake, pins, model_digest, sorted(touched)), removed, lineage)


@dg.asset(
    key=["serving", "index"],
    deps=[asset_key(CHUNKS.name), asset_key(EMBEDDINGS.name)],
    group_name="serving",
    kinds={"postgres"},
    owners=["team:headwater"],
    code_version=CODE_VERSION,
    pool="index",
    **POLICIES,
)
@retried
def index(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    recipe: dg.ResourceParam[Recipe],
    model: dg.ResourceParam[EmbeddingModel],
    search_index: dg.ResourceParam[Index],
) -> dg.MaterializeResult:
    """The index in PostgreSQL: a generation a model, an epoch a change; what is live stays as it is."""
    version = lake.readable_version(EMBEDDINGS)
    pins = lake.pinned(EMBEDDINGS.name, version)
    chunker = chunker_digest(recipe, model)
    state = search_index.state(model.digest, chunker)
    lineage = Lineage(
        run_id=context.run_id,
        asset="serving/index",
        code_version=CODE_VERSION,
        config_digest=chunker,
        inputs=pins,
    )
    if state is None or state.lineage.inputs != pins:
        state = refresh(lake, search_index, state, lineage, (model.digest, chunker, model.embedder.dimension))
    return dg.MaterializeResult(
        metadata={
            "generation": state.generation,
            "epoch": state.epoch,
            "model_digest": state.model_digest,
            "input_versions": state.lineage.inputs,
        },
        data_version=dg.DataVersion(f"{state.generation}.{state.epoch}"),
    )
