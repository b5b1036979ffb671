"""What is appended for files that were read: the same whether this process or Spark says so."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa

from assets.engine.relations import Relations
from assets.lake.lake import Lake
from assets.lake.tables import RAW_DOCUMENTS
from assets.sources.revisions import STATE, define_revisions, tombstones
from assets.sources.source_config import Source
from assets.sources.source_schemas import ListedFile, SourceContent, source_content_batch
from common.ids import doc_id

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


def revisions(on: Relations, found: pa.Table, known: pa.Table, now: datetime) -> pa.Table:
    on.add("read", found)
    define_revisions(on, "revisions", known, SOURCE, now)
    return on.arrow("revisions").cast(RAW_DOCUMENTS.schema)


def test_both_engines_append_the_same(local_and_spark: tuple[Relations, Relations]) -> None:
    local, distributed = local_and_spark
    nothing = state(RAW_DOCUMENTS.schema.empty_table())
    before = read(THEN, same=b"same", touched=b"touched", edited=b"old", failed=None, mended=None, went=b"w")
    first = revisions(local, before, nothing, THEN)
    stood = state(first)  # in no order: a mask is of one reading
    away = tombstones(stood.filter(pa.compute.equal(stood["uri"], "file:///went")), THEN)
    known = state(pa.concat_tables([first, away]))
    later = THEN + timedelta(hours=1)
    after = read(later, touched=b"touched", edited=b"new", failed=None, mended=b"m", came=b"c", went=b"w")
    found = by_name(revisions(local, after, known, NOW))
    assert by_name(revisions(distributed, after, known, NOW)) == found
    assert {name: (row["revision"], row["body"], row["deleted"]) for name, row in found.items()} == {
        "same": (2, None, True),
        "touched": (2, None, False),
        "edited": (2, b"new", False),
        "mended": (2, b"m", False),
        "came": (1, b"c", False),
        "went": (3, b"w", False),
    }
    assert found["edited"]["doc_id"] == doc_id("acmé", "docs", "file:///edited")
    assert found["edited"]["first_seen_at"] == THEN < found["edited"]["fetched_at"] == NOW
    assert found["came"]["first_seen_at"] == NOW
    assert found["touched"]["file_modified_at"] == later


def rows_with_titles(at: datetime, **titles: str) -> pa.Table:
    found = read(at, **{f"rows.jsonl#{name}": b"its text" for name in titles})
    place = found.schema.get_field_index("title")
    return found.set_column(place, found.schema.field(place), pa.array(list(titles.values()), pa.string()))


def test_a_row_whose_title_alone_changed_is_a_new_revision(
    local_and_spark: tuple[Relations, Relations],
) -> None:
    nothing = state(RAW_DOCUMENTS.schema.empty_table())
    for on in local_and_spark:
        first = revisions(on, rows_with_titles(THEN, a="A", b="B", c="C"), nothing, THEN)
        after = rows_with_titles(THEN + timedelta(hours=1), a="A", b="New", c="C")
        found = by_name(revisions(on, after, state(first), NOW))
        assert {name: (row["title"], row["body"]) for name, row in found.items()} == {
            "rows.jsonl#a": ("A", None),  # stands for the file, which was touched
            "rows.jsonl#b": ("New", b"its text"),
        }


def test_a_first_reading_is_the_same_in_both_engines(local_and_spark: tuple[Relations, Relations]) -> None:
    nothing = state(RAW_DOCUMENTS.schema.empty_table())
    local, distributed = (
        by_name(revisions(on, read(THEN, one=b"1", failed=None), nothing, NOW)) for on in local_and_spark
    )
    assert distributed == local
    assert len(local) == 2
