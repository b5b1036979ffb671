"""What was decided last is last, also when the clock was set back in between."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from index_rows import DIMENSION, NO_DETAILS, NO_LINEAGE, Chunk, batch

from assets.dagster.gates import recorded_gate_warnings
from assets.lake.audits import Unaudited, readable_version, record_audit
from assets.lake.lake import Lake
from assets.lake.releases import (
    log_release_verdict,
    roll_back_release,
    stored_release_name,
)
from assets.lake.spark import SparkConfig
from assets.lake.tables import AUDITS, DOCUMENTS, RAW_DOCUMENTS, RELEASES
from assets.sources.revisions import STATE, stale_source_files
from assets.sources.source_schemas import SOURCE_LISTING_SCHEMA
from common.lineage import Lineage
from quality.evaluation.verdict import Verdict
from retrieval.index.index import Index
from retrieval.index.types import IndexState
from retrieval.search.as_of import release_as_of
from retrieval.store.postgres import Postgres

AHEAD = timedelta(hours=1)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake", SparkConfig(), tmp_path / "scratch", tmp_path / "docs")
    lake.ensure()
    return lake


@pytest.fixture
def set_back(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The clock is an hour ahead until this is called."""

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "datetime":  # type: ignore[override]
            return datetime.now(tz) + AHEAD

    monkeypatch.setattr("assets.lake.lake.datetime", Ahead)
    return lambda: monkeypatch.setattr("assets.lake.lake.datetime", datetime)


def test_the_last_audit_counts(lake: Lake, set_back: Any) -> None:
    record_audit(lake, DOCUMENTS.name, 1, True, ["warned"], "before")
    assert recorded_gate_warnings(lake, DOCUMENTS.name, 1) == ["warned"]
    set_back()
    record_audit(lake, DOCUMENTS.name, 1, False, ["text_not_null"], "after")
    with pytest.raises(Unaudited):
        readable_version(lake, DOCUMENTS)
    assert recorded_gate_warnings(lake, DOCUMENTS.name, 1) is None
    record_audit(lake, DOCUMENTS.name, 1, True, [], "mended")
    assert readable_version(lake, DOCUMENTS) == 1


def test_the_last_verdict_counts(lake: Lake, postgres: Postgres) -> None:
    state, index = IndexState(1, 1, "model", "chunker", DIMENSION, NO_LINEAGE), Index(postgres)
    since = index.log.newest_move_id()
    log_release_verdict(lake, index, state, Verdict("refused", "too low"), {}, "before", since)
    with postgres.owner() as connection:  # the clock was ahead until now
        connection.execute("UPDATE headwater.release_log SET at = at + %s", (AHEAD,))
    since = index.log.newest_move_id()
    log_release_verdict(lake, index, state, Verdict("released", "good"), {}, "after", since)
    seen = index.log.newest_verdict("index", stored_release_name(state))
    assert seen is not None
    assert seen.decision == "approved"
    stored = lake.delta(RELEASES.name).to_pyarrow_table().sort_by("decided_at")
    assert stored["decision"].to_pylist()[-1] == "approved"


def test_stamps_follow_the_clock_when_it_is_right(lake: Lake) -> None:
    before = datetime.now(UTC)
    record_audit(lake, DOCUMENTS.name, 1, True, [], "run")
    stamped = lake.delta(AUDITS.name).to_pyarrow_table()["audited_at"][0].as_py()
    assert before <= stamped <= datetime.now(UTC)
    assert lake.stamp(RELEASES, "decided_at") >= stamped


def test_rollback_goes_to_the_release_before(lake: Lake, postgres: Postgres) -> None:
    index = Index(postgres)
    state = index.build("model of clocks", "chunker", DIMENSION, [batch([Chunk("a", "one")])], NO_LINEAGE)
    live = index.live()
    index.release("clock 1", state, live.release_id if live else None, NO_DETAILS)
    with postgres.owner() as connection:  # it was made by a clock that was ahead
        connection.execute(
            "UPDATE headwater.releases SET released_at = released_at + %s WHERE release_id = 'clock 1'",
            (AHEAD,),
        )
    state = index.apply(state, [batch([Chunk("b", "two")])], [], NO_LINEAGE)
    index.release("clock 2", state, "clock 1", NO_DETAILS)
    assert [each.release_id for each in index.releases()][:2] == ["clock 2", "clock 1"]
    assert roll_back_release(lake, index, None, "ann", "").release_id == "clock 1"
    index.end_hold()
    index.prune([])
    with postgres.owner() as connection:
        connection.execute("DELETE FROM headwater.release_log")
        connection.execute("DELETE FROM headwater.releases WHERE release_id LIKE 'clock %'")


def test_what_was_live_at_a_time_is_told_after_the_clock_was_set_back(postgres: Postgres) -> None:
    index = Index(postgres)
    live = index.live()
    state = index.build("model of hours", "chunker", DIMENSION, [batch([Chunk("a", "one")])], NO_LINEAGE)
    index.release("hour 1", state, live.release_id if live else None, NO_DETAILS)
    with postgres.owner() as connection:  # the clock was ahead until now
        connection.execute(
            "UPDATE headwater.release_log SET at = at + %s WHERE digest = 'hour 1'",
            (AHEAD,),
        )
    state = index.apply(state, [batch([Chunk("b", "two")])], [], NO_LINEAGE)
    index.release("hour 2", state, "hour 1", NO_DETAILS)
    index.hold("hour 1", "ann", "")
    index.end_hold()
    index.release("hour 3", state, "hour 1", NO_DETAILS)
    history = index.live_history()
    assert [each.release_id for each in history][-4:] == ["hour 1", "hour 2", "hour 1", "hour 3"]
    assert len({each.live_since for each in history}) == len(history)
    later = datetime.now(UTC) + 2 * AHEAD
    assert release_as_of(later.isoformat(), index.releases(), history, later).release_id == "hour 3"
    with postgres.owner() as connection:
        connection.execute("DELETE FROM headwater.release_log")
        connection.execute("DELETE FROM headwater.releases WHERE release_id LIKE 'hour %'")


def test_what_was_read_again_is_not_stale(lake: Lake, set_back: Any) -> None:
    """A file of many documents, of which the second reading told of one."""

    def row(document: str, revision: int, size_bytes: int) -> dict[str, Any]:
        return {
            **dict.fromkeys(RAW_DOCUMENTS.schema.names),
            **{"doc_id": document, "revision": revision, "uri": f"file:///mail#{document}", "tenant": "t"},
            **{"source": "s", "deleted": False, "file_size_bytes": size_bytes},
            **{"file_modified_at": datetime(2026, 1, 1, tzinfo=UTC)},
            **{"fetched_at": lake.stamp(RAW_DOCUMENTS, "fetched_at"), "first_seen_at": datetime.now(UTC)},
        }

    lineage = Lineage(run_id="r", asset="bronze/raw_documents", code_version="", config_digest="", inputs={})

    def write(*rows: dict[str, Any]) -> None:
        lake.append(RAW_DOCUMENTS, pa.Table.from_pylist(list(rows), RAW_DOCUMENTS.schema), lineage)

    write(row("a", 1, 10), row("b", 1, 10))
    set_back()
    write(row("b", 2, 11))
    entry = {
        **dict.fromkeys(SOURCE_LISTING_SCHEMA.names),
        **{
            "uri": "file:///mail",
            "file_size_bytes": 11,
            "file_modified_at": datetime(2026, 1, 1, tzinfo=UTC),
        },
    }
    listing = pa.Table.from_pylist([entry], schema=SOURCE_LISTING_SCHEMA)
    state = lake.query(STATE, raw=lake.delta(RAW_DOCUMENTS.name))
    assert stale_source_files(listing, state).num_rows == 0
