"""The demo: a lake from the software installed beside it, and questions answered, cited and traced."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from assets.sources.source_config import PYTHON_ENVIRONMENT, Source
from assets.sources.source_registry import SourceRegistry
from orchestration.operations.ask import open_ask_service
from orchestration.operations.ingest import RunSummary, ingest_and_release
from orchestration.settings import Settings
from quality.evaluation.answer_collection import AnswerCollection, AnswerQuestion, load_answer_collection

DEMO_SOURCE = "demo"
DEMO_QUESTIONS = (
    "What does the global statement do?",
    "What is tenacity for?",
    "How is the temperature in Paris today?",
)
"""Two questions that the corpus answers, and one that it can not."""


@dataclass(frozen=True)
class DemoResult:
    """The result of the demo: what was ingested, and an answer per question."""

    ingested: RunSummary
    answers: list[dict[str, Any]]
    """An answer per question, as `headwater ask --json` prints it, with its `question`."""


def demo_questions_file() -> str:
    """Returns the path of the packaged evaluation questions about the demo's corpus."""
    return str(resources.files("orchestration.operations") / "demo_questions.jsonl")


def demo_answer_collection(limit: int | None = None) -> AnswerCollection:
    """Returns the questions that measure answers about the demo's corpus.

    Beside those that its documents answer there are those about other subjects, and near misses: questions
    about what the documents describe, for a fact that they do not state.

    Args:
        limit: The most questions of each kind.
    """
    folder = resources.files("orchestration.operations")

    def questions(file: str) -> tuple[AnswerQuestion, ...]:
        with resources.as_file(folder / file) as path:
            return load_answer_collection(path, limit).questions

    unanswerable = tuple(replace(each, answerable=False) for each in questions("demo_unanswerable.jsonl"))
    asked = questions("demo_questions.jsonl") + unanswerable + questions("demo_near_misses.jsonl")
    return AnswerCollection(DEMO_SOURCE, "questions", asked)


def has_demo_source(settings: Settings) -> bool:
    """Returns whether the demo's corpus is a source of the lake."""
    return any(source.name == DEMO_SOURCE for source in SourceRegistry(settings.sources_file).list())


def run_demo(settings: Settings, progress: Callable[[str], None]) -> DemoResult:
    """Builds the demo's lake and asks it three questions.

    Args:
        settings: The settings of the state folder.
        progress: Called with a line for each step that begins or ends.

    Raises:
        RunFailed: A step or a gate failed.
    """
    registry = SourceRegistry(settings.sources_file)
    wanted = Source(name=DEMO_SOURCE, location=PYTHON_ENVIRONMENT, questions=demo_questions_file())
    there = {source.name: source for source in registry.list()}.get(DEMO_SOURCE)
    if there is not None and there != wanted:
        registry.remove(DEMO_SOURCE)
    if there != wanted:
        registry.add(wanted)
    built = ingest_and_release(settings, progress)
    answers = []
    with open_ask_service(settings) as service:
        for question in DEMO_QUESTIONS:
            progress(f"asking: {question}")
            answers.append({"question": question, **service.ask(question, wanted.tenant).to_dict()})
    return DemoResult(built, answers)
