"""Answers: replayed as they were asked, committed together, and never lost."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cross_encoders import save_cross_encoder
from index_rows import made_with
from typer.testing import CliRunner

from assets.answers.journal import AnswerJournal
from assets.answers.stored import UnknownStoredAnswer, find_stored_answer, recent_stored_answers
from assets.lake.lake import Lake
from assets.lake.tables import ANSWERS
from inference.answering.release_models import MAX_OLD_MODELS, ReleaseModels
from inference.engines.extractive import ExtractiveEncoder
from inference.engines.generator import EngineConfig, build_engine
from inference.engines.protocol import Engine
from inference.engines.worker.engine import Workplace
from orchestration.cli.main import app
from orchestration.operations.ask import open_ask_service
from orchestration.operations.replay import replay_answer
from orchestration.operations.sql_process import run_sql_query
from orchestration.settings import Settings, open_configured_lake
from retrieval.embedding.config import EmbedderConfig, packaged_embedding_model
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.types import IndexRelease
from retrieval.rerank.reranker import RerankerConfig
from retrieval.search.searcher import QueryModelMismatch

QUESTION = 'Where does the "river Danube" rise -in Germany?'


@pytest.fixture(scope="module")
def settings(small_release: Settings) -> Settings:
    return small_release


def reranking(settings: Settings, folder: Path) -> Settings:
    config = RerankerConfig(model=save_cross_encoder(folder / "cross-encoder"), budget_s=60)
    return settings.model_copy(update={"reranker": config})


def test_a_question_is_replayed_as_words_and_not_as_a_query(settings: Settings) -> None:
    service = open_ask_service(settings)
    answer = service.ask(QUESTION, "acme")
    assert replay_answer(open_configured_lake(settings), service, answer.answer_id).reproduced


def test_an_answer_is_replayed_with_the_reranker_that_it_was_given_with(
    settings: Settings, tmp_path: Path
) -> None:
    plain, reranked = open_ask_service(settings), open_ask_service(reranking(settings, tmp_path))
    one, other = plain.ask(QUESTION, "acme"), reranked.ask(QUESTION, "acme")
    lake = open_configured_lake(settings)
    assert replay_answer(lake, reranked, one.answer_id).reproduced
    assert replay_answer(lake, reranked, other.answer_id).reproduced
    first = [replay_answer(lake, reranked, each.answer_id).at_release[0].score for each in (one, other)]
    assert first[0] != first[1]


def answer_ids(settings: Settings) -> list[str]:
    lake = open_configured_lake(settings)
    return [answer.answer_id for answer in recent_stored_answers(lake, 1000, None)]


def test_questions_to_one_service_make_one_commit(settings: Settings) -> None:
    before = open_configured_lake(settings).version(ANSWERS.name)
    with open_ask_service(settings) as service:
        given = [service.ask(f"Question {number}: where is the Danube?", "acme") for number in range(7)]
        assert AnswerJournal(settings.answers_dir).is_empty() is False
    lake = Lake(settings.lake_root, settings.spark, settings.home / "spark", settings.home / "docs")
    assert lake.version(ANSWERS.name) == before + 1
    assert {answer.answer_id for answer in given} <= set(answer_ids(settings))
    assert lake.commits(ANSWERS.name).__next__().lineage.inputs == {"silver.documents": 0}


def test_an_answer_is_seen_at_once_also_by_another_process(settings: Settings) -> None:
    service = open_ask_service(settings)
    answer = service.ask(QUESTION, "acme", groups=["b", "a"])
    stored = find_stored_answer(open_configured_lake(settings), answer.answer_id[:12])
    assert (stored.question, stored.groups, stored.search_mode) == (QUESTION, ["a", "b"], "hybrid")
    assert list(answer.citations) == stored.citations
    found = run_sql_query(settings, "select answer_id from gold.answers", "duckdb")
    assert answer.answer_id in found["answer_id"].to_pylist()


def test_an_answer_is_shown_by_the_beginning_of_its_id_with_its_engine(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(settings.home))
    with open_ask_service(settings) as service:
        answers = [service.ask(QUESTION, "acme") for _ in range(2)]
    shown = CliRunner().invoke(app, ["answers", "show", answers[0].answer_id[:12]], catch_exceptions=False)
    assert answers[0].answer_id in shown.stdout
    assert "engine: extractive" in shown.stdout
    assert f"generator_digest: {answers[0].generator_digest}" in shown.stdout
    with pytest.raises(UnknownStoredAnswer, match="more than one"):
        find_stored_answer(open_configured_lake(settings), "")


def test_a_question_of_an_unknown_tenant_is_refused_and_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(settings.home))
    asked = CliRunner().invoke(app, ["ask", QUESTION, "--tenant", "acmee", "--json"], catch_exceptions=False)
    assert "the tenant 'acmee' has no documents" in " ".join(asked.stderr.split())
    found = json.loads(asked.stdout)
    assert found["citations"] == []
    assert "Danube rises" not in found["answer"]


def test_a_full_journal_is_committed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.operations.ask.JOURNAL_ANSWERS", 3)
    before = open_configured_lake(settings).version(ANSWERS.name)
    service = open_ask_service(settings)
    for _ in range(7):
        service.ask(QUESTION, "acme")
    assert (
        open_configured_lake(settings).version(ANSWERS.name) == before + 3
    )  # two full ones, and the rest here


ASK_AND_DIE = """
import os, signal, sys
from pathlib import Path
from orchestration.cli.main import app
from orchestration.operations.ask import open_ask_service
from orchestration.settings import Settings
service = open_ask_service(Settings(home=Path(sys.argv[1])))
for _ in range(2):
    print(service.ask("Where does the Danube rise?", "acme").answer_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_service_loses_no_answer(settings: Settings) -> None:
    command = [sys.executable, "-c", ASK_AND_DIE, str(settings.home)]
    died = subprocess.run(command, capture_output=True, text=True, env=os.environ.copy())
    assert died.returncode == -signal.SIGKILL, died.stderr
    given = died.stdout.split()
    assert len(given) == 2
    assert set(given) <= set(answer_ids(settings))


def test_a_commit_that_was_cut_off_adds_nothing_twice_and_a_torn_line_is_left_out(settings: Settings) -> None:
    journal, folder = AnswerJournal(settings.answers_dir), settings.answers_dir
    service = open_ask_service(settings)
    first = service.ask(QUESTION, "acme")
    shutil.copy(folder / "journal.jsonl", folder / "before")
    open_configured_lake(settings)
    # As a process leaves it that was killed after its commit and before it emptied the journal.
    shutil.move(folder / "before", folder / "journal.jsonl")
    (folder / "committing").touch()
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(b'{"answer": {"answer_id": "tor')
    second = service.ask(QUESTION, "acme")
    ids = answer_ids(settings)
    assert [ids.count(answer.answer_id) for answer in (first, second)] == [1, 1]
    assert journal.is_empty()
    assert not (folder / "committing").exists()


def test_a_lake_opens_where_its_answers_can_not_be_committed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Lake, *args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Lake, "append", full)
        with open_ask_service(settings) as service:
            answer = service.ask(QUESTION, "acme")
            open_configured_lake(settings)
    assert "No space left" in caplog.text
    assert answer.answer_id in answer_ids(settings)


def test_a_line_of_the_journal_that_is_no_answer_is_put_aside(settings: Settings) -> None:
    service = open_ask_service(settings)
    with (settings.answers_dir / "journal.jsonl").open("ab") as file:
        file.write(b'{"of": "another version"}\n')
    answer = service.ask(QUESTION, "acme")
    assert answer.answer_id in answer_ids(settings)
    assert AnswerJournal(settings.answers_dir).is_empty()
    assert (settings.answers_dir / "unreadable.jsonl").read_text() == '{"of": "another version"}\n'


def test_the_engine_is_built_once_for_all_questions(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[EngineConfig] = []

    def counted(config: EngineConfig, encoder: ExtractiveEncoder, workplace: Workplace) -> Engine:
        built.append(config)
        return build_engine(config, encoder, workplace)

    monkeypatch.setattr("inference.answering.query_service.build_engine", counted)
    with open_ask_service(settings) as service:
        for _ in range(3):
            service.ask(QUESTION, "acme")
    assert len(built) == 1


def test_an_answer_of_an_earlier_release_names_its_embedder_and_the_engine_its_own(
    settings: Settings, tmp_path: Path
) -> None:
    shutil.copytree(packaged_embedding_model(), tmp_path / "next")
    with (tmp_path / "next" / "config.json").open("a") as file:
        file.write(" ")  # another digest
    recipe = settings.recipe.model_copy(update={"embedder": EmbedderConfig(model=tmp_path / "next")})
    with open_ask_service(settings) as service:
        before = service.ask(QUESTION, "acme")
        release = service.live_release()
    with open_ask_service(settings.model_copy(update={"recipe": recipe})) as service:
        after = service.ask(QUESTION, "acme", service.release_as_of(release.release_id))
    assert before.model_digest == after.model_digest == release.details.model_digest
    assert before.model_digest != EmbeddingModel.of(recipe.embedder, settings.home).digest
    engines = {
        build_engine(EngineConfig(), EmbeddingModel.of(each, settings.home).embedder).digest
        for each in (settings.recipe.embedder, recipe.embedder)
    }
    assert {before.generator_digest, after.generator_digest} == engines


def test_models_of_earlier_releases_are_loaded_once_and_few_are_kept(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Path] = []
    of = EmbeddingModel.of

    def counted(config: EmbedderConfig, state: Path) -> EmbeddingModel:
        found.append(config.model)
        return of(config, state)

    def release_of(number: int) -> IndexRelease:
        folder = tmp_path / f"model {number}"
        if not folder.exists():  # other bytes, another digest
            shutil.copytree(packaged_embedding_model(), folder)
            with (folder / "config.json").open("a") as file:
                file.write(" " * number)
        embedder = EmbedderConfig(model=folder)
        digest = of(embedder, settings.home).digest
        details = made_with(digest).model_copy(update={"embedder": embedder})
        return IndexRelease(f"r{number}", number, 1, datetime.now(UTC), details)

    models = ReleaseModels(of(settings.recipe.embedder, settings.home), settings.home)
    releases = [release_of(number) for number in range(1, MAX_OLD_MODELS + 2)]
    assert len({release.details.model_digest for release in releases}) == len(releases)
    monkeypatch.setattr(EmbeddingModel, "of", counted)
    first = models.model_of(releases[0])
    assert models.model_of(releases[0]) is first
    assert first.digest == releases[0].details.model_digest
    assert len(found) == 1
    for release in releases:
        models.model_of(release)
    assert len(found) == len(releases)
    assert models.model_of(releases[-1]) is models.model_of(releases[-1])
    assert models.model_of(releases[0]) is not first  # the least recently used one made room


def test_a_model_that_was_put_back_is_found(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(packaged_embedding_model(), folder)
    with (folder / "config.json").open("a") as file:
        file.write(" ")
    embedder = EmbedderConfig(model=folder)
    digest = EmbeddingModel.of(embedder, settings.home).digest
    details = made_with(digest).model_copy(update={"embedder": embedder})
    release = IndexRelease("r9.1", 9, 1, datetime.now(UTC), details)
    models = ReleaseModels(EmbeddingModel.of(settings.recipe.embedder, settings.home), settings.home)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(QueryModelMismatch, match="put it back there"):
        models.model_of(release)
    (tmp_path / "elsewhere").rename(folder)
    assert models.model_of(release).digest == digest
