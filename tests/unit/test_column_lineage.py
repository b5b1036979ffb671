"""Which columns each column is made from: nothing is named that there is not, and little is left out."""

import pytest

from assets.dagster.column_lineage import column_sources, dagster_column_lineage
from assets.dagster.metadata import dagster_table_schema
from assets.lake import tables
from assets.lake.tables import TABLES

INPUTS = {
    tables.DOCUMENTS: (tables.RAW_DOCUMENTS, tables.QUARANTINE_DECISIONS),
    tables.QUARANTINE: (tables.RAW_DOCUMENTS, tables.QUARANTINE_DECISIONS),
    tables.SIGNATURES: (tables.DOCUMENTS,),
    tables.DUPLICATES: (tables.SIGNATURES, tables.DOCUMENTS),
    tables.CHUNKS: (tables.DOCUMENTS, tables.DUPLICATES),
    tables.EMBEDDINGS: (tables.CHUNKS,),
    tables.TRAINING_SPLITS: (tables.DOCUMENTS, tables.DUPLICATES),
    tables.TRAINING_EXAMPLES: (tables.TRAINING_SPLITS, tables.CHUNKS, tables.DOCUMENTS),
}
OF_SETTINGS = {
    "silver.documents": {"access_groups"},
    "silver.signatures": {"config_hash"},
    "gold.embeddings": {"model_digest"},
    "gold.training_examples": {
        *("kind", "query_kind", "left_out", "negatives", "teacher", "licence", "versions"),
    },
}
"""Columns that settings, a person or the step itself decide, not another column."""


@pytest.mark.parametrize("table", INPUTS, ids=lambda table: table.name)
def test_every_column_that_is_made_from_others_says_from_which(table: tables.Table) -> None:
    sources = column_sources(table, INPUTS[table])
    made_here = set(table.schema.names) - set(sources) - {"OpenLineage_RunId"}
    assert made_here == OF_SETTINGS.get(table.name, set())


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_no_source_is_named_that_there_is_not(table: tables.Table) -> None:
    sources = column_sources(table, INPUTS.get(table, ()))
    assert set(sources) <= set(table.schema.names)
    for path in {path for paths in sources.values() for path in paths}:
        name, _, column = path.rpartition(".")
        assert column in TABLES[name].schema.names, path


def test_a_column_that_goes_along_is_that_of_the_first_input_that_has_it() -> None:
    sources = column_sources(tables.DUPLICATES, INPUTS[tables.DUPLICATES])
    assert sources["doc_id"] == ("silver.signatures.doc_id",)
    assert dagster_column_lineage(tables.RAW_DOCUMENTS, ()) is None
    lineage = dagster_column_lineage(tables.CHUNKS, INPUTS[tables.CHUNKS])
    assert lineage is not None
    [tenant] = lineage.deps_by_column["tenant"]
    assert (tenant.asset_key.path, tenant.column_name) == (["silver", "documents"], "tenant")


def test_the_columns_that_the_web_ui_lists_name_what_they_are_made_from() -> None:
    sources = column_sources(tables.CHUNKS, INPUTS[tables.CHUNKS])
    described = {each.name: each.description for each in dagster_table_schema(tables.CHUNKS, sources).columns}
    assert described["heading"] == (
        "Path of the headings that the chunk stands under. Made from silver.documents.headings."
    )
    assert "Made from" not in (described["OpenLineage_RunId"] or "")
