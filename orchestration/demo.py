"""The demo: a lake from the software installed beside it, and questions answered, cited and traced."""

from collections.abc import Callable
from importlib import resources
from typing import Any

from assets.report import funnel
from assets.transforms.registry import ENVIRONMENT, Source, SourceRegistry
from orchestration.answering import Desk
from orchestration.runs import RunFailed, execute
from orchestration.settings import Settings, open_lake

SOURCE = "demo"
QUESTIONS = (
    "What does the nonlocal statement do?",
    "Which library turns a PDF page into an image?",
    "How is the temperature in Paris today?",
)
"""Two that the corpus answers and one that it can not."""


def questions_file() -> str:
    """The packaged evaluation questions about the demo's corpus."""
    return str(resources.files("orchestration") / "demo_questions.jsonl")


def build(settings: Settings, progress: Callable[[str], None]) -> dict[str, Any]:
    """Brings everything up to date from the sources to the release.

    Returns:
        `funnel`, `release`, `metrics` and `seconds` as `headwater ingest --json` prints them.

    Raises:
        RunFailed: When a step failed or a gate held; what was live stays live.
    """
    outcome = execute(settings, None, progress)
    if outcome.failures:
        raise RunFailed("\n".join(outcome.failures))
    release = Desk(settings).live()
    return {
        "funnel": funnel(open_lake(settings)),
        "release": release.release_id,
        "metrics": release.details["metrics"],
        "seconds": outcome.seconds,
        "run_id": outcome.run_id,
    }


def demo(settings: Settings, progress: Callable[[str], None]) -> dict[str, Any]:
    """Builds the demo's lake and asks it three questions.

    Returns:
        What `headwater demo --json` prints.

    Raises:
        RunFailed: As in `build`.
    """
    registry = SourceRegistry(settings.sources_file)
    wanted = Source(name=SOURCE, location=ENVIRONMENT, questions=questions_file())
    there = {source.name: source for source in registry.list()}.get(SOURCE)
    if there is not None and there != wanted:
        registry.remove(SOURCE)
    if there != wanted:
        registry.add(wanted)
    built = build(settings, progress)
    desk = Desk(settings)
    answers = []
    for question in QUESTIONS:
        progress(f"asking: {question}")
        answers.append({"question": question, **desk.ask(question, wanted.tenant).to_dict()})
    return built | {"answers": answers}
