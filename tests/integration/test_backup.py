"""A state folder in one file and back; an older folder is brought up to date, a newer one left alone."""

import json
import shutil
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from live_models import show_live
from psycopg.types.json import Jsonb
from pyspark.sql import SparkSession
from tiny_embedders import make_tiny_embedder

from assets import silver
from assets.answers.batches import AnswerBatches
from assets.dedup.minhash import MinHashConfig
from assets.recipe import Recipe
from inference.answering.release_models import ReleaseModels
from orchestration.migrations import STATE_VERSION, NewerStateFolder, migrate_state_folder
from orchestration.operations.ask import open_ask_service
from orchestration.operations.backup import BACKUP_KEY_FILE, BackupError, restore_backup, write_backup
from orchestration.operations.ingest import ingest_and_release
from orchestration.settings import Settings, open_configured_lake
from orchestration.tracing.tracer import Tracer
from orchestration.tracing.verify import TraceVerifier
from orchestration.training.models import model_registry
from quality.expectations import expect_row_count
from quality.user_suites import UserSuite, UserSuites
from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.store.postgres import Postgres, fetch_postgres_value
from training.datasets.requests import DatasetRequests
from training.jobs.checkpoints import Standing
from training.jobs.outcomes import JobOutcome, training_curves, write_job_outcome
from training.registry.lineage import ModelLineage
from training.registry.live import follow_release_log
from training.registry.model_card import model_card
from training.registry.versions import ModelAliases, ModelRegistry, ModelVersion

STATE_0 = Path(__file__).parent / "state-0.tar.gz"
"""The tables and sources that the first release's code made of `DOCS_0`."""
DOCS_0 = Path("/tmp/headwater-state-0/docs")


def sequence(settings: Settings) -> int:
    with Postgres(settings.home, settings.postgres).owner() as connection:
        return int(
            fetch_postgres_value(connection, "SELECT last_value FROM headwater.index_state_generation_seq")
        )


def stop(settings: Settings) -> None:
    Postgres(settings.home, settings.postgres).stop()


@pytest.fixture(scope="module")
def settings(spark: SparkSession, module_folder: Path) -> Settings:
    """A state folder brought from the first version to this one, with a release."""
    DOCS_0.mkdir(parents=True, exist_ok=True)
    with tarfile.open(STATE_0) as archive:
        archive.extractall(DOCS_0.parent, filter="data", members=[
            member for member in archive if member.name.startswith("docs/")
        ])  # fmt: skip
        home = module_folder / "home"
        archive.extractall(home, filter="data", members=[
            member for member in archive if not member.name.startswith("docs/")
        ])  # fmt: skip
    made = Settings(home=home)
    before = {n: open_configured_lake(made).version(n) for n in ("bronze.raw_documents", "silver.documents")}
    (DOCS_0 / "tides.md").write_text("# Tides\n\nThe moon pulls the oceans into two great bulges of water.\n")
    built = ingest_and_release(made, print)
    assert built.funnel["raw"] == 4
    # The index is not in the archive: it is made again, under a name that no decision was ever made about.
    assert built.release == "r2.1"
    # What the first code read and parsed was gone on from, not made again.
    lake = open_configured_lake(made)
    assert lake.version("bronze.raw_documents") == before["bronze.raw_documents"] + 1
    assert lake.version("silver.documents") == before["silver.documents"] + 1
    return made


def test_an_older_state_folder_is_gone_on_from(settings: Settings) -> None:
    assert json.loads((settings.home / "state.json").read_text()) == {"version": STATE_VERSION}
    service = open_ask_service(settings)
    assert "tides" in service.search("what pulls the oceans", 1, "hybrid", "default")[0].uri
    assert "bees" in service.search("waggle dance of the workers", 1, "hybrid", "default")[0].uri


def test_what_an_older_code_signed_is_compared_anew(tmp_path: Path) -> None:
    """The version of the documents that the signatures were made from has not the columns added since."""
    with tarfile.open(STATE_0) as archive:
        archive.extractall(tmp_path, filter="data")
    lake = open_configured_lake(Settings(home=tmp_path))
    given = {"lake": lake, "recipe": Recipe(minhash=MinHashConfig(jaccard_threshold=0.75))}
    assert dg.materialize([silver.duplicates_asset], resources=given).success


def test_a_newer_state_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps({"version": STATE_VERSION + 1}))
    with pytest.raises(NewerStateFolder, match="update Headwater"):
        open_configured_lake(Settings(home=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json"]
    lake = open_configured_lake(Settings(home=tmp_path / "new"))
    migrate_state_folder(tmp_path / "new", lake)


def test_what_was_backed_up_is_there_again(settings: Settings, module_folder: Path) -> None:
    file = module_folder / "backup.tar"
    service = open_ask_service(settings)
    answer = service.ask("What pulls the oceans?", "default")
    rows = replace(expect_row_count(), name="rules__rows")
    suite = UserSuite(name="rules", table="silver.documents", expectations=(rows,))
    UserSuites(settings.user_suites_folder).add(suite)
    questions = settings.home / "questions.jsonl"
    questions.write_text('{"id": "q1", "question": "Where?"}\n')
    AnswerBatches(settings.batches_dir).add("march", questions)
    own = module_folder / "own.jsonl"
    own.write_text('{"question": "Where?", "answer": "There."}')
    DatasetRequests(settings.datasets_folder).add("set", "default", own)
    snapshot = settings.datasets_folder / "set" / "0123456789abcdef" / "train.parquet"
    snapshot.parent.mkdir()
    snapshot.write_bytes(b"examples")
    identity = settings.home / "models" / "endpoints" / "0123456789abcdef.json"
    identity.parent.mkdir(parents=True, exist_ok=True)
    identity.write_text('{"model": "small"}')
    made = write_backup(settings, file, print)
    assert made.release == service.live_release().release_id
    with pytest.raises(BackupError, match="already"):
        write_backup(settings, file, print)
    again = Settings(home=module_folder / "restored")
    with pytest.raises(BackupError, match="the key that signed it"):
        restore_backup(again, file, print)
    found = restore_backup(again, file, print, settings.home / BACKUP_KEY_FILE)
    assert UserSuites(again.user_suites_folder).list() == [suite]
    assert [each.id for each in AnswerBatches(again.batches_dir).questions("march").questions] == ["q1"]
    assert (again.home / identity.relative_to(settings.home)).read_text() == identity.read_text()
    assert DatasetRequests(again.datasets_folder).examples()["question"].to_pylist() == ["Where?"]
    assert (again.home / snapshot.relative_to(settings.home)).read_bytes() == b"examples"
    DatasetRequests(again.datasets_folder).remove("set")  # three documents are no training set
    assert found.chunks == service.index.rows_at(service.live_release()).num_rows
    other = open_ask_service(again)
    assert other.live_release() == service.live_release()
    assert other.index.rows_at(other.live_release()).equals(service.index.rows_at(service.live_release()))
    traced = Tracer(
        open_configured_lake(again), other.index.document_rows, TraceVerifier(settings.recipe.parser)
    ).trace(answer.answer_id)
    assert traced.verified
    with pytest.raises(BackupError, match="not empty"):
        restore_backup(again, file, print)
    # The next generation is a new number, and the next backup has the same key.
    assert sequence(again) == sequence(settings)
    assert (again.home / BACKUP_KEY_FILE).read_text() == (settings.home / BACKUP_KEY_FILE).read_text()
    # The next run goes on from there: nothing is new.
    assert ingest_and_release(again, print).release == made.release
    stop(again)


def test_trained_models_are_there_again_and_the_next_is_signed_by_the_same_key(
    settings: Settings, module_folder: Path
) -> None:
    registry, index = model_registry(settings), Index(Postgres(settings.home, settings.postgres))
    lineage = ModelLineage(
        dataset="set",
        dataset_digest="",
        base="tiny",
        base_digest="",
        code_version="1",
        run_id="1",
        settings={},
    )

    def trained(registry: ModelRegistry, seed: int) -> ModelVersion:
        base = make_tiny_embedder(module_folder / f"base{seed}-{registry.folder.parent.name}", seed)

        def write(folder: Path) -> None:
            shutil.copytree(base, folder, dirs_exist_ok=True)

        return registry.add("embedder", lineage, {}, 1.0, write, model_card)

    version, before = trained(registry, 0), index.live()
    assert before is not None
    embedder = EmbedderConfig(model=registry.path(version))
    details = before.details.model_copy(update={"model_digest": version.digest, "embedder": embedder})
    with Postgres(settings.home, settings.postgres).owner() as connection:
        connection.execute(
            "UPDATE headwater.releases SET details = %s WHERE release_id = %s",
            (Jsonb(details.model_dump(mode="json")), before.release_id),
        )
    show_live(registry, "embedder", None)
    writing = registry.folder / "registry" / "embedder" / ".writing-1" / "model" / "headwater.json"
    writing.parent.mkdir(parents=True)
    writing.write_text("half")
    job = settings.training_place.jobs / "embedder-1"
    standing = Standing(micro_batch=8, step=2, steps=[1, 2], losses=[3.0, 2.5], scores=[0.4, 0.5])
    job.mkdir(parents=True)
    write_job_outcome(
        job, JobOutcome(address=version.address, standing=standing, ended="all steps were made")
    )
    (job / "checkpoint.safetensors").write_bytes(b"large")
    write_backup(settings, module_folder / "models.tar", print)
    again = Settings(home=module_folder / "elsewhere")
    restore_backup(again, module_folder / "models.tar", print, settings.home / BACKUP_KEY_FILE)
    away = settings.models_folder.rename(module_folder / "away")
    try:
        restored, live = model_registry(again), Index(Postgres(again.home, again.postgres)).live()
        assert live is not None
        assert restored.versions("embedder") == [version]
        assert not (again.home / writing.relative_to(settings.home)).exists()
        jobs = again.training_place.jobs
        assert training_curves(jobs)["embedder-1"]["loss"] == [(1, 3.0), (2, 2.5)]
        assert [path.name for path in (jobs / "embedder-1").iterdir()] == ["outcome.json"]
        assert restored.aliases("embedder") == ModelAliases(candidate=1)
        assert restored.open(version).is_relative_to(again.home)
        # The release names the folder where it lay: its model is found where it lies.
        packaged = EmbeddingModel.of(EmbedderConfig(), again.home)
        found = ReleaseModels(packaged, again.home).model_of(live)
        assert found.digest == version.digest
        assert found.config.model == restored.path(version)
        assert follow_release_log(restored, Index(Postgres(again.home, again.postgres)))
        assert restored.aliases("embedder") == ModelAliases(live=1)
        assert restored.open(trained(restored, 1)).parent.name == "2"
        keys = [(folder / "signing-key.pem") for folder in (away, again.models_folder)]
        assert keys[0].read_bytes() == keys[1].read_bytes()
        assert stat.S_IMODE(keys[1].stat().st_mode) == 0o600
    finally:
        away.rename(settings.models_folder)
        stop(again)


def test_a_damaged_backup_makes_nothing(settings: Settings, module_folder: Path) -> None:
    file, home = module_folder / "damaged.tar", module_folder / "nothing"
    key = settings.home / BACKUP_KEY_FILE
    write_backup(settings, file, print)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BackupError, match="not a whole backup"):
        restore_backup(Settings(home=home), file, print, key)
    name = next(p for p in (settings.home / "lake").rglob("*.parquet") if "_change_data" not in p.parts)
    body = name.read_bytes()
    assert whole.count(body) >= 1
    file.write_bytes(whole.replace(body, body[:-8] + b"\0\0\0\0PAR1"))
    with pytest.raises(BackupError, match="SHA-256"):
        restore_backup(Settings(home=home), file, print, key)
    assert not home.exists()
    assert not home.with_name("nothing.restoring").exists()
    with pytest.raises(BackupError, match="no file"):
        restore_backup(Settings(home=home), module_folder / "missing.tar", print)
    shutil.rmtree(DOCS_0.parent, ignore_errors=True)
    stop(settings)
