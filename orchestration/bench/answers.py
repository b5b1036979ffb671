"""`bench answers`: questions that a batch answers per second, by engine, and where its time goes."""

import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from assets.answers.journal import AnswerJournal
from inference.batch.answer_batch import BatchOutcome, answer_batch
from inference.batch.question_set import BatchQuestion, QuestionSet
from inference.engines.generator import EngineConfig
from orchestration.bench.report import BenchResult
from orchestration.operations.ask import open_ask_service
from orchestration.settings import Settings, open_configured_lake
from quality.evaluation.answer_collection import AnswerQuestion

GENERATED_QUESTIONS = 20
"""How many questions a local model or an endpoint of yours is asked: they take long, or cost money."""


def bench_answers(
    settings: Settings, asked: Sequence[AnswerQuestion], tenant: str, progress: Callable[[str], None]
) -> BenchResult:
    """Answers questions to the live release in a batch by each engine, into a lake that is removed.

    The engines are the extractive one, OpenAI's protocol to a service in this process that replies at once
    (`loopback`: what our side of it takes), and the local model and the endpoint that the settings name, for
    `GENERATED_QUESTIONS` questions. Each has answered one question before, so that its models are loaded.
    Dagster's start of a run is not in the figures.

    Args:
        settings: The settings.
        asked: The questions.
        tenant: Whose documents are asked.
        progress: Called with a line before each engine.

    Returns:
        For each engine, the questions that it answered, questions per second, and milliseconds per question
        of retrieval, of the engine and of keeping answers (journal and commits); the share of the time that
        each of these takes.

    Raises:
        NoLiveSnapshot: Nothing is released.
        EngineError: An engine can't be loaded.
    """
    questions = tuple(
        BatchQuestion(id=str(number), question=each.text, tenant=tenant) for number, each in enumerate(asked)
    )
    figures, ratios = dict[str, float](), dict[str, float]()
    with _replying_service() as url:
        for name, config in _engines(settings.generator, url).items():
            few = GENERATED_QUESTIONS if name in ("local", "endpoint") else len(questions)
            progress(f"{name}: {len(questions[:few])} questions")
            outcome = _answered(settings.model_copy(update={"generator": config}), questions[:few])
            parts = {
                "retrieval": outcome.retrieval_s,
                "engine": outcome.engine_s,
                "keeping": outcome.keeping_s,
            }
            figures |= {
                f"{name}_answered": outcome.answered,
                f"{name}_questions_per_s": outcome.questions_per_s,
            }
            for part, seconds in parts.items():
                figures[f"{name}_{part}_ms"] = 1000 * seconds / max(outcome.answered, 1)
                ratios[f"{name}_{part}_share"] = seconds / outcome.seconds
    return BenchResult("answers", figures, ratios)


def _engines(configured: EngineConfig, url: str) -> Mapping[str, EngineConfig]:
    alone = configured.model_copy(update={"tiers": [], "router_examples": None})
    no_model = alone.model_copy(update={"model": None})
    extractive = no_model.model_copy(update={"endpoint": None})
    found = {
        "extractive": extractive,
        "loopback": extractive.model_copy(
            update={"endpoint": url, "endpoint_model": "loopback", "api_key_env": None}
        ),
    }
    if configured.model:
        found["local"] = alone.model_copy(update={"endpoint": None})
    if configured.endpoint:
        found["endpoint"] = no_model
    return found


def _answered(settings: Settings, questions: tuple[BatchQuestion, ...]) -> BatchOutcome:
    """Answers questions in a batch, into a lake of its own."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        scratch = settings.model_copy(update={"home": Path(folder), "lake": None})
        lake, journal = open_configured_lake(scratch), AnswerJournal(scratch.answers_dir)
        service = open_ask_service(settings, settings.generator)

        def answer(asked: tuple[BatchQuestion, ...]) -> BatchOutcome:
            return answer_batch(
                "bench", QuestionSet(asked, ()), service, (), journal.add, lambda: journal.commit(lake)
            )

        answer(questions[:1])
        return answer(questions)


@contextmanager
def _replying_service() -> Iterator[str]:
    """Runs a chat service that cites the first passage of each prompt at once; yields its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Reply) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _Reply(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Prints nothing."""

    def do_POST(self) -> None:
        """Replies in OpenAI's chat form."""
        prompt = json.loads(self.rfile.read(int(self.headers["content-length"])))["messages"][-1]["content"]
        passage = prompt.partition('<passage number="1">')[2].partition("</passage>")[0]
        content = f"{' '.join(passage.split()[:40])} [1]"
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
