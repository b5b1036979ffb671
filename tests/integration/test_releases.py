"""PostgreSQL says what is live; `ops.releases` follows, also where a process died between the two."""

from pathlib import Path
from typing import Any

import pytest
from index_rows import DIMENSION, Chunk, batch, emptied, made_from, made_with

from assets.lake.lake import Lake
from assets.lake.lineage import WriteConflict
from assets.lake.releases import (
    ReleaseNotApproved,
    last_stored_verdict,
    log_live_history,
    log_release_verdict,
    make_release_live,
    roll_back_release,
    stored_release_name,
)
from assets.lake.spark import SparkConfig
from assets.lake.tables import RELEASES
from quality.evaluation.verdict import Verdict
from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.index.types import IndexState
from retrieval.store.postgres import Postgres


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path / "lake", SparkConfig(), tmp_path / "scratch", tmp_path / "docs")
    lake.ensure()
    return lake


@pytest.fixture
def model(tmp_path: Path) -> EmbeddingModel:
    return EmbeddingModel.of(EmbedderConfig(), tmp_path)


@pytest.fixture
def index(postgres: Postgres) -> Index:
    index = emptied(postgres)
    with postgres.owner() as connection:
        connection.execute("DELETE FROM headwater.live_history; DELETE FROM headwater.releases")
    return index


def approved(lake: Lake, state: IndexState) -> IndexState:
    token = lake.fencing_token(RELEASES)
    log_release_verdict(lake, state, Verdict("released", "good"), {"ndcg@10": 0.7}, "gate", token)
    return state


def log(lake: Lake) -> list[tuple[str, str, str]]:
    rows = lake.delta(RELEASES.name).to_pyarrow_table().sort_by("decided_at").to_pylist()
    return [(row["release_id"], row["decision"], row["reason"]) for row in rows]


def test_only_what_the_gate_approved_goes_live(lake: Lake, index: Index, model: EmbeddingModel) -> None:
    state = index.build("model", "chunker", DIMENSION, [batch([Chunk("a", "one")])], made_from(chunks=1))
    with pytest.raises(ReleaseNotApproved, match="it was not evaluated"):
        make_release_live(lake, index, state, "run", model)
    log_release_verdict(lake, state, Verdict("refused", "too low"), {}, "gate", 0)
    with pytest.raises(ReleaseNotApproved, match="it was refused: too low"):
        make_release_live(lake, index, state, "run", model)
    name = stored_release_name(state)
    undecided = Verdict("undecided", "not decided: too few", 208)
    log_release_verdict(lake, state, undecided, {}, "gate", 1, "r0.1", "0123456789abcdef")
    with pytest.raises(ReleaseNotApproved, match=f"not decided: too few: .* approve {name} --because"):
        make_release_live(lake, index, state, "run", model)
    kept = last_stored_verdict(lake, name)
    assert kept is not None
    assert (kept.decision, kept.against, kept.questions_digest) == ("undecided", "r0.1", "0123456789abcdef")
    with pytest.raises(WriteConflict):  # an evaluation that began before that verdict
        log_release_verdict(lake, state, Verdict("released", "good"), {}, "gate", 0)
    live = make_release_live(lake, index, approved(lake, state), "run", model)
    assert (live.details.metrics, live.details.versions) == ({"ndcg@10": 0.7}, {"chunks": 1})


def test_the_log_follows_the_pointer_where_a_process_died_between_them(
    lake: Lake, index: Index, model: EmbeddingModel
) -> None:
    first = index.build("model", "chunker", DIMENSION, [batch([Chunk("a", "one")])], made_from(chunks=1))
    one, reason = stored_release_name(approved(lake, first)), "good"
    index.release(one, first, None, made_with("model"))  # and nothing more: the process was killed
    assert log(lake) == [(one, "approved", reason)]
    assert make_release_live(lake, index, first, "again", model).release_id == one
    expected = [(one, "approved", reason), (one, "released", reason)]
    assert log(lake) == expected
    make_release_live(lake, index, first, "once more", model)
    assert log(lake) == expected

    second = index.apply(first, [batch([Chunk("b", "two")])], [], made_from(chunks=2))
    two = stored_release_name(approved(lake, second))
    make_release_live(lake, index, second, "run", model)
    index.hold(one, "ann", "")  # killed as well
    # What was rolled back from is not made live again by a run, which repairs the log.
    assert make_release_live(lake, index, second, "run", model).release_id == one
    expected += [(two, "approved", reason), (two, "released", reason)]
    expected += [(two, "rolled_back", f"rolled back to {one}")]
    assert log(lake) == expected
    roll_back_release(lake, index, two, "ann", "")
    assert log(lake) == [*expected, (one, "rolled_back", f"rolled back to {two}")]
    log_live_history(lake, index, "run")
    assert len(log(lake)) == 6


def test_the_log_is_written_also_where_another_writer_was_faster_once(
    lake: Lake, index: Index, model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = index.build("model", "chunker", DIMENSION, [batch([Chunk("a", "one")])], made_from(chunks=1))
    name = stored_release_name(approved(lake, state))
    append, conflicts = Lake.append, [WriteConflict("another process was faster")]

    def overtaken(self: Lake, *args: Any) -> int:
        if conflicts:
            raise conflicts.pop()
        return append(self, *args)

    monkeypatch.setattr(Lake, "append", overtaken)
    assert make_release_live(lake, index, state, "run", model).release_id == name
    assert conflicts == []
    assert log(lake) == [(name, "approved", "good"), (name, "released", "good")]
