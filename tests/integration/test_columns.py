"""Every column says what it holds: where the table lies, in Spark's catalogue and in the web UI."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema, write_deltalake
from pyspark.sql import SparkSession

from assets.columns import Table, column_comment
from assets.dagster.metadata import dagster_table_schema
from assets.engine.local_relations import LocalRelations
from assets.lake.lake import Lake
from assets.lake.spark import SparkConfig
from assets.lake.tables import TABLES
from orchestration.migrations import STATE_VERSION, migrate_state_folder

NAMED = pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))


@pytest.fixture(scope="module")
def lake(spark: SparkSession, module_folder: Path) -> Lake:
    lake = Lake(module_folder / "lake", SparkConfig(), module_folder / "scratch", module_folder / "docs")
    lake.ensure()
    return lake


@NAMED
def test_delta_and_the_web_ui_show_one_comment_a_column(lake: Lake, table: Table) -> None:
    declared = {field.name: column_comment(field) for field in table.schema}
    assert all(declared.values())
    stored = lake.delta(table.name).schema().fields
    assert {field.name: field.metadata["comment"] for field in stored} == declared
    assert {column.name: column.description for column in dagster_table_schema(table).columns} == declared


def test_spark_shows_the_comments(lake: Lake) -> None:
    path = lake.path("silver.documents")
    described = lake.spark.sql(f"DESCRIBE TABLE delta.`{path}`").collect()
    assert {row["col_name"]: row["comment"] for row in described if row["col_name"] == "language"} == {
        "language": "ISO 639-1 code of the text's language."
    }


def test_an_older_table_gets_columns_and_comments_once_and_its_rows_stay_read(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake", SparkConfig(), tmp_path / "scratch", tmp_path / "docs")
    table = TABLES["silver.duplicates"]
    old = [field.remove_metadata() for field in table.schema if field.name != "method"]
    DeltaTable.create(lake.path(table.name), schema=Schema.from_arrow(pa.schema(old)))
    lake.ensure()
    consumed = lake.version(table.name)
    lake.conform_columns()
    fields = lake.delta(table.name).schema().fields
    assert {field.name: field.metadata.get("comment") for field in fields} == {
        field.name: column_comment(field) for field in table.schema
    }
    newest = lake.version(table.name)
    assert newest > consumed
    # A consumer of the version before has nothing new to read.
    assert lake.settled_version(table.name, consumed) == newest
    lake.conform_columns()
    assert lake.version(table.name) == newest


def test_a_state_folder_of_before_a_column_gets_it_when_it_is_opened(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake", SparkConfig(), tmp_path / "scratch", tmp_path / "docs")
    table = TABLES["silver.documents"]
    later = {"text_coverage", "training_fit", "training_unfit_reasons"}
    old = [field for field in table.schema if field.name not in later]
    DeltaTable.create(lake.path(table.name), schema=Schema.from_arrow(pa.schema(old)))
    (tmp_path / "state.json").write_text(json.dumps({"version": 4}))
    migrate_state_folder(tmp_path, lake)
    assert {field.name for field in lake.delta(table.name).schema().fields} == set(table.schema.names)
    assert json.loads((tmp_path / "state.json").read_text()) == {"version": STATE_VERSION}


def test_a_table_whose_files_lack_a_column_is_read_beside_a_relation_of_any_name(tmp_path: Path) -> None:
    """It was read from the relation `rows`, so that a merge took new rows for known ones."""
    lake = Lake(tmp_path / "lake", SparkConfig(), tmp_path / "scratch", tmp_path / "docs")
    table = TABLES["silver.duplicates"]
    old = pa.schema([field.remove_metadata() for field in table.schema if field.name != "method"])
    DeltaTable.create(lake.path(table.name), schema=Schema.from_arrow(old))
    row = {field.name: 1.0 if field.name == "jaccard" else "a" for field in old}
    write_deltalake(lake.path(table.name), pa.Table.from_pylist([row], old), mode="append")
    lake.ensure()
    lake.conform_columns()
    with LocalRelations() as on:
        on.add("rows", pa.table({"doc_id": ["b", "c"]}))
        on.add_stored("target", lake, table.name, lake.version(table.name))
        assert on.arrow("target").select(["doc_id", "method"]).to_pylist() == [
            {"doc_id": "a", "method": None}
        ]
