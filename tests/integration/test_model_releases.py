import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from index_rows import NO_LINEAGE, Chunk, batch, made_with
from tiny_embedders import make_tiny_embedder
from typer.testing import CliRunner

from assets.lake.tables import RELEASES
from orchestration.cli.main import app
from orchestration.settings import Settings, open_configured_lake
from orchestration.training import models
from orchestration.training.models import (
    ModelNotPromoted,
    ServedModel,
    model_registry,
    promote_model,
    roll_back_model,
)
from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.embedding.model_signature import ModelNotTrusted
from retrieval.index.index import Index
from retrieval.index.release_log import ReleaseConflict, ReleaseHeld
from retrieval.index.types import IndexRelease
from retrieval.store.postgres import Postgres
from training.registry.lineage import ModelLineage
from training.registry.live import follow_release_log
from training.registry.model_card import model_card
from training.registry.versions import ModelAliases, ModelDecision, ModelRegistry, UnknownModel

LINEAGE = ModelLineage(
    dataset="rivers@1234",
    dataset_digest="ab" * 32,
    base="all-MiniLM-L6-v2",
    base_digest="cd" * 32,
    code_version="1",
    run_id="embedder-1",
    settings={},
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A state folder with releases of the packaged embedder, which is live, and of two trained ones."""
    home = tmp_path_factory.mktemp("models") / "state"
    registry = ModelRegistry(home / "models")
    for seed in (0, 1):
        base = make_tiny_embedder(tmp_path_factory.mktemp("base"), seed)
        registry.add(
            "embedder",
            LINEAGE,
            {},
            1.0,
            lambda folder, base=base: shutil.copytree(base, folder, dirs_exist_ok=True) and None,  # type: ignore[misc]
            model_card,
        )
    made = Settings(home=home)
    index = Index(Postgres(made.home, made.postgres))
    live = None
    embedders = [(packaged_digest(made), EmbedderConfig())]
    embedders += [
        (each.digest, EmbedderConfig(model=registry.path(each))) for each in registry.versions("embedder")
    ]
    for number, (digest, embedder) in enumerate(embedders):
        state = index.build(digest, "chunker", 8, [batch([Chunk("danube", "The Danube")])], NO_LINEAGE)
        versions = {"silver.documents": 0, "gold.embeddings": number}
        details = made_with(digest).model_copy(update={"embedder": embedder, "versions": versions})
        live = index.release(f"r{number}", state, live, details).release_id
    index.rollback("r0")
    yield made
    Postgres(made.home, made.postgres).stop()


def packaged_digest(settings: Settings) -> str:
    return EmbeddingModel.of(EmbedderConfig(), settings.home).digest


def decide(settings: Settings, version: int, decision: str, against: str | None = None) -> None:
    model_registry(settings).log_decision(
        "embedder",
        ModelDecision.model_validate(
            {
                "version": version,
                "decision": decision,
                "reason": "as measured",
                "against": against or packaged_digest(settings),
                "gains": {"vector ndcg@10": {"difference": 0.1, "low": 0.0, "high": 0.2, "questions": 300}},
                "questions_digest": decision,
                "questions_needed": 208 if decision == "undecided" else None,
                "decided_at": datetime.now(UTC),
            }
        ),
    )


def live_release(settings: Settings) -> IndexRelease:
    live = Index(Postgres(settings.home, settings.postgres)).live()
    assert live is not None
    return live


def test_a_version_goes_live_with_its_index_after_it_was_approved_and_back(settings: Settings) -> None:
    registry, said = model_registry(settings), list[str]()
    with pytest.raises(ModelNotPromoted, match="embedder@1 was not compared with the live model"):
        promote_model(settings, "embedder@1", "better", said.append)
    decide(settings, 1, "approved", against="another model")
    with pytest.raises(ModelNotPromoted, match="was not compared"):
        promote_model(settings, "embedder@1", "better", said.append)
    decide(settings, 1, "undecided")
    with pytest.raises(ModelNotPromoted, match=r"embedder@1 is as measured: .*--because"):
        promote_model(settings, "embedder@1", "better", said.append)
    decide(settings, 1, "approved")
    with pytest.raises(ModelNotPromoted, match="the reason is empty"):
        promote_model(settings, "embedder@1", " ", said.append)
    assert live_release(settings).release_id == "r0"

    served = promote_model(settings, "embedder@1", "better on rivers", said.append)
    assert (served.version, served.release) == (1, "r2")
    assert live_release(settings).details.model_digest == registry.find("embedder@1").digest
    assert registry.aliases("embedder") == ModelAliases(live=1)
    assert Settings(home=settings.home).recipe.embedder.model == registry.path(registry.find("embedder@live"))
    again = promote_model(settings, "embedder@1", "again", said.append)
    assert again.reason == "it is live already"

    back = roll_back_model(settings, "embedder", "worse on names", said.append)
    assert (back.version, back.release) == (None, "r0")
    assert registry.aliases("embedder") == ModelAliases()
    assert not Settings(home=settings.home).recipe.embedder.model.is_relative_to(settings.home)
    rows = open_configured_lake(settings).query(
        "select release_id, reason from releases order by decided_at desc limit 2",
        releases=open_configured_lake(settings).delta(RELEASES.name),
    )
    assert "rolled back from r2: embedder: worse on names" in rows["reason"].to_pylist()
    decided = [(each.decision, each.reason) for each in registry.decisions("embedder")][-2:]
    assert decided == [
        ("promoted", "embedder@1 promoted: better on rivers"),
        ("rolled_back", "rolled back from r2: embedder: worse on names"),
    ]
    with pytest.raises(UnknownModel, match="there is no model 'ranker'; there are embedder"):
        roll_back_model(settings, "ranker", "?", said.append)


def test_a_second_rollback_goes_on_back_and_a_promotion_after_it_is_like_any(settings: Settings) -> None:
    index, registry = Index(Postgres(settings.home, settings.postgres)), model_registry(settings)
    moves = list[ServedModel]()
    index.rollback("r0")
    first, second = (registry.find(f"embedder@{number}").digest for number in (1, 2))
    for version, against in ((1, packaged_digest(settings)), (2, first), (1, second)):
        decide(settings, version, "approved", against)

    def promote(number: int) -> None:
        moves.append(promote_model(settings, f"embedder@{number}", "better", lambda line: None))
        assert (moves[-1].version, registry.aliases("embedder").live) == (number, number)

    def back() -> tuple[int | None, str]:
        moves.append(roll_back_model(settings, "embedder", "worse", lambda line: None))
        assert registry.aliases("embedder").live == moves[-1].version
        return moves[-1].version, moves[-1].release

    promote(1)
    promote(2)
    assert registry.aliases("embedder") == ModelAliases(live=2, previous=1)
    assert back() == (1, "r2")
    assert registry.aliases("embedder") == ModelAliases(live=1), "it would go back to the packaged one"
    assert back() == (None, "r0"), "and not to the one that was gone back from"
    kept = "r2 of embedder@1, r1 of embedder@2, r0 of all-MiniLM-L6-v2"
    with pytest.raises(ModelNotPromoted, match=f"kept from before r0: .* kept are {kept}, which .*promote"):
        back()
    promote(1)
    promote(2)
    promote(1)  # by a release that was live before, and still forward
    assert registry.aliases("embedder") == ModelAliases(live=1, previous=2)
    assert [back(), back(), back()] == [(2, "r1"), (1, "r2"), (None, "r0")]
    assert min(each.pointer_seconds for each in moves) < 1, "pointer and record, on a busy machine"


def test_of_two_promotions_at_once_one_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(Postgres(settings.home, settings.postgres))
    index.rollback("r0")
    decide(settings, 1, "approved")
    decide(settings, 2, "approved")
    checked = models._approved_reason

    def slower(*given: Any) -> str:
        reason = checked(*given)
        monkeypatch.setattr(models, "_approved_reason", checked)
        promote_model(settings, "embedder@2", "it was faster", lambda line: None)
        return reason

    monkeypatch.setattr(models, "_approved_reason", slower)
    with pytest.raises(ReleaseConflict, match="'r1' is live, not 'r0'"):
        promote_model(settings, "embedder@1", "it was slower", lambda line: None)
    assert live_release(settings).release_id == "r1"
    assert model_registry(settings).aliases("embedder").live == 2
    assert all(each.reason != "it was slower" for each in model_registry(settings).decisions("embedder"))


def test_aliases_follow_a_plain_rollback_and_a_hold_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(settings.home))
    index, registry = Index(Postgres(settings.home, settings.postgres)), model_registry(settings)
    index.rollback("r0")
    index.rollback("r2")
    follow_release_log(registry, index)
    assert registry.aliases("embedder").live == 1
    assert not follow_release_log(registry, index)
    ran = CliRunner().invoke(app, ["rollback", "r1", "--reason", "worse on names"], catch_exceptions=False)
    assert ran.exit_code == 0
    assert registry.aliases("embedder") == ModelAliases(live=2, previous=1)
    # What no setting names is what is served: the next run builds the index with it.
    assert Settings().recipe.embedder.model == registry.path(registry.find("embedder@2"))
    try:
        told = CliRunner().invoke(
            app, ["models", "promote", "embedder@2", "--reason", "again"], catch_exceptions=False
        )
        assert "live: embedder@2, with release r1" in told.stdout
        assert re.search(r"it is live already, and r1 is held by \w+ since .*: worse on names", told.stdout)
        decide(settings, 1, "approved", registry.find("embedder@2").digest)
        with pytest.raises(ReleaseHeld, match=r"embedder@1 can not go live: r1 is held by .*hold --off"):
            promote_model(settings, "embedder@1", "better", lambda line: None)
        with pytest.raises(ReleaseHeld, match=r"r1 is held by .*hold --off"):
            roll_back_model(settings, "embedder", "worse", lambda line: None)
        assert (live_release(settings).release_id, registry.aliases("embedder").live) == ("r1", 2)
    finally:
        index.end_hold()


def test_a_model_whose_files_were_changed_is_not_promoted_nor_gone_back_to(settings: Settings) -> None:
    registry, before = model_registry(settings), live_release(settings).release_id
    assert registry.aliases("embedder") == ModelAliases(live=2, previous=1)
    path = registry.path(registry.find("embedder@1"))
    (path / "README.md").write_text("changed")
    with pytest.raises(ModelNotTrusted, match="is not what was signed"):
        promote_model(settings, "embedder@1", "better", lambda line: None)
    with pytest.raises(ModelNotTrusted, match="is not what was signed"):
        roll_back_model(settings, "embedder", "worse", lambda line: None)
    shutil.rmtree(path)
    with pytest.raises(UnknownModel, match=r"release r2 is of embedder@1, and .* is gone: restore it"):
        roll_back_model(settings, "embedder", "worse", lambda line: None)
    assert live_release(settings).release_id == before
    assert registry.aliases("embedder").live == 2
