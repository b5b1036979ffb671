"""A changed engine answers when it is no worse than the one that does, or when a person has it answer."""

import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from live_models import log_of
from small_release import state_with_small_release
from typer.testing import CliRunner, Result

from assets.answers.batches import AnswerBatches
from assets.answers.stored import find_stored_answer, recent_stored_answers
from assets.engine_releases import (
    EngineNotReleasable,
    decided_engine,
    engine_releases,
    log_engine_decision,
)
from assets.lake.tables import ENGINE_RELEASES
from inference.answering.retrieval_settings import RetrievalSettings
from inference.engines.generator import EngineConfig, build_engine
from inference.engines.protocol import Engine, EngineChanged
from inference.scoring.answer_scorer import PACKAGED_ANSWER_SCORER, load_answer_scorer
from orchestration.answer_evaluation.engine_gate import promote_engine
from orchestration.cli.main import app
from orchestration.operations.ask import open_ask_service
from orchestration.operations.runs import execute_answers_run
from orchestration.services.status import state_status
from orchestration.settings import Settings, open_configured_lake
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.release_log import ReleaseConflict
from retrieval.rerank.reranker import RerankerConfig
from retrieval.search.searcher import SearchConfig

RETRIEVAL = RetrievalSettings(SearchConfig(), RerankerConfig())
ASKED = [
    {"question": "Where does the Danube rise?", "exact_answer": "Black Forest"},
    {"question": "In which country does the Danube rise?", "exact_answer": "Germany"},
    {"question": "What is bread baked from?", "exact_answer": "flour"},
    {"question": "With what is bread baked, beside flour?", "exact_answer": "salt"},
    {"question": "Where do rivers rise?", "exact_answer": "hills"},
    {"question": "Where do rivers end?", "exact_answer": "sea"},
]
QUESTIONS = [
    row | {"question": f"{row['question']} I ask for {number} friends."}
    for number in range(50)
    for row in ASKED
]


class Chat(ThreadingHTTPServer):
    """A service that answers with the passage that shares most words with the question, or not at all."""

    refuses = False
    filters = False

    def __init__(self) -> None:
        chat = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][1]
                content = "NOT FOUND" if chat.refuses else _best_passage(prompt["content"])
                choice = {
                    "message": {"content": None if chat.filters else content},
                    "finish_reason": "content_filter" if chat.filters else "stop",
                }
                body = json.dumps({"choices": [choice]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        super().__init__(("127.0.0.1", 0), Handler)


def _best_passage(prompt: str) -> str:
    asked = set(re.findall(r"\w+", prompt.rpartition("Question:")[2].casefold()))
    passages = re.findall(r'<passage number="(\d+)">\n(.*?)\n</passage>', prompt, re.DOTALL)
    number, text = max(passages, key=lambda each: len(asked & set(re.findall(r"\w+", each[1].casefold()))))
    return f"{text.removesuffix('.')} [{number}]."


@pytest.fixture(scope="module")
def settings(module_folder: Path) -> Iterator[Settings]:
    with state_with_small_release(module_folder / "state") as made:
        yield made


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[Chat]:
    """A running service; the command line finds the state folder, and no generator yet."""
    monkeypatch.setenv("HEADWATER_HOME", str(settings.home))
    with Chat() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def configure(monkeypatch: pytest.MonkeyPatch, chat: Chat, model: str) -> None:
    monkeypatch.setenv("HEADWATER_GENERATOR__ENDPOINT", f"http://127.0.0.1:{chat.server_port}")
    monkeypatch.setenv("HEADWATER_GENERATOR__ENDPOINT_MODEL", model)


def headwater(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def gate(folder: Path, questions: list[dict[str, str]] = QUESTIONS) -> Result:
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in questions))
    return headwater("evaluate-answers", str(file), "--tenant", "acme", "--gate", "--json")


def default_engine(settings: Settings) -> Engine:
    return build_engine(EngineConfig(), EmbeddingModel.of(settings.recipe.embedder, settings.home).embedder)


def answering_engine(settings: Settings) -> str:
    """Asks a question, and returns the name of the engine that answered."""
    asked = headwater("ask", "Where does the Danube rise?", "--tenant", "acme", "--json")
    assert asked.exit_code == 0, asked.output
    return recent_stored_answers(open_configured_lake(settings), 1, "acme")[0].engine


def test_an_engine_answers_once_it_is_released_and_another_is_held(
    settings: Settings, chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Before the first decision the engine that is configured answers.
    configure(monkeypatch, chat, "worse")
    assert answering_engine(settings) == "openai:worse"

    chat.refuses = True
    done = gate(tmp_path)
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert found["gate"]["decision"] == "held"
    assert "answered -1.000" in found["gate"]["reason"]
    assert found["gate"]["outcome"] == "refused"
    again = gate(tmp_path)  # the same questions decide it: neither engine is asked again
    assert (again.exit_code, list(json.loads(again.stdout))) == (1, ["gate"])
    assert "decided on questions: 300 questions" in json.loads(again.stdout)["gate"]["reason"]
    assert len(found["engines"]) == 2
    assert answering_engine(settings) == "extractive"
    listed = json.loads(headwater("engines", "list", "--json").stdout)
    assert (listed["answers"], listed["configured"]) == ("extractive", "openai:worse")
    assert "worse than the live engine: " in listed["held_because"]
    assert [each["decision"] for each in listed["decisions"]] == ["held", "released"]
    shown = state_status(
        settings.model_copy(update={"generator": EngineConfig(endpoint="http://x", endpoint_model="y")})
    )
    assert shown.engine == "extractive"
    assert any("has not been measured" in problem for problem in shown.problems)

    chat.refuses = False
    configure(monkeypatch, chat, "good")
    done = gate(tmp_path)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["gate"]["decision"] == "released"
    assert answering_engine(settings) == "openai:good"
    again = gate(tmp_path)
    assert (again.exit_code, list(json.loads(again.stdout))) == (0, ["gate"])
    # Gone back from, it is not said to answer because it was released once.
    assert headwater("engines", "rollback", "--reason", "worse by hand").exit_code == 0
    again = gate(tmp_path)
    found = json.loads(again.stdout)["gate"]
    assert (again.exit_code, found["decision"], found["outcome"]) == (1, "held", "released")
    assert "extractive was rolled_back since: `headwater engines promote" in found["reason"]
    assert headwater("engines", "promote", "--reason", "better after all").exit_code == 0

    # Without its settings it goes on answering, until a person has another answer.
    monkeypatch.delenv("HEADWATER_GENERATOR__ENDPOINT")
    monkeypatch.delenv("HEADWATER_GENERATOR__ENDPOINT_MODEL")
    assert answering_engine(settings) == "openai:good"
    assert headwater("engines", "promote").exit_code == 2
    assert headwater("engines", "promote", "--reason", "no service tonight").exit_code == 0
    assert answering_engine(settings) == "extractive"
    back = headwater("engines", "rollback", "--reason", "it is back", "--json")
    assert json.loads(back.stdout)["engine"] == "openai:good"
    assert answering_engine(settings) == "openai:good"
    assert "there is not one engine 'ffff'" in str(
        headwater("engines", "rollback", "ffff", "--reason", "x").exception
    )
    decisions = [each.decision for each in reversed(engine_releases(log_of(settings)))]
    gone_back_from = ["rolled_back", "promoted"]
    assert decisions == ["released", "held", "released", *gone_back_from, "promoted", "rolled_back"]


def test_an_approved_engine_that_is_another_now_does_not_answer_until_a_person_has_it_answer(
    settings: Settings, chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = tmp_path / "mine.safetensors"
    shutil.copy(PACKAGED_ANSWER_SCORER, scorer)
    monkeypatch.setenv("HEADWATER_GENERATOR__EXTRACTIVE__SCORER", str(scorer))

    def refused(digest: str) -> None:
        asked = headwater("ask", "Where does the Danube rise?", "--tenant", "acme")
        assert isinstance(asked.exception, EngineChanged)
        told = str(asked.exception)
        assert f"extractive was approved to answer as {digest} with passages by " in told
        assert "`headwater engines promote --reason …`" in told
        AnswerBatches(settings.batches_dir).add("stale", write_questions(tmp_path))
        found = execute_answers_run(Settings(home=settings.home), "stale", lambda line: None)
        assert any("was approved to answer as" in failure for failure in found.failures)

    def promoted() -> str:
        done = headwater("engines", "promote", "--reason", "a test", "--json")
        assert done.exit_code == 0, done.output
        assert answering_engine(settings) == "extractive"
        return str(engine_releases(log_of(settings))[0].approval_digest)

    first = promoted()
    content = bytearray(scorer.read_bytes())
    content[-1] ^= 1
    scorer.write_bytes(content)  # replaced in place
    load_answer_scorer.cache_clear()  # as in the next process
    refused(first)
    second = promoted()
    assert second != first
    back = headwater("engines", "rollback", "--reason", "the first was better")
    assert isinstance(back.exception, EngineChanged), "its scorer is there no more"
    assert engine_releases(log_of(settings))[0].approval_digest == second
    with monkeypatch.context() as upgraded:
        upgraded.setattr("inference.engines.digest.code_digest", lambda: "of the next version")
        refused(second)
        configure(monkeypatch, chat, "new")
        gated = gate(tmp_path).exception
        assert isinstance(gated, EngineNotReleasable)
        assert "is not what was released" in str(gated)
    monkeypatch.delenv("HEADWATER_GENERATOR__ENDPOINT")
    monkeypatch.delenv("HEADWATER_GENERATOR__ENDPOINT_MODEL")
    assert answering_engine(settings) == "extractive"


def write_questions(folder: Path) -> Path:
    file = folder / "batch.jsonl"
    file.write_text(json.dumps({"id": "1", "question": "Where do rivers rise?", "tenant": "acme"}) + "\n")
    return file


def test_a_service_that_read_its_settings_before_another_engine_was_released_goes_on_with_that_one(
    settings: Settings,
) -> None:
    for sentences in (4, 3):  # the second while the first is being loaded
        extractive = settings.generator.extractive.model_copy(update={"sentences": sentences})
        config = settings.generator.model_copy(update={"extractive": extractive})
        changed = settings.model_copy(update={"generator": config})
        if sentences == 4:
            promote_engine(changed, "a test")
            service = open_ask_service(changed)
            assert service.engine_config.extractive.sentences == 4
    with service:
        promote_engine(changed, "a test")
        with pytest.raises(EngineChanged):
            service.ask("Where does the Danube rise?", "acme")
        service.ask("Where does the Danube rise?", "acme")
        assert service.engine_config.extractive.sentences == 3


def test_what_a_service_withholds_is_no_refusal(
    settings: Settings, chat: Chat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, chat, "filtered")
    chat.filters = True
    file = tmp_path / "questions.jsonl"
    rows = [*QUESTIONS, {"question": "What is the capital of Peru?", "answerable": False}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = headwater(
        "evaluate-answers", str(file), "--tenant", "acme", "--engine", "openai:filtered", "--json"
    )
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)["engines"]["openai:filtered"]
    assert [figures[name] for name in ("refused", "refused_on_negative", "right", "words")] == [0, 0, 0, None]
    with open_ask_service(settings, Settings(home=settings.home).generator) as service:
        answer = service.ask("Where does the Danube rise?", "acme")
    stored = find_stored_answer(open_configured_lake(settings), answer.answer_id)
    assert (stored.outcome, stored.refused, stored.citations) == ("filtered", False, [])
    assert "content filter withheld" in headwater("answers", "show", answer.answer_id).stdout


def test_of_two_decisions_at_the_same_time_one_is_refused(settings: Settings) -> None:
    lake = open_configured_lake(settings)
    log = log_of(settings)
    since, engine = log.newest_move_id(), default_engine(settings)
    decision = decided_engine(engine, EngineConfig(), "promoted", "first", RETRIEVAL)
    log_engine_decision(lake, log, decision, since)
    with pytest.raises(ReleaseConflict):
        log_engine_decision(lake, log, decision, since)
    rows = lake.delta(ENGINE_RELEASES.name).to_pyarrow_table()
    assert rows["move_id"].to_pylist().count(since + 1) == 1


def test_what_can_not_be_stored_or_is_not_explained_is_not_released(settings: Settings) -> None:
    engine = default_engine(settings)
    config = EngineConfig(endpoint="http://me:secret@host", endpoint_model="m")
    with pytest.raises(EngineNotReleasable, match="API_KEY_ENV"):
        decided_engine(engine, config, "promoted", "new", RETRIEVAL)
    with pytest.raises(EngineNotReleasable, match="reason"):
        decided_engine(engine, EngineConfig(), "promoted", "  ", RETRIEVAL)
