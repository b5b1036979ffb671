"""A batch of questions: answered in shards, resumed after every kill, each bad question failing alone."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cross_encoders import save_cross_encoder
from deltalake import write_deltalake
from dying_worker import dying_python
from tiny_generator import save_tiny_generator
from typer.testing import CliRunner

from assets.answers.batches import AnswerBatches, BatchRunning, InvalidQuestionSet
from assets.answers.checks import (
    AnswerFigures,
    AnswerLimits,
    answer_figures,
    beyond_limits,
    check_citations,
)
from assets.answers.stored import stored_batch
from assets.lake.tables import ANSWERS
from assets.sources.source_config import Source
from assets.sources.source_registry import SourceRegistry
from inference.answering.retrieval_settings import RetrievalSettings
from inference.batch.answer_batch import BatchOutcome
from inference.engines.generator import EngineConfig
from orchestration.cli.main import app
from orchestration.operations.ingest import ingest_and_release
from orchestration.operations.runs import RunFailed, execute_answers_run
from orchestration.settings import Settings, open_configured_lake
from retrieval.index.index import Index
from retrieval.rerank.reranker import RerankerConfig
from retrieval.search.searcher import SearchConfig
from retrieval.store.postgres import Postgres

TOPICS = {
    "glaciers": "A glacier is a persistent body of dense ice that moves under its own weight.",
    "bread": "Sourdough bread is leavened by wild yeast and lactobacilli that live in a starter of flour.",
    "tides": "Tides are the rise and fall of sea levels caused by the pull of the moon and the sun.",
    "bees": "A honey bee colony has one queen, some thousands of workers and a few hundred drones.",
}
QUESTIONS = [
    {"id": f"{topic}-{number}", "question": f"{text.removesuffix('.')}: is it so, number {number}?"}
    for topic, text in TOPICS.items()
    for number in range(3)
]


def write_lines(file: Path, rows: Sequence[object]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def settings(module_folder: Path) -> Iterator[Settings]:
    """A state folder with a release of four short files."""
    corpus = module_folder / "corpus"
    corpus.mkdir()
    for name, text in TOPICS.items():
        (corpus / f"{name}.md").write_text(f"# About {name}\n\n{text}\n")
    settings = Settings(home=module_folder / "state")
    settings.home.mkdir()
    SourceRegistry(settings.sources_file).add(Source(name="docs", location=str(corpus)))
    ingest_and_release(settings, lambda line: None)
    yield settings
    Postgres(settings.home, settings.postgres).stop()


def run(settings: Settings, name: str, questions: Path) -> BatchOutcome:
    batches = AnswerBatches(settings.batches_dir)
    batches.add(name, questions)
    assert execute_answers_run(settings, name, lambda line: None).failures == []
    outcome = batches.outcome(name)
    assert outcome is not None
    return outcome


def batch_rows(settings: Settings, name: str) -> list[dict[str, Any]]:
    """The answers of a batch, without what says when and in which batch they were given."""
    rows = open_configured_lake(settings).query(
        "select * exclude (answer_id, batch, answered_at) from answers where batch = ? order by question_id",
        [name],
        answers=open_configured_lake(settings).delta(ANSWERS.name),
    )
    return rows.to_pylist()


def test_a_batch_is_answered_once_and_only_what_is_missing_is_answered_again(
    settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"generator": EngineConfig(shard_questions=5)})
    lake = open_configured_lake(settings)
    before = lake.version(ANSWERS.name)
    first = run(settings, "twice", write_lines(tmp_path / "q.jsonl", QUESTIONS[:7]))
    assert (first.questions, first.answered, first.computed, first.shards) == (7, 7, 7, 2)
    assert lake.version(ANSWERS.name) == before + 2
    again = run(settings, "twice", tmp_path / "q.jsonl")
    assert (again.answered, again.computed, again.shards) == (7, 0, 0)
    assert lake.version(ANSWERS.name) == before + 2
    more = run(settings, "twice", write_lines(tmp_path / "q.jsonl", QUESTIONS))
    assert (more.questions, more.answered, more.computed) == (12, 12, 5)
    rows = batch_rows(settings, "twice")
    assert [row["question_id"] for row in rows] == sorted(str(each["id"]) for each in QUESTIONS)
    assert all(row["citations"] and not row["refused"] for row in rows)
    assert check_citations(lake, stored_batch(lake, "twice")).broken == 0


def test_a_run_leaves_no_connection_to_postgres(settings: Settings, tmp_path: Path) -> None:
    def connections() -> set[int]:
        with postgres.owner() as connection:
            found = connection.execute("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
            return {pid for (pid,) in found}

    postgres = Postgres(settings.home, settings.postgres)
    before = connections()
    for number in range(2):
        run(settings, f"connections-{number}", write_lines(tmp_path / "q.jsonl", QUESTIONS[:4]))
    deadline = time.monotonic() + 10  # a closed connection's backend takes a moment to end
    while (left := connections() - before) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert left == set()
    postgres.close()


def test_a_bad_question_fails_alone_with_its_reason(settings: Settings, tmp_path: Path) -> None:
    bad = [
        {"id": "long", "question": "x" * 100_000},
        {"id": "null", "question": None},
        {"id": QUESTIONS[0]["id"], "question": "Again?"},
        {"id": "nobody", "question": "Where?", "tenant": "nobody"},
        {"id": "early", "question": "Where?", "as_of": "2001-01-01"},
        {"id": "none", "question": "Where?", "as_of": "r99"},
    ]
    outcome = run(settings, "some-bad", write_lines(tmp_path / "q.jsonl", [*QUESTIONS[:2], *bad]))
    assert (outcome.questions, outcome.answered, len(outcome.failed)) == (8, 2, 6)
    reasons = {each.id: each.reason for each in outcome.failed}
    assert "100000 characters" in reasons["long"]
    assert "question" in reasons["null"]
    assert "occurred before" in reasons[str(QUESTIONS[0]["id"])]
    assert "no documents" in reasons["nobody"]
    assert "r1.1" in reasons["early"]
    assert "r99" in reasons["none"]


def test_a_question_of_an_earlier_release_is_asked_of_it(settings: Settings, tmp_path: Path) -> None:
    live = Index(Postgres(settings.home, settings.postgres)).live()
    assert live is not None
    row = QUESTIONS[0] | {"as_of": live.release_id}
    outcome = run(settings, "as-of", write_lines(tmp_path / "q.jsonl", [row]))
    assert (outcome.answered, outcome.failed) == (1, ())
    assert batch_rows(settings, "as-of")[0]["release_id"] == live.release_id


def test_a_delta_table_of_questions_is_a_question_set(settings: Settings, tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b"], "question": ["What is a glacier?", None], "groups": [["x"], None]})
    write_deltalake(tmp_path / "questions", table)
    outcome = run(settings, "delta", tmp_path / "questions")
    assert (outcome.answered, [each.id for each in outcome.failed]) == (1, ["b"])
    with pytest.raises(InvalidQuestionSet, match="nor a Delta table"):
        AnswerBatches(settings.batches_dir).add("delta", tmp_path)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", "-x", "x" * 65, "."])
def test_a_name_that_is_no_folder_of_its_own_is_refused(tmp_path: Path, name: str) -> None:
    file = write_lines(tmp_path / "q.jsonl", QUESTIONS)
    with pytest.raises(InvalidQuestionSet, match="can not name a batch"):
        AnswerBatches(tmp_path / "batches").add(name, file)


def test_a_batch_is_answered_by_one_process_at_a_time(tmp_path: Path) -> None:
    batches = AnswerBatches(tmp_path / "batches")
    batches.add("one", write_lines(tmp_path / "q.jsonl", QUESTIONS))
    with (
        batches.exclusive("one"),
        pytest.raises(BatchRunning, match="another process"),
        batches.exclusive("one"),
    ):
        pass


DIE = """
import os, signal, sys
from itertools import count
from pathlib import Path
import inference.batch.answer_batch as module
from assets.answers.batches import AnswerBatches
from assets.answers.journal import AnswerJournal
from assets.answers.stored import stored_batch_ids
from assets.lake.lake import Lake
from inference.answering.query_service import QueryService
from inference.engines.worker.engine import WorkerEngine
from orchestration.operations.ask import open_ask_service
from orchestration.settings import Settings, open_configured_lake

home, name, owner, function, when, nth = sys.argv[1:]
kind = {"journal": AnswerJournal, "lake": Lake, "service": QueryService, "engine": WorkerEngine}[owner]
original, calls = getattr(kind, function), count(1)

def dying(self, *args, **options):
    call = next(calls)  # searches run in threads
    if call == int(nth) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = original(self, *args, **options)
    if call == int(nth) and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(kind, function, dying)
settings = Settings(home=Path(home))
lake, batches = open_configured_lake(settings), AnswerBatches(settings.batches_dir)
journal = batches.journal(name)
journal.commit(lake)
module.answer_batch(
    name, batches.questions(name), open_ask_service(settings), stored_batch_ids(lake, name),
    journal.add, lambda: journal.commit(lake),
)
print("ended")
"""
POINTS = [
    ("service", "retrieve_passages", "before", 1),
    ("journal", "add", "before", 1),
    ("journal", "add", "after", 1),
    ("journal", "add", "after", 3),
    ("lake", "append", "before", 1),
    ("lake", "append", "after", 1),
    ("journal", "commit", "after", 2),
    ("journal", "add", "before", 2),
    ("lake", "append", "after", 1),
    ("service", "retrieve_passages", "after", 1),
    ("lake", "append", "before", 1),
]
"""Where a run is killed, each run going on from what the one before it left."""


def test_a_batch_killed_anywhere_is_complete_and_none_is_doubled(settings: Settings, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "q.jsonl", QUESTIONS)
    AnswerBatches(settings.batches_dir).add("killed", file)
    for point in POINTS:
        arguments = [str(settings.home), "killed", *map(str, point)]
        died = subprocess.run(
            [sys.executable, "-c", DIE, *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"HEADWATER_GENERATOR__SHARD_QUESTIONS": "5"},
        )
        assert died.returncode == -signal.SIGKILL, (point, died.stdout, died.stderr)
    outcome = run(settings, "killed", file)
    assert (outcome.answered, outcome.failed) == (12, ())
    assert outcome.computed < 12
    run(settings, "whole", file)
    assert batch_rows(settings, "killed") == batch_rows(settings, "whole")


def test_a_batch_is_answered_anew_where_passages_are_found_otherwise(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_lines(tmp_path / "q.jsonl", QUESTIONS[:2])
    reranker = RerankerConfig(model=save_cross_encoder(tmp_path / "cross-encoder"), budget_s=60)
    reranked = settings.model_copy(update={"reranker": reranker})
    fewer = settings.model_copy(update={"reranker": reranker.model_copy(update={"candidates": 3})})
    recipe = settings.recipe.model_copy(update={"search": SearchConfig(vector_weight=0.2)})
    weighted = settings.model_copy(update={"recipe": recipe})
    for changed in (settings, reranked, fewer, weighted):
        assert [run(changed, "found", file).computed for _ in range(2)] == [2, 0]
    save_cross_encoder(tmp_path / "cross-encoder", hidden_size=48)  # in its place
    assert [run(reranked, "found", file).computed for _ in range(2)] == [2, 0]
    monkeypatch.setattr(
        "inference.answering.query_service.RetrievalSettings",
        partial(RetrievalSettings, passages_per_question=4),
    )
    assert [run(settings, "found", file).computed for _ in range(2)] == [2, 0]
    told = {row["retrieval_digest"] for row in batch_rows(settings, "found")}
    assert len(told) == 6


WORKER_POINTS = [
    (("journal", "commit", "none", 0), "add:parent:3"),
    (("engine", "_reply", "before", 2), "add:after:2"),
    (("journal", "add", "after", 2), ""),
]
"""Where a run is killed whose worker is killed too, and where its worker is: a point of each."""


@pytest.mark.slow
def test_a_run_and_its_worker_killed_anywhere_leave_the_batch_complete_and_none_doubled(
    settings: Settings, tmp_path: Path
) -> None:
    model = save_tiny_generator(tmp_path / "model", 512)
    python = dying_python(tmp_path, "")
    generator = EngineConfig(model=model, worker_python=python, max_new_tokens=4)
    with_worker = settings.model_copy(update={"generator": generator})
    file = write_lines(tmp_path / "q.jsonl", QUESTIONS)
    AnswerBatches(settings.batches_dir).add("worker-killed", file)
    for point, plan in WORKER_POINTS:
        (tmp_path / "plan").write_text(plan)
        died = subprocess.run(
            [sys.executable, "-c", DIE, str(settings.home), "worker-killed", *map(str, point)],
            capture_output=True,
            text=True,
            env=os.environ | {"HEADWATER_GENERATOR": generator.model_dump_json()},
        )
        assert died.returncode == -signal.SIGKILL, (point, died.stdout, died.stderr)
    outcome = run(with_worker, "worker-killed", file)
    assert (outcome.answered, outcome.failed) == (12, ())
    computed = (tmp_path / "computed").read_text().split()
    assert len(set(computed)) == 12
    assert len(computed) <= 12 + 1  # the one in flight, whose line was written when its worker was killed
    run(with_worker, "worker-whole", file)
    rows = batch_rows(settings, "worker-killed")
    assert rows == batch_rows(settings, "worker-whole")
    assert {row["engine"] for row in rows} == {"worker:model"}
    assert all(row["prompt_tokens"] and row["passages_left_out"] is not None for row in rows)
    assert not list((settings.home / "worker").glob("*.parquet*[!k]"))


class Flaky(BaseHTTPRequestHandler):
    """A chat service that refuses one question, and answers the others with a citation."""

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][1]["content"]
        refused = "number 1" in asked
        content = "A glacier is a persistent body of dense ice that moves under its own weight [1]."
        body = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
        self.send_response(400 if refused else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_what_an_endpoint_refuses_fails_alone_and_is_asked_again(settings: Settings, tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    generator = settings.generator.model_copy(
        update={"endpoint": f"http://127.0.0.1:{server.server_address[1]}", "endpoint_model": "m"}
    )
    with_endpoint = settings.model_copy(update={"generator": generator})
    file = write_lines(tmp_path / "q.jsonl", QUESTIONS[:3])
    first = run(with_endpoint, "endpoint", file)
    assert (first.computed, [each.id for each in first.failed]) == (2, ["glaciers-1"])
    assert "HTTP 400" in first.failed[0].reason
    again = run(with_endpoint, "endpoint", file)
    assert (again.answered, again.computed, [each.id for each in again.failed]) == (2, 0, ["glaciers-1"])
    server.shutdown()
    assert {row["engine"] for row in batch_rows(settings, "endpoint")} == {"openai:m"}


def test_the_command_prints_the_contract_and_exports(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(settings.home))
    file = write_lines(tmp_path / "q.jsonl", [*QUESTIONS[:2], {"id": "bad"}])

    def headwater(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    result = CliRunner().invoke(app, ["answers", "run", str(file), "--name", "cli", "--json"])
    assert result.exit_code == 1
    assert isinstance(result.exception, RunFailed)
    assert "1 of 3 questions not answered" in str(result.exception)
    assert f"`headwater answers run {file} --name cli`" in str(result.exception)
    found = json.loads(result.stdout)
    assert list(found) == [
        *("name", "questions", "answered", "failed", "shards", "seconds", "questions_per_s")
    ]
    assert (found["questions"], found["answered"], found["failed"]) == (3, 2, 1)
    [row] = [row for row in json.loads(headwater("answers", "batches", "--json")) if row["name"] == "cli"]
    assert [each["id"] for each in row["failures"]] == ["bad"]
    listed = json.loads(headwater("answers", "list", "--batch", "cli", "--json"))
    headwater("answers", "export", "cli", str(tmp_path / "cli.jsonl"))
    headwater("answers", "export", "cli", str(tmp_path / "cli.parquet"))
    lines = [json.loads(line) for line in (tmp_path / "cli.jsonl").read_text().splitlines()]
    exported = pq.read_table(tmp_path / "cli.parquet")["answer_id"].to_pylist()
    assert {each["answer_id"] for each in listed} == {each["answer_id"] for each in lines} == set(exported)
    assert [each["question_id"] for each in lines] == ["glaciers-0", "glaciers-1"]
    trace = json.loads(headwater("trace", exported[0], "--json"))
    assert str(TOPICS["glaciers"]) in json.dumps(trace)


def test_a_quote_that_is_not_in_its_document_is_found(settings: Settings) -> None:
    lake = open_configured_lake(settings)
    answers = stored_batch(lake, "whole")
    rows = answers.to_pylist()
    rows[0]["citations"][0]["char_start"] += 1
    rows[1]["citations"][0]["doc_id"] = "0" * 64
    rows[2]["citations"] = []
    found = check_citations(lake, pa.Table.from_pylist(rows, answers.schema))
    assert (found.broken, found.uncited) == (2, 1)


def test_what_differs_from_the_answers_before_is_said() -> None:
    limits = AnswerLimits(max_refused=0.5)
    before = AnswerFigures(100, 0.1, 20.0, 0.9, 0.0)
    assert beyond_limits([before], limits) == []
    assert beyond_limits([AnswerFigures(100, 0.2, 25.0, 0.85, 0.1), before], limits) == []
    assert len(beyond_limits([AnswerFigures(100, 0.6, 40.0, 0.7, 0.3), before], limits)) == 5
    nothing = AnswerFigures(100, 1.0, math.nan, math.nan, 0.0)
    assert len(beyond_limits([nothing, before], AnswerLimits())) == 1
    assert len(beyond_limits([before, nothing], AnswerLimits())) == 1


def test_figures_are_those_of_the_newest_engine_and_of_the_one_before(
    settings: Settings, tmp_path: Path
) -> None:
    file = write_lines(tmp_path / "q.jsonl", QUESTIONS[:3])
    run(settings, "drift", file)
    shy = settings.generator.model_copy(
        update={"extractive": settings.generator.extractive.model_copy(update={"min_cosine": 0.999})}
    )
    run(settings.model_copy(update={"generator": shy}), "drift", file)
    now, before = answer_figures(open_configured_lake(settings), "drift")
    assert (now.answers, now.refused, math.isnan(now.mean_words)) == (3, 1.0, True)
    assert (before.answers, before.refused, before.supported) == (3, 0.0, 1.0)
    assert before.mean_words > 10
    [said] = beyond_limits([now, before], settings.recipe.answers)
    assert said == "100% of the questions were refused, 0% before"


def test_a_batch_that_is_replayed_is_equal_or_says_what_differs(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(settings.home))
    run(settings, "again", write_lines(tmp_path / "q.jsonl", QUESTIONS[:4]))
    lake = open_configured_lake(settings)
    before = lake.version(ANSWERS.name)

    def replayed() -> dict[str, Any]:
        done = CliRunner().invoke(app, ["answers", "replay", "again", "--json"], catch_exceptions=False)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    found = replayed()
    assert (found["answers"], found["equal"], found["differing"]) == (4, 4, [])
    monkeypatch.setenv("HEADWATER_GENERATOR__EXTRACTIVE__MIN_COSINE", "0.999")
    found = replayed()
    assert (found["answers"], found["equal"]) == (4, 0)
    assert {tuple(each["differs"]) for each in found["differing"]} == {("engine", "answer", "citations")}
    assert lake.version(ANSWERS.name) == before
    shown = CliRunner().invoke(app, ["answers", "replay", "again"], catch_exceptions=False).stdout
    assert "0 of 4 answers equal" in shown
