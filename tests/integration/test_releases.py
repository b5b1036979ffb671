"""The release log says what is live; `ops.releases` follows, also where a process died between the two."""

import getpass
import json
from pathlib import Path
from typing import Any

import pytest
from index_rows import DIMENSION, Chunk, batch, emptied, made_from, made_with
from typer.testing import CliRunner

from assets.lake.lake import Lake
from assets.lake.lineage import WriteConflict
from assets.lake.releases import (
    ReleaseNotApproved,
    approve_release,
    log_release_verdict,
    make_release_live,
    project_releases,
    roll_back_release,
    stored_release_name,
)
from assets.lake.spark import SparkConfig
from assets.lake.tables import RELEASES
from orchestration.cli.main import app
from orchestration.settings import Settings, open_configured_lake
from quality.evaluation.verdict import Outcome, Verdict
from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.index.release_log import ReleaseConflict
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
        connection.execute("DELETE FROM headwater.releases")
    return index


def judge(lake: Lake, index: Index, state: IndexState, outcome: Outcome, reason: str) -> str:
    since, verdict = index.log.newest_move_id(), Verdict(outcome, reason)
    log_release_verdict(lake, index, state, verdict, {"ndcg@10": 0.7}, "gate", since)
    return stored_release_name(state)


def log(lake: Lake) -> list[tuple[str, str, str]]:
    rows = lake.delta(RELEASES.name).to_pyarrow_table().sort_by("decided_at").to_pylist()
    return [(row["release_id"], row["decision"], row["reason"]) for row in rows]


def test_only_what_was_approved_goes_live(lake: Lake, index: Index, model: EmbeddingModel) -> None:
    state = index.build("model", "chunker", DIMENSION, [batch([Chunk("a", "one")])], made_from(chunks=1))
    with pytest.raises(ReleaseNotApproved, match="it was not evaluated"):
        make_release_live(lake, index, state, "run", model)
    since = index.log.newest_move_id()
    name = judge(lake, index, state, "refused", "too low")
    with pytest.raises(ReleaseNotApproved, match="it was refused: too low"):
        make_release_live(lake, index, state, "run", model)
    with pytest.raises(ReleaseNotApproved, match="it was refused: too low"):
        approve_release(lake, index, name, "it looks fine")
    with pytest.raises(ReleaseConflict):  # an evaluation that began before that verdict
        log_release_verdict(lake, index, state, Verdict("released", "good"), {}, "gate", since)
    judge(lake, index, state, "released", "good")
    live = make_release_live(lake, index, state, "run", model)
    assert (live.details.metrics, live.details.versions) == ({"ndcg@10": 0.7}, {"chunks": 1})


def test_what_was_not_decided_goes_live_when_a_person_says_why(
    lake: Lake, index: Index, model: EmbeddingModel
) -> None:
    state = index.build("model", "chunker", DIMENSION, [batch([Chunk("a", "one")])], made_from(chunks=1))
    name = judge(lake, index, state, "undecided", "5 questions of 150")
    with pytest.raises(ReleaseNotApproved, match=r"5 questions of 150; .*releases approve"):
        make_release_live(lake, index, state, "run", model)
    with pytest.raises(ReleaseNotApproved, match="the reason is empty"):
        approve_release(lake, index, name, " ")
    approved = approve_release(lake, index, name, "we read the answers")
    assert approved.decided_by == getpass.getuser()
    live = make_release_live(lake, index, state, "run", model)
    assert (live.release_id, live.details.metrics) == (name, {"ndcg@10": 0.7})
    assert log(lake)[1:] == [
        (name, "approved", "we read the answers"),
        (name, "promoted", "we read the answers"),
    ]


def test_the_table_follows_where_a_process_died_after_it_moved_what_is_live(
    lake: Lake, index: Index, model: EmbeddingModel
) -> None:
    first = index.build("model", "chunker", DIMENSION, [batch([Chunk("a", "one")])], made_from(chunks=1))
    one, reason = judge(lake, index, first, "released", "good"), "good"
    index.release(one, first, None, made_with("model"), reason)  # and nothing more: the process was killed
    assert log(lake) == [(one, "approved", reason)]
    assert make_release_live(lake, index, first, "again", model).release_id == one
    expected = [(one, "approved", reason), (one, "released", reason)]
    assert log(lake) == expected
    make_release_live(lake, index, first, "once more", model)
    assert log(lake) == expected

    second = index.apply(first, [batch([Chunk("b", "two")])], [], made_from(chunks=2))
    two = judge(lake, index, second, "released", reason)
    make_release_live(lake, index, second, "run", model)
    index.hold(one, "ann", "")  # killed as well
    # What was rolled back from is not made live again by a run, which repairs the table.
    assert make_release_live(lake, index, second, "run", model).release_id == one
    expected += [(two, "approved", reason), (two, "released", reason)]
    expected += [(one, "rolled_back", f"rolled back from {two}")]
    assert log(lake) == expected
    roll_back_release(lake, index, two, "ann", "")
    assert log(lake) == [*expected, (two, "rolled_back", f"rolled back from {one}")]
    assert project_releases(lake, index.log) == 0
    assert len(log(lake)) == 6


def test_the_table_is_written_also_where_another_writer_was_faster_once(
    lake: Lake, index: Index, model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = index.build("model", "chunker", DIMENSION, [batch([Chunk("a", "one")])], made_from(chunks=1))
    name = judge(lake, index, state, "released", "good")
    append, conflicts = Lake.append, [WriteConflict("another process was faster")]

    def overtaken(self: Lake, *args: Any) -> int:
        if conflicts:
            raise conflicts.pop()
        return append(self, *args)

    monkeypatch.setattr(Lake, "append", overtaken)
    assert make_release_live(lake, index, state, "run", model).release_id == name
    assert conflicts == []
    assert log(lake) == [(name, "approved", "good"), (name, "released", "good")]


def test_the_command_line_shows_who_decided_what_and_has_all_follow(
    small_release: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(small_release.home))

    def invoke(*arguments: str) -> Any:
        return json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout)

    newest, *_ = shown = invoke("releases", "log")
    assert {each["kind"] for each in shown} == {"index"}
    assert (newest["decision"], newest["digest"]) == ("released", invoke("releases")[0]["release"])
    assert invoke("releases", "log", "--most", "1") == shown[:1]
    live = invoke("releases", "show", "--tenant", "acme")
    assert (live["release"], live["engine"], len(live["engine_digest"])) == ("live", "extractive", 16)
    assert live["digest"] != invoke("releases", "show", "--tenant", "beta")["digest"]
    lake = open_configured_lake(small_release)
    lake.delta(RELEASES.name).delete(f"move_id = {newest['move_id']}")
    assert invoke("releases", "rebuild") == {"rebuilt": ["ops.releases: 1 rows"]}
    assert invoke("releases", "rebuild") == {"rebuilt": []}
    refused = CliRunner().invoke(app, ["releases", "approve", "r9.9", "--because", "why not"])
    assert isinstance(refused.exception, ReleaseNotApproved)
