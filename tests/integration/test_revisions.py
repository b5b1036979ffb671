"""What is appended for files that were read: the same whether this process or Spark says so."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
from pyspark.sql import SparkSession

from assets.lake.ids import doc_id
from assets.lake.lake import Lake
from assets.lake.tables import RAW_DOCUMENTS
from assets.sources.revisions import STATE, revisions, revisions_here, tombstones
from assets.sources.source_config import Source
from assets.sources.source_schemas import ListedFile, SourceContent, source_content_batch

THEN, NOW = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 2, tzinfo=UTC)
SOURCE = Source(name="docs", location="/docs", tenant="acmé")


def read(at: datetime, **bodies: bytes | None) -> pa.Table:
    files = {ListedFile(f"file:///{name}", 5, at): body for name, body in bodies.items()}
    documents = [
        SourceContent.failed(file, "unreadable: gone")
        if body is None
        else SourceContent.of(file, body, "text/plain")
        for file, body in files.items()
    ]
    return pa.Table.from_batches([source_content_batch(documents)])


def state(raw: pa.Table) -> pa.Table:
    return Lake.query(STATE, raw=raw)


def by_name(rows: pa.Table) -> dict[str, dict]:
    return {row["uri"].removeprefix("file:///"): row for row in rows.to_pylist()}


def test_both_ways_append_the_same(spark: SparkSession) -> None:
    nothing = state(RAW_DOCUMENTS.schema.empty_table())
    before = read(THEN, same=b"same", touched=b"touched", edited=b"old", failed=None, mended=None, went=b"w")
    first = revisions_here(before, nothing, SOURCE, THEN)
    assert first.schema == RAW_DOCUMENTS.schema
    stood = state(first)  # in no order: a mask is of one reading
    away = tombstones(stood.filter(pa.compute.equal(stood["uri"], "file:///went")), THEN)
    known = state(pa.concat_tables([first, away]))
    later = THEN + timedelta(hours=1)
    after = read(later, touched=b"touched", edited=b"new", failed=None, mended=b"m", came=b"c", went=b"w")
    here = by_name(revisions_here(after, known, SOURCE, NOW))
    frame = revisions(spark.createDataFrame(after), known, SOURCE, NOW)
    assert by_name(frame.toArrow().cast(RAW_DOCUMENTS.schema)) == here
    assert {name: (row["revision"], row["body"], row["deleted"]) for name, row in here.items()} == {
        "same": (2, None, True),
        "touched": (2, None, False),
        "edited": (2, b"new", False),
        "mended": (2, b"m", False),
        "came": (1, b"c", False),
        "went": (3, b"w", False),
    }
    assert here["edited"]["doc_id"] == doc_id("acmé", "docs", "file:///edited")
    assert here["edited"]["first_seen_at"] == THEN < here["edited"]["fetched_at"] == NOW
    assert here["came"]["first_seen_at"] == NOW
    assert here["touched"]["file_modified_at"] == later


def test_a_first_reading_is_the_same_both_ways(spark: SparkSession) -> None:
    nothing = state(RAW_DOCUMENTS.schema.empty_table())
    found = read(THEN, one=b"1", failed=None)
    frame = revisions(spark.createDataFrame(found), nothing, SOURCE, NOW).toArrow()
    here = revisions_here(found, nothing, SOURCE, NOW)
    assert by_name(frame.cast(RAW_DOCUMENTS.schema)) == by_name(here)
    assert len(here) == 2
