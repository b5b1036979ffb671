"""A live model that learned from a removed document stays or steps down, and another one is promoted."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from live_models import make_adapter_live, show_live
from random_adapters import register_random_adapter
from test_model_releases import LINEAGE
from tiny_embedders import make_tiny_embedder
from tiny_generator import save_tiny_generator

from assets.lake.tables import DOCUMENTS
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from common.ids import doc_id
from inference.engines.digest import model_files_digest
from orchestration.operations.ingest import ingest_and_release, summarize_run
from orchestration.operations.runs import execute_run
from orchestration.settings import Settings, open_configured_lake
from orchestration.stepping_down import step_down_adapters
from orchestration.training.models import ModelNotPromoted, promote_model, roll_back_model
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres
from training.registry.learned_texts import LearnedTexts
from training.registry.model_card import model_card
from training.registry.versions import ModelAliases, ModelDecision, ModelRegistry

NAMES = ["tides", "bread", "copper", "kites", "moss", "wool", "glass", "salt"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A state folder whose embedder and whose tenant's adapter learned from the document about tides."""
    # A model of random weights, and another set of questions after each document that goes.
    monkeypatch.setenv("HEADWATER_RECIPE__GATE__TOLERANCE", "1")
    monkeypatch.setenv("HEADWATER_RECIPE__GATE__FLOOR_NDCG", "0")
    home, corpus = tmp_path / "state", tmp_path / "notes"
    corpus.mkdir()
    for name in NAMES:
        (corpus / f"{name}.md").write_text(f"# On {name}\n\nAll that is known about {name} stands here.\n")
    registry = ModelRegistry(home / "models")
    made = make_tiny_embedder(tmp_path / "base")
    ids = {name: doc_id("default", "notes", (corpus / f"{name}.md").as_uri()) for name in NAMES}
    learned = [ids["tides"]]
    registry.add(
        "embedder",
        LINEAGE,
        {},
        1.0,
        lambda folder: copy_into(made, folder),
        model_card,
        LearnedTexts(learned),
    )
    show_live(registry, "embedder", 1)
    base = save_tiny_generator(tmp_path / "generator")
    for number, name in enumerate(("salt", "bread", "tides"), 1):
        digest = model_files_digest(base)
        register_random_adapter(registry, base, digest, "default", number, [ids[name]])
        make_adapter_live(Settings(home=home), "generator-default", number)
    settings = Settings(home=home)
    SourceRegistry(settings.sources_file).add(Source(name="notes", location=str(corpus)))
    ingest_and_release(settings, print)
    yield settings
    Postgres(settings.home, settings.postgres).remove()


def copy_into(made: Path, folder: Path) -> None:
    shutil.copytree(made, folder, dirs_exist_ok=True)


def log(registry: ModelRegistry, name: str, version: int, decision: str, against: str | None = None) -> None:
    """Keeps a decision about a version, as the commands do."""
    said = {"version": version, "decision": decision, "reason": "", "against": against}
    said |= {"questions_digest": "0123456789abcdef"}
    decided = ModelDecision.model_validate({**said, "decided_at": datetime.now(UTC)})
    registry.log_decision(name, decided)


def live_digest(settings: Settings) -> str:
    live = Index(Postgres(settings.home, settings.postgres)).live()
    assert live is not None
    return live.details.model_digest


def test_by_default_it_stays_live_and_the_run_says_so_and_else_the_packaged_one_takes_over(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = ModelRegistry(settings.models_folder)
    version = registry.find("embedder@1")
    assert live_digest(settings) == version.digest
    (tmp_path / "notes" / "tides.md").unlink()
    outcome = execute_run(settings, None, print)
    assert outcome.failures == []
    assert live_digest(settings) == version.digest
    said = summarize_run(settings, outcome).models
    assert list(said) == [
        f"{each} (live) learned from 1 removed document" for each in ("embedder@1", "generator-default@3")
    ]
    assert registry.aliases("generator-default").live == 3

    monkeypatch.setenv("HEADWATER_LIVE_MODEL_WITH_REMOVED_DOCUMENTS", "steps_down")
    strict = Settings(home=settings.home)
    index, lines = Index(Postgres(strict.home, strict.postgres)), list[str]()
    index.hold(None, "ada", "an audit")
    step_down_adapters(strict, lines.append)
    assert lines[0].startswith("generator-default@3 stays live, though it learned from 1 removed document: r")
    assert "is held by ada" in lines[0]
    assert registry.aliases("generator-default").live == 3
    index.end_hold()
    (tmp_path / "notes" / "bread.md").unlink()
    assert execute_run(strict, None, lines.append).failures == []
    assert live_digest(strict) != version.digest
    # First with what was removed before the run, then with what the run found removed.
    said = [line for line in lines if "steps down, since it learned from 1 removed document" in line]
    assert [line.rpartition(": ")[2] for line in said] == [
        "generator-default@2 answers",
        "generator-default@1 answers",
    ]
    assert registry.aliases("generator-default") == ModelAliases(live=1)
    decided = registry.decisions("generator-default")[-2:]
    assert [(each.version, each.decision, each.reason) for each in decided] == [
        (number, "stepped_down", "it learned from 1 removed document") for number in (3, 2)
    ]
    live = index.live()
    assert live is not None
    rows = index.rows_at(live)
    assert set(rows["uri"].to_pylist()) == {
        (tmp_path / "notes" / f"{name}.md").as_uri() for name in NAMES[2:]
    }

    # Another is promoted: its index is built, and asked, before the pointer moves.
    before = live.release_id
    made = make_tiny_embedder(tmp_path / "other", 1)
    registry.add("embedder", LINEAGE, {}, 1.0, lambda folder: copy_into(made, folder), model_card)
    log(registry, "embedder", 2, "approved", live_digest(strict))
    gate = strict.recipe.gate.model_copy(update={"floor_ndcg": 1.1})
    refusing = strict.model_copy(update={"recipe": strict.recipe.model_copy(update={"gate": gate})})
    with pytest.raises(ModelNotPromoted, match=r"embedder@2 is not served: .*below the floor of 1\.100"):
        promote_model(refusing, "embedder@2", "better", print)
    assert index.live() == live
    assert registry.aliases("embedder").live is None
    served = promote_model(strict, "embedder@2", "better", print)
    assert (served.version, live_digest(strict)) == (2, registry.find("embedder@2").digest)
    released = index.live()
    assert released is not None
    assert (released.release_id, len(index.rows_at(released))) == (served.release, len(rows))
    back = roll_back_model(strict, "embedder", "worse", print)
    assert (back.version, back.release, registry.aliases("embedder").live) == (None, before, None)
    # Without a version that learned from none, the base answers.
    gone = doc_id("default", "notes", (tmp_path / "notes" / "salt.md").as_uri())
    open_configured_lake(strict).delta(DOCUMENTS.name).delete(f"doc_id = '{gone}'")
    step_down_adapters(strict, lines.append)
    assert lines[-1].endswith(
        "generator-default@1 steps down, since it learned from 1 removed document: the base answers"
    )
    assert registry.aliases("generator-default") == ModelAliases()
