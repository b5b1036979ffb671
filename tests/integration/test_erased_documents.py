"""A document whose revisions were deleted is gone, in both engines, unless it came back since."""

from datetime import UTC, datetime

import pyarrow as pa
from both_engines import BothEngines
from pyspark.sql import SparkSession

from assets.engine.relations import IS_DELETED
from assets.lake.tables import QUARANTINE_DECISIONS, RAW_DOCUMENTS
from assets.silver import define_revisions_to_parse


def revision(doc_id: str, number: int, gone: bool) -> dict[str, object]:
    row = dict.fromkeys(RAW_DOCUMENTS.schema.names)
    return row | {
        "doc_id": doc_id, "revision": number, "tenant": "t", "source": "s", "uri": doc_id, "body": b"x",
        "first_seen_at": datetime(2026, 1, 1, tzinfo=UTC), "fetched_at": datetime(2026, 1, 1, tzinfo=UTC),
        "deleted": False, IS_DELETED: gone,
    }  # fmt: skip


def test_a_document_without_revisions_is_gone_unless_it_came_back(spark: SparkSession) -> None:
    rows = [
        *(revision("gone", n, True) for n in (1, 2)),
        revision("back", 1, False),
        revision("back", 2, True),
        revision("new", 1, False),
    ]
    schema = RAW_DOCUMENTS.schema.append(pa.field(IS_DELETED, pa.bool_()))
    decided = QUARANTINE_DECISIONS.schema.empty_table()
    with BothEngines(spark) as on:
        on.add("changed_raw_documents", pa.Table.from_pylist(rows, schema))
        on.add("quarantine_decisions", decided)
        on.add("changed_quarantine_decisions", decided)
        define_revisions_to_parse(on, False)
        found = on.arrow("latest_revisions").to_pylist()
    assert {(r["doc_id"], r["revision"], r["deleted"]) for r in found} == {
        ("gone", 2, True),
        ("back", 1, False),
        ("new", 1, False),
    }
