"""A live model that learned from a removed document stays, or steps down with an index of what is left."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_model_releases import LINEAGE
from tiny_embedders import make_tiny_embedder

from assets.lake.ids import doc_id
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from orchestration.operations.ingest import ingest_and_release, summarize_run
from orchestration.operations.runs import execute_run
from orchestration.settings import Settings
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres
from training.registry.model_card import model_card
from training.registry.versions import ModelAliases, ModelRegistry

NAMES = ["tides", "bread", "copper", "kites", "moss", "wool", "glass", "salt"]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A state folder that is served by a version which learned from the document about tides."""
    # A model of random weights, and another set of questions after each document that goes.
    monkeypatch.setenv("HEADWATER_RECIPE__GATE__TOLERANCE", "1")
    monkeypatch.setenv("HEADWATER_RECIPE__GATE__FLOOR_NDCG", "0")
    home, corpus = tmp_path / "state", tmp_path / "notes"
    corpus.mkdir()
    for name in NAMES:
        (corpus / f"{name}.md").write_text(f"# On {name}\n\nAll that is known about {name} stands here.\n")
    registry = ModelRegistry(home / "models")
    made = make_tiny_embedder(tmp_path / "base")
    learned = [doc_id("default", "notes", (corpus / "tides.md").as_uri())]
    registry.add("embedder", LINEAGE, {}, 1.0, lambda folder: copy_into(made, folder), model_card, learned)
    registry.set_aliases("embedder", ModelAliases(live=1))
    settings = Settings(home=home)
    SourceRegistry(settings.sources_file).add(Source(name="notes", location=str(corpus)))
    ingest_and_release(settings, print)
    yield settings
    Postgres(settings.home, settings.postgres).remove()


def copy_into(made: Path, folder: Path) -> None:
    shutil.copytree(made, folder, dirs_exist_ok=True)


def live_digest(settings: Settings) -> str:
    live = Index(Postgres(settings.home, settings.postgres)).live()
    assert live is not None
    return live.details.model_digest


def test_by_default_it_stays_live_and_the_run_says_so_and_else_the_packaged_one_takes_over(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = ModelRegistry(settings.models_folder).find("embedder@1")
    assert live_digest(settings) == version.digest
    (tmp_path / "notes" / "tides.md").unlink()
    outcome = execute_run(settings, None, print)
    assert outcome.failures == []
    assert live_digest(settings) == version.digest
    said = summarize_run(settings, outcome).models
    assert list(said) == ["embedder@1 (live) learned from 1 removed document"]

    monkeypatch.setenv("HEADWATER_LIVE_MODEL_WITH_REMOVED_DOCUMENTS", "steps_down")
    strict = Settings(home=settings.home)
    (tmp_path / "notes" / "bread.md").unlink()
    assert execute_run(strict, None, print).failures == []
    assert live_digest(strict) != version.digest
    index = Index(Postgres(strict.home, strict.postgres))
    live = index.live()
    assert live is not None
    rows = index.rows_at(live)
    assert set(rows["uri"].to_pylist()) == {
        (tmp_path / "notes" / f"{name}.md").as_uri() for name in NAMES[2:]
    }
