"""A step's commit carries its rows, its lineage and its watermark, or is not there at all."""

from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from assets.columns import Table
from assets.engine.limits import LocalLimits
from assets.engine.relations import IS_DELETED, Relations
from assets.engine.step import Step, begin_step, relation_name
from assets.lake.audits import Unaudited, readable_version, record_audit
from assets.lake.lake import Lake
from assets.lake.lineage import WriteConflict
from assets.lake.spark import SparkConfig
from assets.lake.tables import DOCUMENTS, DUPLICATES, SIGNATURES, TABLES
from common.lineage import Lineage


@pytest.fixture
def lake(spark: SparkSession, tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake", SparkConfig(), tmp_path / "scratch", tmp_path / "docs")
    lake.ensure()
    return lake


@pytest.fixture(params=["merged here", "merged by Spark"])
def either(lake: Lake, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """The lake with changes that this process holds, and with changes too large for it."""
    if request.param == "merged by Spark":
        monkeypatch.setattr(LocalLimits, "fit", lambda *_: False)
    return lake


def step(
    lake: Lake, table: Table = DUPLICATES, config: str = "c1", run: str = "run-1", **inputs: int
) -> Step:
    windows = {SIGNATURES: inputs.get("signatures", lake.version(SIGNATURES.name))}
    return begin_step(lake, table, windows, run_id=run, config_digest=config)


def merge(step: Step, *rows: tuple[str, str, float], scope: tuple[str, ...] | None = None) -> None:
    """Merges rows of `silver.duplicates` as an asset does, with the engine that their size asks for."""
    data = [
        dict(zip(DUPLICATES.schema.names, (doc_id, other, other, jaccard, "minhash"), strict=False))
        for doc_id, other, jaccard in rows
    ]
    columns = pa.schema([field for field in DUPLICATES.schema if field.name != "OpenLineage_RunId"])
    with step.relations() as on:
        on.add("rows", pa.Table.from_pylist(data, columns))
        if scope is not None:
            on.add("scope", pa.table({"doc_id": scope}))
        step.merge(on, "rows", None if scope is None else "scope")


def changed(step: Step, table: Table) -> list[dict[str, Any]]:
    with step.relations((table,)) as on:
        return on.arrow(f"changed_{relation_name(table)}").to_pylist()


def held(lake: Lake) -> dict[str, float]:
    table = lake.delta(DUPLICATES.name).to_pyarrow_table()
    return dict(zip(table["doc_id"].to_pylist(), table["jaccard"].to_pylist(), strict=True))


def test_tables_are_there_before_the_first_row(lake: Lake) -> None:
    assert {name: lake.version(name) for name in TABLES} == dict.fromkeys(TABLES, 0)
    lake.ensure()
    assert lake.version(DOCUMENTS.name) == 0


def test_merge_replaces_its_scope_and_nothing_else(either: Lake) -> None:
    lake = either
    merge(step(lake), ("a", "x", 0.9), ("b", "x", 0.8), ("c", "y", 0.7))
    second = step(lake, run="run-2")
    merge(second, ("a", "x", 0.95), ("d", "x", 1.0), scope=("a", "b", "d"))
    assert held(lake) == {"a": 0.95, "c": 0.7, "d": 1.0}
    commit = lake.last_commit(DUPLICATES.name)
    assert commit is not None
    assert commit.lineage == second.lineage
    assert commit.lineage.inputs == {"silver.signatures": 0}
    assert commit.lineage.fence == 2


def test_a_row_that_says_the_same_is_not_rewritten(either: Lake) -> None:
    lake = either
    merge(step(lake), ("a", "x", 0.9), ("b", "x", 0.8))
    before = lake.content_digest(DUPLICATES)
    merge(step(lake, run="run-2"), ("a", "x", 0.9), ("b", "x", 0.8))
    runs = lake.delta(DUPLICATES.name).to_pyarrow_table()["OpenLineage_RunId"].to_pylist()
    assert runs == ["run-1", "run-1"]
    assert lake.content_digest(DUPLICATES) == before


def test_other_settings_rebuild_everything(lake: Lake) -> None:
    merge(step(lake), ("a", "x", 0.9), ("b", "x", 0.8))
    again = step(lake)
    assert again.idle
    other = step(lake, config="c2")
    assert other.rebuild
    assert not other.idle
    merge(other, ("b", "x", 0.8), scope=("zzz",))
    assert held(lake) == {"b": 0.8}


def test_a_step_with_news_but_no_rows_moves_the_watermark(lake: Lake) -> None:
    first = step(lake)
    merge(first)
    last = lake.last_commit(DUPLICATES.name)
    assert last is not None
    assert last.lineage == first.lineage
    assert held(lake) == {}
    assert step(lake).idle


def test_changed_gives_the_last_state_of_each_key(either: Lake) -> None:
    lake = either
    merge(step(lake), ("a", "x", 0.9), ("b", "x", 0.8))
    seen = lake.version(DUPLICATES.name)
    first = begin_step(lake, SIGNATURES, {DUPLICATES: seen}, run_id="r", config_digest="c")
    assert {r["doc_id"] for r in changed(first, DUPLICATES)} == {"a", "b"}
    with first.relations() as on:
        on.add("signatures", SIGNATURES.schema.empty_table())
        first.merge(on, "signatures")
    merge(step(lake), ("a", "x", 0.95), ("b", "x", 0.8), ("c", "x", 0.7))
    merge(step(lake), ("a", "x", 0.99), ("c", "x", 0.7))
    after = begin_step(
        lake, SIGNATURES, {DUPLICATES: lake.version(DUPLICATES.name)}, run_id="r", config_digest="c"
    )
    found = {r["doc_id"]: (r["jaccard"], r[IS_DELETED]) for r in changed(after, DUPLICATES)}
    assert found == {"a": (0.99, False), "b": (0.8, True), "c": (0.7, False)}


def test_a_writer_that_was_overtaken_writes_nothing(lake: Lake) -> None:
    slow = step(lake, run="slow")
    merge(step(lake, run="quick"), ("a", "x", 0.9))
    with pytest.raises(WriteConflict, match=r"silver\.duplicates"):
        merge(slow, ("z", "x", 0.1))
    assert held(lake) == {"a": 0.9}


def test_a_writer_overtaken_after_its_check_is_told(either: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = either
    slow = step(lake, run="slow")
    merge(step(lake, run="quick"), ("a", "x", 0.9))
    monkeypatch.setattr(Lake, "check_fencing_token", lambda self, table, lineage: None)
    with pytest.raises(WriteConflict):
        merge(slow, ("z", "x", 0.1))
    assert held(lake) == {"a": 0.9}


def test_consumers_read_the_audited_version(lake: Lake) -> None:
    with pytest.raises(Unaudited, match=r"silver\.documents"):
        readable_version(lake, DOCUMENTS)
    record_audit(lake, DOCUMENTS.name, 3, True, [], "run")
    record_audit(lake, DOCUMENTS.name, 4, False, ["text_not_null"], "run")
    assert readable_version(lake, DOCUMENTS) == 3
    assert readable_version(lake, DUPLICATES) == lake.version(DUPLICATES.name)


def test_the_content_digest_ignores_order_and_files(lake: Lake) -> None:
    merge(step(lake), ("a", "x", 0.9), ("b", "x", 0.8))
    merge(step(lake), ("b", "x", 0.8))
    one = lake.content_digest(DUPLICATES)
    merge(step(lake), ("b", "x", 0.8), ("a", "x", 0.9))
    two = lake.content_digest(DUPLICATES)
    assert one != two
    assert lake.content_digest(DUPLICATES, version=1) == two


def test_an_unknown_version_is_named(lake: Lake) -> None:
    with pytest.raises(KeyError, match=r"silver\.duplicates has no version 99"):
        lake.delta(DUPLICATES.name, 99)
    assert isinstance(lake.delta(DUPLICATES.name).schema().to_arrow(), object)
    assert pa.schema(lake.delta(DUPLICATES.name).schema().to_arrow()).names == DUPLICATES.schema.names


def test_a_relation_that_is_named_again_is_the_new_one(
    lake: Lake, local_and_spark: tuple[Relations, Relations]
) -> None:
    merge(step(lake), ("a", "x", 0.9), ("b", "x", 0.8))
    for on in local_and_spark:
        for version in (0, 1, 0, 1):  # a version without a file, and one with
            on.add_stored("named", lake, DUPLICATES.name, version)
            assert on.row("SELECT count(*) FROM {named}") == (2 * version,)
        on.define("named", "SELECT 'a' AS doc_id UNION ALL SELECT 'b'")
        on.define("named", "SELECT doc_id FROM {named} WHERE doc_id = 'a'")
        assert on.arrow("named").to_pylist() == [{"doc_id": "a"}]
        on.add("named", pa.table({"doc_id": ["z"]}))
        assert on.arrow("named").to_pylist() == [{"doc_id": "z"}]


def test_a_lake_in_a_folder_with_spaces_and_letters_beyond_ascii(spark: SparkSession, tmp_path: Path) -> None:
    lake = Lake(tmp_path / "Ein schöner Ort 湖", SparkConfig(), tmp_path / "scratch", tmp_path / "docs")
    lake.ensure()
    merge(step(lake), ("a", "x", 0.9), ("b", "x", 0.8))
    merge(step(lake, run="run-2"), ("b", "x", 0.7))
    assert lake.query("select doc_id, jaccard from t", t=lake.delta(DUPLICATES.name)).to_pylist() == [
        {"doc_id": "b", "jaccard": 0.7}
    ]
    assert [row["doc_id"] for row in lake.frame(DUPLICATES.name).collect()] == ["b"]
    assert lake.changed_keys(DUPLICATES.name, "doc_id", 1, 2) == (["b"], ["a"])


def test_an_append_overtaken_after_its_check_writes_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lineage(run: str) -> Lineage:
        return Lineage(run_id=run, asset="", code_version="", config_digest="", inputs={}, fence=1)

    rows = pa.Table.from_pylist([], DUPLICATES.schema)
    write = deltalake.write_deltalake

    def late(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr("assets.lake.lake.write_deltalake", write)
        lake.append(DUPLICATES, rows, lineage("quick"))
        write(*args, **kwargs)

    monkeypatch.setattr("assets.lake.lake.write_deltalake", late)
    with pytest.raises(WriteConflict):
        lake.append(DUPLICATES, rows, lineage("slow"))
    assert [commit.lineage.run_id for commit in lake.commits(DUPLICATES.name)] == ["quick"]


def test_hours_of_work_do_not_fill_the_code_cache(spark: SparkSession) -> None:
    """48 MB, what a JVM of one tier reserves by itself, were full after a thousand small jobs."""
    jvm = spark._jvm
    assert jvm is not None
    pools = jvm.java.lang.management.ManagementFactory.getMemoryPoolMXBeans()
    assert sum(pool.getUsage().getMax() for pool in pools if "Code" in pool.getName()) >= 240 << 20
