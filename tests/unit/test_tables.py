"""Columns, ids and scopes that two packages know are the same in both."""

import hashlib
import json

import pyarrow as pa

from assets.columns import Table, column_comment
from assets.dedup.minhash import SIGNATURE_SCHEMA
from assets.engine.local_relations import LocalRelations
from assets.lake.tables import CHUNKS, EMBEDDINGS, SIGNATURES, TABLES
from common.ids import DOC_ID_SQL, doc_id
from orchestration.migrations import STATE_VERSION
from quality.suites import SUITES
from retrieval.access import SCOPE_SQL, encode_scopes
from retrieval.chunking.chunker import CHUNK_COLUMNS, make_chunk_id
from retrieval.embedding.batches import EMBEDDING_COLUMNS


def made(table: Table, *left_out: str) -> pa.Schema:
    """The columns of a table that a function makes, without comments; the step adds the run."""
    fields = (field for field in table.schema if field.name not in ("OpenLineage_RunId", *left_out))
    return pa.schema([field.remove_metadata() for field in fields])


def test_a_chunk_and_a_vector_have_the_columns_of_their_tables() -> None:
    assert made(CHUNKS) == CHUNK_COLUMNS
    assert made(EMBEDDINGS) == EMBEDDING_COLUMNS
    assert made(SIGNATURES, "access_groups").names == SIGNATURE_SCHEMA.names
    assert made(SIGNATURES, "access_groups").types == SIGNATURE_SCHEMA.types


def test_a_column_comes_with_a_migration() -> None:
    columns = {
        name: {field.name: [str(field.type), column_comment(field)] for field in table.schema}
        for name, table in TABLES.items()
    }
    digest = hashlib.sha256(json.dumps(columns, sort_keys=True).encode()).hexdigest()[:16]
    # Has the digest changed? State folders that exist lack the column or have another comment, and their next
    # run fails: add a migration that calls `Lake.conform_columns`, then write its number and the new digest
    # here.
    assert (STATE_VERSION, digest) == (15, "4d09b0fbe19cab72")


def test_the_gate_derives_a_chunks_id_as_the_chunker_does() -> None:
    rows = [("d1", "a" * 64, 0), ("d2", "b" * 64, 1_234_567), ("dü", "c" * 64, 7)]
    ids = [make_chunk_id(*row) for row in rows]
    chunks = pa.table(
        {
            "chunk_id": [*ids, make_chunk_id("d1", "a" * 64, 1)],
            "doc_id": [*(row[0] for row in rows), "d1"],
            "text_sha256": [*(row[1] for row in rows), "a" * 64],
            "char_start": [*(row[2] for row in rows), 0],
        }
    )
    with LocalRelations() as on:
        on.add("chunks", chunks)
        on.define(
            "found", f"SELECT {SUITES[CHUNKS.name].columns['chunk_id_is_derived']} AS ok FROM {{chunks}}"
        )
        assert on.arrow("found")["ok"].to_pylist() == [True, True, True, False]


def test_sql_gives_the_id_of_a_document_and_the_scope_of_a_row_as_python_does() -> None:
    rows = pa.table({"uri": ["file:///ä", "s3a://b#1"], "tenant": ["t", "ü"], "access_groups": ["a,b", None]})
    rows = pa.concat_tables([rows, pa.table({"uri": ["x"], "tenant": ["t"], "access_groups": [""]})])
    with LocalRelations() as on:
        on.add("rows", rows)
        on.define("ids", f"SELECT {DOC_ID_SQL} AS id FROM {{rows}}", tenant="acmé", source="docs")
        on.define("scopes", f"SELECT {SCOPE_SQL} AS scope FROM {{rows}}")
        ids, found = on.arrow("ids")["id"].to_pylist(), on.arrow("scopes")["scope"].to_pylist()
    assert ids == [doc_id("acmé", "docs", uri) for uri in rows["uri"].to_pylist()]
    assert found == encode_scopes(rows["tenant"], rows["access_groups"]).to_pylist() == ["t\x1fa,b", "ü", "t"]
