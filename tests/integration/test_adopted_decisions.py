"""A state folder from before the release log: which engine answered when, and what a rollback leads to."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from index_rows import DIMENSION, NO_DETAILS, NO_LINEAGE, Chunk, batch

from assets.engine_releases import (
    EngineRelease,
    adopt_engine_releases,
    engine_releases,
    project_engine_releases,
    roll_back_engine,
)
from assets.lake.lineage import CODE_VERSION
from assets.lake.tables import ENGINE_RELEASES
from common.lineage import Lineage
from inference.engines.generator import EngineConfig
from orchestration.settings import Settings, open_configured_lake
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres


def test_engines_of_before_the_log_are_adopted_once_with_their_times_and_way_back(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "state")
    lake, postgres = open_configured_lake(settings), Postgres(settings.home, settings.postgres)
    decided = [("e0", "released"), ("e1", "released"), ("e2", "released"), ("e1", "rolled_back")]
    rows = []
    for day, (digest, decision) in enumerate(decided, 1):
        row = EngineRelease.model_validate(
            {"engine": "extractive", "generator_digest": digest, "decision": decision, "reason": "as it was"}
            | {"config": EngineConfig(), "decided_at": datetime(2026, 1, day, tzinfo=UTC)}
        ).model_dump()
        encoded = {"config": EngineConfig().model_dump_json(), "metrics": "{}", "gains": "{}"}
        rows.append(row | encoded | {"move_id": None})
    lineage = Lineage(
        run_id="",
        asset="ops/engine_releases",
        code_version=CODE_VERSION,
        config_digest="",
        inputs={},
        fence=1,
    )
    lake.append(ENGINE_RELEASES, pa.Table.from_pylist(rows, ENGINE_RELEASES.schema), lineage)
    try:
        index = Index(postgres)
        state = index.build("m", "c", DIMENSION, [batch([Chunk("a", "one")])], NO_LINEAGE)
        index.release("r1", state, None, NO_DETAILS)  # today, as the schema's migration logs it first
        (settings.home / "state.json").write_text(json.dumps({"version": 13}))
        lake = open_configured_lake(settings)
        adopted = index.log.decisions("engine")
        assert [(each.digest, each.decision, each.at) for each in adopted] == [
            (row["generator_digest"], row["decision"], row["decided_at"]) for row in rows
        ]
        assert project_engine_releases(lake, index.log) == 0  # the table has them
        lost = index.log.live("engine")
        with postgres.owner() as connection:  # as where PostgreSQL was lost; a run adopts them then
            connection.execute("DELETE FROM headwater.release_log")
        adopt_engine_releases(lake, index.log)
        found = index.log.live("engine")
        assert found is not None
        assert lost is not None
        assert (found.digest, found.at) == (lost.digest, lost.at)
        assert engine_releases(index.log)[0].config == EngineConfig()
        assert project_engine_releases(lake, index.log) == 0
        assert roll_back_engine(lake, index.log, None, "worse", lambda _: None).generator_digest == "e0"
    finally:
        postgres.remove()
