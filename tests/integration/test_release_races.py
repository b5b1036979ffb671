"""What goes live and what is pruned at the same time, and what a process that died left behind it."""

import contextlib
import shutil
import threading
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
from index_rows import DIMENSION, NO_DETAILS, NO_LINEAGE, Chunk, batch, emptied, made_with
from random_adapters import register_random_adapter
from test_model_releases import LINEAGE
from tiny_embedders import make_tiny_embedder
from tiny_generator import save_tiny_generator

from inference.engines.digest import model_files_digest
from inference.engines.generator import EngineConfig
from orchestration.settings import Settings
from orchestration.training.generators import promote_adapter
from orchestration.training.models import ModelNotPromoted
from retrieval.embedding.config import EmbedderConfig
from retrieval.index.index import Index
from retrieval.index.releases import read_index_releases
from retrieval.index.types import UnknownIndexRelease
from retrieval.store.postgres import Postgres
from training.registry.live import follow_release_log
from training.registry.model_card import model_card
from training.registry.versions import ModelDecision, ModelRegistry


@pytest.fixture
def index(postgres: Postgres) -> Index:
    index = emptied(postgres)
    state = index.build("m", "c", DIMENSION, [batch([Chunk("a", "one")])], NO_LINEAGE)
    changed = index.apply(state, [batch([Chunk("b", "two")])], [], NO_LINEAGE)
    index.release("r1", state, None, NO_DETAILS)
    index.release("r2", changed, "r1", NO_DETAILS)
    return index


def test_what_is_pruned_while_it_is_promoted_is_not_live(index: Index) -> None:
    pruned = threading.Thread(target=index.prune, args=([],))

    def read(*given: Any) -> Any:
        found = read_index_releases(*given)
        pruned.start()
        pruned.join(0.5)  # waits where the promotion has locked the log
        return found

    reading = patch("retrieval.index.index.read_index_releases", read)
    with reading, contextlib.suppress(UnknownIndexRelease):
        index.promote("r1", "r2", "better", "ada")
    pruned.join()
    live = index.live()
    assert live is not None
    assert live.release_id in {each.release_id for each in index.releases()}


def test_what_is_live_is_read_also_where_it_is_replaced_and_pruned_meanwhile(index: Index) -> None:
    asked = list[str]()
    execute = psycopg.Connection.execute

    def replaced() -> None:
        index.rollback("r1")
        index.prune([])

    def then(self: Any, query: Any, *given: Any, **named: Any) -> Any:
        found = execute(self, query, *given, **named)
        if threading.current_thread() is threading.main_thread() and "headwater.release" in str(query):
            asked.append(str(query))
            other = threading.Thread(target=replaced)
            other.start()
            other.join()
        return found

    with patch("psycopg.Connection.execute", then):
        live = index.live()
    assert live is not None
    assert len(asked) == 1  # it is asked for each question


def test_an_adapter_is_promoted_beside_what_the_log_says_is_live_where_aliases_lag(tmp_path: Path) -> None:
    model = save_tiny_generator(tmp_path / "generator")
    settings = Settings(home=tmp_path / "state", generator=EngineConfig(model=model))
    registry, base = ModelRegistry(settings.models_folder), model_files_digest(model)
    for seed in (1, 2):
        version = register_random_adapter(registry, model, base, "acme", seed)
        approved = ModelDecision(
            version=version.version,
            decision="approved",
            reason="better than the base",
            against=base,
            questions=8,
            questions_digest="0123456789abcdef",
            decided_at=datetime.now(UTC),
        )
        registry.log_decision(version.name, approved)
    try:
        died = patch("orchestration.training.generators.follow_release_log", side_effect=KeyboardInterrupt)
        with died, pytest.raises(KeyboardInterrupt):
            promote_adapter(settings, "generator-acme@1", "first", lambda line: None)
        with pytest.raises(ModelNotPromoted, match="not compared with generator-acme@1, which answers"):
            promote_adapter(settings, "generator-acme@2", "second", lambda line: None)
    finally:
        Postgres(settings.home, settings.postgres).remove()


def test_a_version_that_was_live_is_no_candidate_where_its_release_is_no_longer_kept(
    index: Index, tmp_path: Path
) -> None:
    registry = ModelRegistry(tmp_path / "models")
    for seed in (0, 1):
        made = make_tiny_embedder(tmp_path / "base", seed)
        write = partial(shutil.copytree, made, dirs_exist_ok=True)
        registry.add("embedder", LINEAGE, {}, 1.0, write, model_card)
    state = index.newest_state()
    assert state is not None
    releases = dict[int, str]()
    for version in reversed(registry.versions("embedder")):
        state = index.apply(state, [batch([Chunk("c", f"text {version.version}")])], [], NO_LINEAGE)
        releases[version.version] = f"r1.{state.epoch}"
        embedder = EmbedderConfig(model=registry.path(version))
        details = made_with(version.digest).model_copy(update={"embedder": embedder})
        live = index.live()
        index.release(releases[version.version], state, live.release_id if live else None, details)
    index.rollback(releases[1])
    follow_release_log(registry, index)
    said, moves = registry.aliases("embedder"), registry.decisions("embedder")
    assert (said.live, said.candidate) == (1, None)
    index.prune([])
    assert releases[2] not in {each.release_id for each in index.releases()}
    follow_release_log(registry, index)
    assert registry.aliases("embedder") == said
    assert registry.decisions("embedder") == moves
