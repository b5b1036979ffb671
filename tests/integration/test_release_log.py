"""Whatever is promoted, held, rolled back, removed and killed: the release log is one truth, and all follow.

The model beside the log is a list per subject: what is live, and what rollbacks lead to. A kill ends a move
inside its transaction, after it, or before another table, alias or MLflow follows; a restart has all follow.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from index_rows import DIMENSION, NO_LINEAGE, Chunk, batch, made_with
from random_adapters import register_random_adapter
from test_model_releases import LINEAGE
from tiny_embedders import make_tiny_embedder
from tiny_generator import save_tiny_generator

from assets.engine_releases import (
    EngineNotReleasable,
    EngineRelease,
    engine_releases,
    log_engine_decision,
    project_engine_releases,
    roll_back_engine,
    stored_engine_releases,
)
from assets.lake.releases import project_releases
from assets.lake.tables import ENGINE_RELEASES, RELEASES
from inference.engines.generator import EngineConfig
from orchestration.settings import Settings, open_configured_lake
from orchestration.tenants.removal import _take_adapters_down
from orchestration.training.consistency import check_models
from retrieval.embedding.config import EmbedderConfig
from retrieval.index.index import Index
from retrieval.index.release_log import (
    GATE,
    Decision,
    Kind,
    ReleaseConflict,
    ReleaseHeld,
    ReleaseLog,
    insert_decision,
)
from retrieval.index.types import IndexState, UnknownIndexRelease
from retrieval.store.postgres import Postgres
from training.registry.live import follow_release_log, live_versions
from training.registry.live_adapters import AdapterRecord, LiveAdapters, generator_name
from training.registry.mlflow_mirror import registered_in_mlflow
from training.registry.model_card import model_card
from training.registry.versions import ModelRegistry

pytestmark = pytest.mark.slow

TENANTS = ("acme", "beta")
ENGINES = ("extractive", "local", "endpoint")
STEPS = {"taken": 0}


KILLS = ("inside the transaction", "after it", "after tables followed", "after aliases followed")


class Killed(BaseException):
    """The process died here."""


def killed(*given: object) -> None:
    raise Killed


def killed_after(effect: Callable[..., object]) -> Callable[..., None]:
    def done(*given: object) -> None:
        effect(*given)
        raise Killed

    return done


class Place:
    """A state folder with two versions of the embedder and of each tenant's adapter, and a built index."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self.registry = ModelRegistry(self.settings.models_folder)
        self.lake = open_configured_lake(self.settings)
        self.index = Index(Postgres(home, self.settings.postgres))

        for seed in (0, 1):
            made = make_tiny_embedder(home / "base", seed)
            self.registry.add(
                "embedder",
                LINEAGE,
                {},
                1.0,
                lambda folder, made=made: shutil.copytree(made, folder, dirs_exist_ok=True) and None,  # type: ignore[misc]
                model_card,
            )
        base = save_tiny_generator(home / "generator")
        for tenant in TENANTS:
            for seed in (1, 2, 3):
                register_random_adapter(
                    self.registry, base, "ab" * 32, tenant, seed + len(tenant), dataset="/mine.jsonl"
                )
        self.state: IndexState = self.index.build(
            "model", "chunker", DIMENSION, [batch([Chunk("a", "one")])], NO_LINEAGE
        )


@pytest.fixture(scope="module")
def place(module_folder: Path) -> Iterator[Place]:
    made = Place(module_folder / "state")
    yield made
    made.index._postgres.remove()


def machine(place: Place) -> type[RuleBasedStateMachine]:
    lake, index, log = place.lake, place.index, place.index.log
    versions = {each.version: each for each in place.registry.versions("embedder")}

    class Releases(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            with index._postgres.owner() as connection:
                connection.execute("DELETE FROM headwater.release_log; DELETE FROM headwater.releases")
            for table in (RELEASES, ENGINE_RELEASES):
                lake.delta(table.name).delete()
            for aliases in place.registry.folder.glob("registry/*/aliases.json"):
                aliases.unlink()
            self.ways: dict[tuple[Kind, str], list[str]] = {}
            self.held_by: str | None = None
            self.embedders: dict[str, int | None] = {}
            self.releases = 0
            self.follow()

        def way(self, kind: Kind, subject: str = "") -> list[str]:
            """What is live, last, and before it what rollbacks lead to; an empty text is nothing."""
            return self.ways.setdefault((kind, subject), [""])

        def attempt(self, kill: str | None, move: Callable[[], object], moved: Callable[[], object]) -> None:
            """Makes a move as a process does that is killed at an effect, or not at all."""
            STEPS["taken"] += 1
            if self.held_by is not None:
                with pytest.raises(ReleaseHeld):
                    move()
                return
            if kill == "inside the transaction":
                inside = patch("retrieval.index.release_log.insert_decision", killed_after(insert_decision))
                with inside, pytest.raises(Killed):
                    move()
                return
            after = [
                patch(name, killed)
                for name in (
                    "assets.engine_releases.project_engine_releases",
                    "orchestration.tenants.removal.follow_release_log",
                )
            ]
            with after[0], after[1], suppress(Killed):
                move()
            moved()
            self.behind = True
            if kill == "after tables followed":
                project_releases(lake, log)
            elif kill == "after aliases followed":
                follow_release_log(place.registry, index)
            elif kill is None:
                self.follow()

        def follow(self) -> None:
            project_releases(lake, log)
            project_engine_releases(lake, log)
            follow_release_log(place.registry, index)
            self.behind = False

        kills = st.sampled_from([None, None, *KILLS])

        @rule(version=st.sampled_from([None, 1, 2]), kill=kills)
        def release(self, version: int | None, kill: str | None) -> None:
            self.releases += 1
            name, way = f"r{self.releases}", self.way("index")
            embedder = (
                EmbedderConfig(model=place.registry.path(versions[version])) if version else EmbedderConfig()
            )
            details = made_with(versions[version].digest if version else "packaged")
            details = details.model_copy(update={"embedder": embedder})
            self.attempt(
                kill,
                lambda: index.release(name, place.state, way[-1] or None, details),
                lambda: way.append(name),
            )
            if way[-1] == name:
                self.embedders[name] = version

        @rule(data=st.data(), kill=kills)
        def promote_kept(self, data: st.DataObject, kill: str | None) -> None:
            way = self.way("index")
            others = sorted(set(self.embedders) - {way[-1]})
            if way[-1] and others:
                name = data.draw(st.sampled_from(others))
                self.attempt(
                    kill, lambda: index.promote(name, way[-1], "better", "ada"), lambda: way.append(name)
                )

        @rule(kill=kills)
        def roll_back(self, kill: str | None) -> None:
            way = self.way("index")
            if len(way) > 2:
                self.attempt(kill, lambda: index.rollback(None, way[-1], "", "ada"), way.pop)
            elif self.held_by is None:
                with pytest.raises(UnknownIndexRelease):
                    index.rollback(None)

        @rule(data=st.data(), kill=kills)
        def roll_back_to(self, data: st.DataObject, kill: str | None) -> None:
            way = self.way("index")
            if others := sorted(set(self.embedders) - {way[-1]}):
                name = data.draw(st.sampled_from(others))

                def moved() -> None:
                    if name in way:
                        del way[len(way) - way[::-1].index(name) :]
                    else:
                        way.append(name)

                self.attempt(kill, lambda: index.rollback(name, way[-1], "", "ada"), moved)

        @rule(who=st.sampled_from(["ada", "bob"]))
        def hold(self, who: str) -> None:
            STEPS["taken"] += 1
            if not self.way("index")[-1]:
                return
            if self.held_by not in (None, who):
                with pytest.raises(ReleaseHeld):
                    index.hold(None, who, "")
                return
            index.hold(None, who, "")
            self.held_by = who

        @rule()
        def end_hold(self) -> None:
            STEPS["taken"] += 1
            ended = index.end_hold()
            assert (ended and ended.held_by) == self.held_by
            self.held_by = None

        @rule(
            engine=st.sampled_from(ENGINES),
            decision=st.sampled_from(["released", "promoted", "held"]),
            kill=kills,
        )
        def decide_engine(self, engine: str, decision: str, kill: str | None) -> None:
            way = self.way("engine")
            said = EngineRelease.model_validate(
                {"engine": engine, "generator_digest": f"digest of {engine}", "decision": decision}
                | {"reason": "as measured", "config": EngineConfig(), "decided_by": GATE}
            )
            since = log.newest_move_id()
            if decision == "held":  # a verdict moves nothing, so a hold does not stop it
                log_engine_decision(lake, log, said, since)
                return
            self.attempt(
                kill,
                lambda: log_engine_decision(lake, log, said, since),
                lambda: way.append(said.generator_digest),
            )

        @rule(kill=kills)
        def roll_back_engine(self, kill: str | None) -> None:
            way = self.way("engine")
            back = len(way) - 1
            while back > 0 and way[back] == way[-1]:  # of the same engine there is nothing to go back to
                back -= 1
            if back > 0:

                def moved() -> None:
                    del way[back + 1 :]

                self.attempt(kill, lambda: roll_back_engine(lake, log, None, "worse", lambda _: None), moved)
            elif self.held_by is None:
                with pytest.raises(EngineNotReleasable):
                    roll_back_engine(lake, log, None, "worse", lambda _: None)

        @rule(tenant=st.sampled_from(TENANTS), number=st.integers(1, 3), kill=kills)
        def promote_adapter(self, tenant: str, number: int, kill: str | None) -> None:
            name = generator_name(tenant)
            way = self.way("adapter", name)
            version = place.registry.find(f"{name}@{number}")
            record = AdapterRecord(version=number).model_dump_json()
            decision = Decision("adapter", name, "promoted", version.digest, "better", "ada", record)
            self.attempt(
                kill, lambda: log.move(decision, way[-1] or None), lambda: way.append(version.digest)
            )

        @rule(tenant=st.sampled_from(TENANTS), kill=kills)
        def roll_back_adapter(self, tenant: str, kill: str | None) -> None:
            name = generator_name(tenant)
            way = self.way("adapter", name)
            if way[-1]:
                back = log.way_back("adapter", name)
                decision = Decision("adapter", name, "rolled_back", None, "worse", "ada")
                to = back[0] if back else None
                self.attempt(kill, lambda: log.move_back(decision, to, way[-1]), way.pop)

        @rule(tenant=st.sampled_from(TENANTS), kill=kills)
        def remove_tenant(self, tenant: str, kill: str | None) -> None:
            name = generator_name(tenant)
            way = self.way("adapter", name)
            if way[-1]:

                def moved() -> None:
                    way[:] = [""]

                self.attempt(kill, lambda: _take_adapters_down(place.settings, index, tenant, print), moved)

        @rule(kind=st.sampled_from(["index", "engine"]))
        def move_beside_what_is_no_longer_live(self, kind: Kind) -> None:
            STEPS["taken"] += 1
            stale = Decision(kind, "", "promoted", "other", "", "ada")
            with pytest.raises((ReleaseConflict, ReleaseHeld)):
                log.move(stale, "what was live long ago")

        @rule()
        def restart(self) -> None:
            STEPS["taken"] += 1
            assert check_models(place.settings, True, lambda line: None) == []
            self.behind = False

        @invariant()
        def the_log_says_what_is_live_and_what_a_rollback_leads_to(self) -> None:
            for (kind, subject), way in self.ways.items():
                live = log.live(kind, subject)
                assert ((live and live.digest) or "") == way[-1]
                back = [each.digest for each in log.way_back(kind, subject) if each.digest]
                assert back == [each for each in reversed(way[:-1]) if each]
            released = index.live()
            assert (released.release_id if released else "") == self.way("index")[-1]
            hold = index.live_hold()
            assert (hold and hold.held_by) == self.held_by

        @invariant()
        def adapters_answer_by_the_log_also_where_nothing_followed(self) -> None:
            live = LiveAdapters(place.registry, log)
            for tenant in TENANTS:
                choice = live.of(tenant)
                digest = choice.adapter.digest if choice and choice.adapter else ""
                assert digest == self.way("adapter", generator_name(tenant))[-1]

        @invariant()
        def tables_aliases_and_mlflow_follow(self) -> None:
            if self.behind:
                return
            assert stored(RELEASES.name) == log.decisions("index")
            live = log.live("engine")
            answering = next((each for each in stored_engine_releases(lake) if each.answers), None)
            assert (answering and answering.generator_digest) == (live and live.digest)
            said = live_versions(place.registry, index)
            released = self.way("index")[-1]
            assert said["embedder"].live == (self.embedders[released] if released else None)
            for name, each in said.items():
                aliases = place.registry.aliases(name)
                assert (aliases.live, aliases.previous) == (each.live, each.previous)

        def teardown(self) -> None:
            index.end_hold()
            self.restart()
            for name in place.registry.names():
                found = registered_in_mlflow(name, place.settings.training_place.mlflow_uri)
                live = place.registry.aliases(name).live
                digest = place.registry.find(f"{name}@{live}").digest if live else None
                assert found is None or found.aliases.get("live") == digest

    def stored(table: str) -> list[Decision]:
        rows = lake.delta(table).to_pyarrow_table().sort_by("move_id")
        logged = {each.move_id: each for each in log.decisions("index")}
        return [
            logged[row["move_id"]]
            for row in rows.to_pylist()
            if (row["decision"], row["release_id"], row["decided_at"])
            == tuple(getattr(logged[row["move_id"]], each) for each in ("decision", "digest", "at"))
        ]

    return Releases


def test_promote_hold_roll_back_remove_and_kill_in_any_order(place: Place) -> None:
    run_state_machine_as_test(
        machine(place),
        settings=settings(
            max_examples=10,
            stateful_step_count=30,
            phases=[Phase.generate],
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert STEPS["taken"] > 200


def test_what_was_decided_before_there_was_a_log_is_adopted(tmp_path: Path) -> None:
    """As a state folder of version 13 has it: rows without `move_id`, and aliases that were the truth."""
    home = tmp_path / "state"
    config = Settings(home=home)
    lake, registry = open_configured_lake(config), config.training_place.registry
    base = save_tiny_generator(tmp_path / "generator")
    versions = [
        register_random_adapter(registry, base, "ab" * 32, "acme", seed, dataset="/mine.jsonl")
        for seed in (1, 2)
    ]
    aliases = registry.folder / "registry" / "generator-acme" / "aliases.json"
    aliases.write_text('{"live": 2, "previous": 1, "candidate": null}')
    rows = [
        {"engine": engine, "generator_digest": f"{engine} digest", "decision": decision, "reason": "measured"}
        | {"config": EngineConfig().model_dump_json(), "metrics": "{}", "gains": "{}"}
        | {"decided_at": datetime(2026, 1, day, tzinfo=UTC)}
        for day, (engine, decision) in enumerate(
            [("extractive", "released"), ("openai:a", "held"), ("openai:b", "promoted")], 1
        )
    ]
    old = pa.Table.from_pylist(rows, ENGINE_RELEASES.schema)
    lake.append(ENGINE_RELEASES, old, NO_LINEAGE)
    (home / "state.json").write_text('{"version": 13}\n')
    open_configured_lake(config)
    postgres = Postgres(home, config.postgres)
    try:
        log = ReleaseLog(postgres)
        assert [each.decision for each in engine_releases(log)] == ["promoted", "held", "released"]
        assert [each.digest for each in log.way_back("engine")] == ["extractive digest"]
        live = log.live("adapter", "generator-acme")
        assert live is not None
        assert live.digest == versions[1].digest
        assert [each.digest for each in log.way_back("adapter", "generator-acme")] == [versions[0].digest]
        (home / "state.json").write_text('{"version": 13}\n')  # killed before it was written
        open_configured_lake(config)
        assert len(log.decisions()) == 5
        assert roll_back_engine(lake, log, None, "worse", lambda _: None).engine == "extractive"
    finally:
        postgres.remove()
