"""Each expectation catches the defect that it is there for, and nothing raw leaves a suite."""

import hashlib
import logging
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from lxml import html  # type: ignore[import-untyped]
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from assets.lake.tables import TABLES
from assets.text.signals import QUALITY_SIGNALS
from quality.checked_rows import checked_rows_in_duckdb, checked_rows_in_spark
from quality.data_docs import data_docs_page
from quality.expectations import expect_of_column
from quality.gate import ExpectationResult, gate_verdict
from quality.gx import ExpectationNotEvaluated, run_gate_suite, validate_with_gx
from quality.gx import Tables as GivenTables
from quality.suites import SUITES, Suite

Rows = list[dict[str, Any]]
Tables = dict[str, Rows]
Mutation = Callable[[Tables], object]

MODEL = "model"
PARAMETERS: dict[str, str | int | float] = {"token_budget": 240, "model_digest": MODEL}
# Letters outside the Basic Multilingual Plane: two UTF-16 units and four UTF-8 bytes each.
TEXTS = ["# Plain\nwords and more words", "𝒜𝒷𝒸 naïve 😀😀 text\n𝒟𝒽 end", "third"]


def sha256(*parts: Any) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def document(number: int, text: str) -> dict[str, Any]:
    uri = f"file:///docs/{number}.md"
    return {
        "doc_id": sha256("acme", "docs", uri),
        "tenant": "acme",
        "source": "docs",
        "uri": uri,
        "content_sha256": sha256(text, number),
        "media_type": "text/markdown",
        "title": None,
        "text": text,
        "text_sha256": sha256(text),
        "language": "en",
        "char_count": len(text),
        **dict.fromkeys(QUALITY_SIGNALS, 0),
        "letter_coincidence": None,
        "pii_count": 0,
        "headings": [{"char_start": 2, "level": 1, "title": text[2:7]}] if text.startswith("#") else [],
        "pages": [0, len(text) // 2],
        "training_fit": True,
        "training_unfit_reasons": [],
        "first_seen_at": datetime(2026, 1, 1, tzinfo=UTC),
        "OpenLineage_RunId": "run",
    }


def chunk(document: dict[str, Any], ordinal: int, start: int, end: int) -> dict[str, Any]:
    text = document["text"][start:end]
    return {
        "chunk_id": sha256(document["doc_id"], sha256(text), start),
        "doc_id": document["doc_id"],
        "tenant": document["tenant"],
        "ordinal": ordinal,
        "char_start": start,
        "char_end": end,
        "text": text,
        "text_sha256": sha256(text),
        "token_count": 5,
        "heading": None,
        "OpenLineage_RunId": "run",
    }


def sound() -> Tables:
    """Three documents, the last a duplicate of the first; two chunks each, each with its vector."""
    documents = [document(number, text) for number, text in enumerate(TEXTS)]
    chunks = [
        chunk(each, ordinal, start, end)
        for each in documents[:2]
        for ordinal, (start, end) in enumerate([(0, 8), (8, len(each["text"]))])
    ]
    duplicate = {
        "doc_id": documents[2]["doc_id"],
        "canonical_id": documents[0]["doc_id"],
        "matched_id": documents[0]["doc_id"],
        "jaccard": 0.9,
        "method": "minhash",
        "OpenLineage_RunId": "run",
    }
    embeddings = [
        {
            "tenant": "acme",
            "text_sha256": each["text_sha256"],
            "model_digest": MODEL,
            "vector": [0.6, 0.8, 0.0],
            "OpenLineage_RunId": "run",
        }
        for each in chunks
    ]
    # Another model's vectors may stay, of another length, for texts that are there no more.
    embeddings.append(
        embeddings[0] | {"model_digest": "older", "vector": [1.0], "text_sha256": sha256("gone")}
    )
    return {
        "silver.documents": documents,
        "silver.duplicates": [duplicate],
        "gold.chunks": chunks,
        "gold.embeddings": embeddings,
    }


class Engine(Protocol):
    """Gives the tables of a suite to what measures them."""

    def __call__(self, tables: Tables, suite: Suite) -> GivenTables: ...


@pytest.fixture(scope="module", params=["duckdb", "spark"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "spark":
        return partial(frames, request.getfixturevalue("spark"))
    return views


def arrow(name: str, rows: Rows) -> pa.Table:
    """Without Delta's NOT NULL, as a table written by something else would be."""
    return pa.Table.from_pylist(rows, pa.schema([f.with_nullable(True) for f in TABLES[name].schema]))


def views(tables: Tables, suite: Suite) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for name in (suite.table, *suite.reads):
        connection.register(name.partition(".")[2], arrow(name, tables[name]))
    return connection


def frames(spark: SparkSession, tables: Tables, suite: Suite) -> dict[str, DataFrame]:
    made = {}
    for name in (suite.table, *suite.reads):
        rows = arrow(name, tables[name])
        made[name] = spark.createDataFrame(rows, from_arrow_schema(rows.schema))
    return made


def checked_rows(engine: Engine, tables: Tables, suite: Suite) -> pa.Table:
    """The relation that a suite looks at, by either engine."""
    given = engine(tables, suite)
    if isinstance(given, duckdb.DuckDBPyConnection):
        return checked_rows_in_duckdb(given, suite, PARAMETERS)
    return checked_rows_in_spark(given, suite, PARAMETERS).toArrow()


def results_of(engine: Engine, tables: Tables, suite: Suite) -> list[ExpectationResult]:
    """By Great Expectations' pandas engine; its Spark engine, which takes seconds, has fewer tests."""
    rows = checked_rows(engine, tables, suite).to_pandas(types_mapper=pd.ArrowDtype)
    return validate_with_gx(rows, suite.table, suite.expectations, None)


def failing(engine: Engine, tables: Tables, suite: Suite) -> set[str]:
    return {each.name for each in results_of(engine, tables, suite) if not each.passed}


def change(table: str, row: int = 0, **values: Any) -> Mutation:
    """Sets columns of a row; a value that is a function is called with the row."""

    def mutate(tables: Tables) -> None:
        target = tables[table][row]
        for name, value in values.items():
            target[name] = value(target) if callable(value) else value

    return mutate


def repeat(table: str, **values: Any) -> Mutation:
    return lambda tables: tables[table].append(tables[table][0] | values)


def drop(table: str, row: int) -> Mutation:
    return lambda tables: tables[table].pop(row)


def rewrite(text: str) -> Mutation:
    """Gives a document another text, all else in step with it."""
    return change("silver.documents", 2, text=text, text_sha256=sha256(text), char_count=len(text), pages=[0])


def shift(tables: Tables) -> None:
    """Moves a span by one, the text and all else as they were."""
    row = tables["gold.chunks"][3]
    row["char_start"] -= 1
    row["char_end"] -= 1
    row["chunk_id"] = sha256(row["doc_id"], row["text_sha256"], row["char_start"])


def empty_chunk(tables: Tables) -> None:
    tables["gold.chunks"].append(chunk(tables["silver.documents"][0], 2, 4, 4))


def blank_chunk(tables: Tables) -> None:
    tables["gold.chunks"].append(chunk(tables["silver.documents"][0], 2, 7, 8))


def orphan(tables: Tables) -> None:
    tables["gold.chunks"].append(chunk(tables["silver.documents"][2], 0, 0, 5))


def longer(row: dict[str, Any]) -> str:
    return row["text"] + "!"


def rederived(row: dict[str, Any]) -> str:
    return sha256(row["doc_id"], row["text_sha256"], row["char_start"])


documents, chunks, embeddings = "silver.documents", "gold.chunks", "gold.embeddings"
future = datetime.now(UTC) + timedelta(days=3)

MISPLACED = [{"char_start": 3, "level": 1, "title": "Plain"}]

# Suite, expectation, defect, and what else must then fail.
DEFECTS: list[tuple[str, str, Mutation, set[str]]] = [
    (documents, "doc_id_unique", repeat(documents), set()),
    (documents, "doc_id_is_derived", change(documents, doc_id=sha256("other")), set()),
    (documents, "content_sha256_is_digest", change(documents, content_sha256="ABC"), set()),
    (documents, "text_sha256_matches_text", change(documents, text_sha256=sha256("other")), set()),
    (documents, "char_count_matches_text", change(documents, 1, char_count=17), set()),
    (documents, "text_not_blank", rewrite(" \n\u2003"), set()),
    (documents, "text_without_nul", rewrite("nul\x00 inside"), set()),
    (documents, "uri_has_scheme", change(documents, uri="0", doc_id=sha256("acme", "docs", "0")), set()),
    (documents, "language_is_code", change(documents, language="English"), set()),
    (documents, "first_seen_not_in_future", change(documents, first_seen_at=future), set()),
    (documents, "pii_count_not_negative", change(documents, pii_count=-1), set()),
    (documents, "signals_in_range", change(documents, short_line_ratio=float("nan")), set()),
    (documents, "signals_in_range", change(documents, bullet_line_ratio=1.5), set()),
    (documents, "signals_in_range", change(documents, word_count=None), set()),
    (documents, "headings_are_spans", change(documents, headings=MISPLACED), set()),
    (documents, "pages_in_order", change(documents, pages=[5, 0]), set()),
    (documents, "pages_in_order", change(documents, pages=[0, 10_000]), set()),
    (documents, "training_fit_follows_from_reasons", change(documents, training_fit=False), set()),
    (documents, "training_fit_follows_from_reasons", change(documents, training_fit=None), set()),
    (documents, "text_arrived", change(documents, text_coverage=0.8), set()),
    (documents, "replacement_characters_rare", change(documents, replacement_char_ratio=0.2), set()),
    (chunks, "chunk_id_unique", repeat(chunks), set()),
    (chunks, "chunk_id_is_derived", change(chunks, chunk_id=sha256("other")), set()),
    (chunks, "span_in_order", empty_chunk, {"text_not_blank"}),
    (chunks, "text_as_long_as_span", change(chunks, char_end=9), {"span_is_in_document"}),
    (chunks, "span_is_in_document", shift, set()),
    (chunks, "document_is_kept", orphan, set()),
    (chunks, "tenant_is_document_tenant", change(chunks, tenant="globex"), set()),
    (chunks, "text_sha256_matches_text", change(chunks, text_sha256=sha256("x"), chunk_id=rederived), set()),
    (chunks, "text_not_blank", blank_chunk, set()),
    (chunks, "tokens_within_budget", change(chunks, token_count=241), set()),
    (chunks, "every_document_has_chunk", lambda tables: tables[chunks].__delitem__(slice(2, 4)), set()),
    (embeddings, "key_unique", repeat(embeddings), set()),
    (embeddings, "vectors_of_one_length", change(embeddings, vector=[0.6, 0.8]), set()),
    (embeddings, "vector_is_finite", change(embeddings, vector=[float("nan"), 0.8, 0.0]), set()),
    (embeddings, "vector_is_finite", change(embeddings, vector=[float("-inf"), 0.8, 0.0]), set()),
    (embeddings, "vector_is_finite", change(embeddings, vector=[None, 0.8, 0.6]), set()),
    (embeddings, "vector_has_unit_norm", change(embeddings, vector=[0.0, 0.0, 0.0]), set()),
    (embeddings, "vector_has_unit_norm", change(embeddings, vector=[0.6, 0.81, 0.0]), set()),
    (embeddings, "every_chunk_has_vector", drop(embeddings, 1), set()),
    (embeddings, "every_chunk_has_vector", change(embeddings, model_digest="older"), set()),
    (embeddings, "every_chunk_has_vector", change(embeddings, tenant="globex"), set()),
]  # fmt: skip


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_sound_tables_pass(engine: Engine, suite: Suite) -> None:
    assert failing(engine, sound(), suite) == set()


@pytest.mark.parametrize(
    ("table", "name", "mutate", "also"), DEFECTS, ids=[f"{each[0]}-{each[1]}" for each in DEFECTS]
)
def test_a_defect_fails_its_expectation_and_no_other(
    engine: Engine, table: str, name: str, mutate: Mutation, also: set[str]
) -> None:
    tables = sound()
    mutate(tables)
    assert failing(engine, tables, SUITES[table]) == {name} | also


NULL_GATES = {
    suite.table: [each.name for each in suite.expectations if each.name.endswith("_not_null")]
    for suite in SUITES.values()
}


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_each_null_fails_its_gate(engine: Engine, suite: Suite) -> None:
    tables = sound()
    gates = NULL_GATES[suite.table]
    rows = [dict(tables[suite.table][0]) for _ in gates]
    for row, gate in zip(rows, gates, strict=True):
        row[gate.removesuffix("_not_null")] = None
    tables[suite.table] += rows
    results = {each.name: each for each in results_of(engine, tables, suite)}
    assert {gate: results[gate].observed for gate in gates} == dict.fromkeys(gates, 1)
    assert not any(results[gate].passed for gate in gates)


def broken(suite: Suite) -> Tables:
    """Tables with a repeated row and a row of NULLs."""
    tables = sound()
    tables[suite.table] += [dict(tables[suite.table][0]), dict.fromkeys(tables[suite.table][0])]
    return tables


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_both_engines_of_great_expectations_come_to_the_same(engine: Engine, suite: Suite) -> None:
    results = run_gate_suite(engine(broken(suite), suite), suite, parameters=PARAMETERS)
    assert [each.name for each in results] == [each.name for each in suite.expectations]
    assert results == results_of(views, broken(suite), suite)
    assert {each.name for each in results if not each.passed} >= set(NULL_GATES[suite.table])
    severities = {each.name: each.severity for each in suite.expectations}
    assert {each.name: each.severity for each in results} == severities


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_duckdb_and_spark_make_the_same_rows_of_one_text(spark: SparkSession, suite: Suite) -> None:
    def rows(engine: Engine) -> list[dict[str, Any]]:
        return sorted(checked_rows(engine, broken(suite), suite).to_pylist(), key=repr)

    assert rows(views) == rows(partial(frames, spark))


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_no_text_is_handed_to_great_expectations(suite: Suite) -> None:
    rows = checked_rows(views, sound(), suite)
    texts = set(TEXTS) | {row["text"] for row in sound()[chunks]}
    assert not texts & {value for column in rows.columns for value in column.to_pylist()}
    unique = {name for each in suite.expectations if "unique" in each.type for name in each.columns}
    assert {field.name for field in rows.schema if pa.types.is_string(field.type)} <= unique


def test_every_expectation_has_a_defect() -> None:
    tried = {(table, name) for table, name, _, _ in DEFECTS} | {
        (t, n) for t, names in NULL_GATES.items() for n in names
    }
    expected = {(suite.table, each.name) for suite in SUITES.values() for each in suite.expectations}
    assert expected - tried == {(table, "row_count") for table in SUITES}


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_an_empty_table_fails(engine: Engine, suite: Suite) -> None:
    tables = sound()
    tables[suite.table] = []
    results = run_gate_suite(engine(tables, suite), suite, parameters=PARAMETERS)
    assert "row_count" in {each.name for each in results if not each.passed}
    assert not gate_verdict(suite.expectations, results).passed


def test_nothing_raw_leaves_a_suite(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    secret, digits = "hunter2-correct-horse", "4111111111111111"
    tables = sound()
    for table in (documents, chunks):
        tables[table][0]["text"] = f"{secret} {digits}"
    tables[documents][1] |= {"uri": secret, "language": secret, "title": secret, "source": digits}
    with caplog.at_level(logging.DEBUG):
        said = [
            run_gate_suite(engine(tables, SUITES[table]), SUITES[table], tmp_path, PARAMETERS)
            for table in (documents, chunks)
        ]
    assert not any(
        gate_verdict(SUITES[t].expectations, r).passed for t, r in zip((documents, chunks), said, strict=True)
    )
    pages = [data_docs_page(tmp_path, table).read_text() for table in (documents, chunks)]
    assert all("text_sha256_matches_text" in page for page in pages)
    # py4j logs what goes through its socket, so the queries, which hold no values.
    everything = [repr(said), caplog.text, *capfd.readouterr(), *pages]
    everything += [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(secret in text or digits in text for text in everything)


def test_data_docs_show_counts_call_nobody_and_lead_nowhere_else(engine: Engine, tmp_path: Path) -> None:
    tables = sound()
    tables[documents][0]["language"] = "English"
    suite = SUITES[documents]
    run_gate_suite(engine(tables, suite), suite, tmp_path, PARAMETERS)
    page = html.document_fromstring(data_docs_page(tmp_path, suite.table).read_text())
    said = page.text_content()
    assert "Exception" not in said
    assert "Filters go by ISO 639 code" in said
    assert (said.count("✗ not met"), said.count("✓ met")) == (1, len(suite.expectations) - 1)
    assert not page.xpath("//script | //link | //img | //iframe | //button | //form | //*[@onclick]")
    assert not re.search(r"url\(|@import|https?:", html.tostring(page, encoding="unicode"))
    ids, links = set(page.xpath("//@id")), page.xpath("//a/@href")
    assert len(links) > 10
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_an_expectation_that_can_not_be_evaluated_is_an_error(engine: Engine) -> None:
    bad = expect_of_column("bad", "expect_column_stdev_to_be_between", "text", "why.", max_value=0)
    suite = Suite(documents, "SELECT * FROM {documents}", (bad,))
    tables = sound()
    tables[documents][0]["text"] = "hunter2-correct-horse"
    with pytest.raises(ExpectationNotEvaluated, match="bad could not be evaluated") as raised:
        run_gate_suite(engine(tables, suite), suite, parameters={})
    assert "hunter2" not in str(raised.value)


def test_spark_reads_the_tables_once(spark: SparkSession) -> None:
    suite = SUITES[documents]
    tables = sound()
    tables[documents] = [document(number, f"text number {number}") for number in range(100)]
    made = frames(spark, tables, suite)
    read = spark.sparkContext.accumulator(0)

    def counted(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            read.add(batch.num_rows)
            yield batch

    made[documents] = made[documents].mapInArrow(counted, made[documents].schema)
    assert gate_verdict(suite.expectations, run_gate_suite(made, suite, parameters=PARAMETERS)).passed
    assert read.value == 100


def test_after_a_gate_an_error_of_spark_says_what_is_wrong(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks for the logger of Spark's errors first decides its class, and they need their own."""
    monkeypatch.delitem(logging.root.manager.loggerDict, "SQLQueryContextLogger", raising=False)
    suite = SUITES[documents]
    assert run_gate_suite(frames(spark, sound(), suite), suite, parameters=PARAMETERS)
    with pytest.raises(AnalysisException, match="`nothing` cannot be found"):
        spark.sql("select * from nothing")
