"""The demo: a lake from the software installed beside it, and questions answered, cited and traced."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from assets.sources.source_config import PYTHON_ENVIRONMENT, Source
from assets.sources.source_registry import SourceRegistry
from orchestration.operations.ask import open_ask_service
from orchestration.operations.ingest import IngestResult, ingest_and_release
from orchestration.settings import Settings

DEMO_SOURCE = "demo"
DEMO_QUESTIONS = (
    "What does the nonlocal statement do?",
    "Which library turns a PDF page into an image?",
    "How is the temperature in Paris today?",
)
"""Two questions that the corpus answers, and one that it can not."""


@dataclass(frozen=True)
class DemoResult:
    """The result of the demo: what was ingested, and an answer per question."""

    ingested: IngestResult
    answers: list[dict[str, Any]]
    """An answer per question, as `headwater ask --json` prints it, with its `question`."""


def demo_questions_file() -> str:
    """Returns the path of the packaged evaluation questions about the demo's corpus."""
    return str(resources.files("orchestration.operations") / "demo_questions.jsonl")


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
