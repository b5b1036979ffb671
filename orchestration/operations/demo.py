"""The demo: a lake from the software installed beside it, and questions answered, cited and traced."""

from collections.abc import Callable
from importlib import resources
from typing import Any

from assets.sources.source_config import PYTHON_ENVIRONMENT, Source
from assets.sources.source_registry import SourceRegistry
from orchestration.operations.ask import open_query_service
from orchestration.operations.ingest import ingest_and_release
from orchestration.settings import Settings

DEMO_SOURCE = "demo"
DEMO_QUESTIONS = (
    "What does the nonlocal statement do?",
    "Which library turns a PDF page into an image?",
    "How is the temperature in Paris today?",
)
"""Two that the corpus answers and one that it can not."""


def demo_questions_file() -> str:
    """The packaged evaluation questions about the demo's corpus."""
    return str(resources.files("orchestration.operations") / "demo_questions.jsonl")


def run_demo(settings: Settings, progress: Callable[[str], None]) -> dict[str, Any]:
    """Builds the demo's lake and asks it three questions.

    Returns:
        What `headwater demo --json` prints.

    Raises:
        RunFailed: When a step failed or a gate held.
    """
    registry = SourceRegistry(settings.sources_file)
    wanted = Source(name=DEMO_SOURCE, location=PYTHON_ENVIRONMENT, questions=demo_questions_file())
    there = {source.name: source for source in registry.list()}.get(DEMO_SOURCE)
    if there is not None and there != wanted:
        registry.remove(DEMO_SOURCE)
    if there != wanted:
        registry.add(wanted)
    built = ingest_and_release(settings, progress)
    service = open_query_service(settings)
    answers = []
    for question in DEMO_QUESTIONS:
        progress(f"asking: {question}")
        answers.append({"question": question, **service.ask(question, wanted.tenant).to_dict()})
    return built | {"answers": answers}
