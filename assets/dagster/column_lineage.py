"""Which columns each column is made from: Dagster's column lineage, derived from the declared tables.

A column that has the name of one of its inputs' columns holds that column's values, unless `_MADE_FROM` says
what it is made from.
"""

from collections.abc import Collection, Mapping

import dagster as dg

from assets.columns import Table
from assets.text.signals import QUALITY_SIGNALS

_BODY = ("bronze.raw_documents.body",)
_TEXT = ("silver.documents.text",)
_CHUNK = ("gold.chunks.text",)

_MADE_FROM: Mapping[str, Mapping[str, Collection[str]]] = {
    "silver.documents": {
        "title": (*_BODY, "bronze.raw_documents.title"),
        **dict.fromkeys(("text", "text_sha256", "text_coverage", "headings", "pages", "language"), _BODY),
        **dict.fromkeys((*QUALITY_SIGNALS, "char_count", "pii_count"), _BODY),
        **dict.fromkeys(("training_fit", "training_unfit_reasons"), _BODY),
    },
    "silver.quarantine": dict.fromkeys(
        ("stage", "expectation", "reason"), (*_BODY, "bronze.raw_documents.error")
    ),
    "silver.signatures": dict.fromkeys(("signature", "bands"), _TEXT),
    "silver.duplicates": {
        **dict.fromkeys(
            ("canonical_id", "matched_id"), ("silver.signatures.bands", "silver.documents.first_seen_at")
        ),
        "jaccard": _TEXT,
        "method": ("silver.signatures.text_sha256", "silver.signatures.bands"),
    },
    "gold.chunks": {
        "chunk_id": ("silver.documents.doc_id", "silver.documents.text_sha256"),
        # Only documents that no other stands for.
        "doc_id": ("silver.documents.doc_id", "silver.duplicates.doc_id"),
        "heading": ("silver.documents.headings",),
        **dict.fromkeys(("ordinal", "char_start", "char_end", "text", "text_sha256", "token_count"), _TEXT),
    },
    "gold.embeddings": {"vector": _CHUNK},
    "gold.training_splits": {"split": ("silver.duplicates.canonical_id",)},
    "gold.training_examples": {
        "example_id": _CHUNK,
        "answer_id": ("gold.answers.answer_id", "ops.answer_ratings.rating"),
        "question": (*_CHUNK, "gold.chunks.heading", "gold.answers.question"),
        "positive": (*_CHUNK, "gold.answers.answer"),
        "chunk_ids": ("gold.chunks.chunk_id", "gold.embeddings.vector", "gold.answers.retrieved"),
        "doc_ids": ("gold.chunks.doc_id",),
        "scores": ("gold.embeddings.vector",),
    },
    "gold.answers": {
        "answer": _CHUNK,
        "citations": ("gold.chunks.chunk_id", *_CHUNK),
        "retrieved": ("gold.chunks.chunk_id",),
        "release_id": ("ops.releases.release_id",),
        "model_digest": ("ops.releases.model_digest",),
    },
}
_OF_THE_RUN = {"OpenLineage_RunId"}
"""Columns that have one name in every table and are made anew by each."""


def column_sources(table: Table, inputs: Collection[Table]) -> dict[str, tuple[str, ...]]:
    """Returns by each column that is made from others their names, as `layer.table.column`.

    Args:
        inputs: The tables that it is made from; of several with the column, the first counts.
    """
    declared = _MADE_FROM.get(table.name, {})
    found = {name: tuple(sources) for name, sources in declared.items()}
    for name in table.schema.names:
        of_this_name = next((each for each in inputs if name in each.schema.names), None)
        if name not in found and name not in _OF_THE_RUN and of_this_name is not None:
            found[name] = (f"{of_this_name.name}.{name}",)
    return {name: found[name] for name in table.schema.names if name in found}


def dagster_column_lineage(table: Table, inputs: Collection[Table]) -> dg.TableColumnLineage | None:
    """Returns the column lineage of a table; None where no column is made from another table's."""

    def source(path: str) -> dg.TableColumnDep:
        name, _, column = path.rpartition(".")
        # The asset that writes the log of releases is called after what it does.
        key = "ops.release" if name == "ops.releases" else name
        return dg.TableColumnDep(asset_key=dg.AssetKey(key.split(".")), column_name=column)

    sources = column_sources(table, inputs)
    if not sources:
        return None
    return dg.TableColumnLineage({column: [source(path) for path in sources[column]] for column in sources})
