"""Asks an engine all questions of an evaluation, many at once, and goes on where one that was stopped was."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from assets.lake.lineage import CODE_VERSION
from common.progress import Progress
from inference.answering.answer import answer_prompts, cited_answer, validate_question
from inference.engines.protocol import Adapter, AdapterChoice, Engine, EngineError, EnginePrompt
from orchestration.answer_evaluation.passages import FoundPassages
from quality.evaluation.answer_evaluation import JudgedAnswer, measure_answer


@runtime_checkable
class _RankingEngine(Protocol):
    """An engine that can rank sentences as it does to choose what it quotes."""

    def rank(self, question: str, sentences: Sequence[str]) -> npt.NDArray[np.float32]:
        """Returns the score of each sentence."""
        ...


@dataclass(frozen=True)
class AskedEngine:
    """An engine, and how it is asked.

    Attributes:
        engine: The engine.
        at_once: How many questions it is given at once.
        adapter: The adapter that its local model answers with; None for the base alone.
        scorer: The weights of the scorer by which it chooses sentences; None where it chooses none.
    """

    engine: Engine
    at_once: int
    adapter: Adapter | None = None
    scorer: Path | None = None


class MeasureJournal:
    """What the answers of an evaluation gave, in a file until it is complete: hashes and figures, no text.

    An evaluation that was stopped, and is run again, asks only what is missing.
    """

    def __init__(self, file: Path) -> None:
        """Reads what an evaluation before kept.

        Args:
            file: The file, of JSON lines. It need not be there.
        """
        self._file = file
        self._known: dict[str, dict[str, float]] = {}
        if file.is_file():
            whole = file.read_bytes()
            end = whole.rfind(b"\n") + 1  # a killed one may have begun a line
            os.truncate(file, end)
            for line in whole[:end].splitlines():
                asked = json.loads(line)
                self._known[asked["key"]] = asked["measured"]

    def find(self, key: str) -> dict[str, float] | None:
        """Returns what an answer gave; None if it is not known."""
        return self._known.get(key)

    def add(self, key: str, measured: Mapping[str, float]) -> None:
        """Keeps what an answer gave."""
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = json.dumps({"key": key, "measured": measured}) + "\n"
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Removes the file: the evaluation is complete."""
        self._file.unlink(missing_ok=True)


def measure_answers(
    name: str, asked: AskedEngine, found: FoundPassages, journal: MeasureJournal
) -> list[dict[str, float]]:
    """Returns what each question's answer gives of the measures, from asking an engine.

    Args:
        name: What the engine is called in the progress that is logged.
        asked: The engine.
        found: The questions with their passages.
        journal: What is known already, and takes what comes.

    Returns:
        `quality.evaluation.answer_evaluation.measure_answer` of each question, with `milliseconds` of search
        and answer, which are not known of what the journal had. Those that are asked at once have equal
        shares of the engine's time.

    Raises:
        EngineError: The engine fails at a question; what it answered before is kept.
    """
    keys = [_key(asked, found, place) for place in range(len(found.questions))]
    rows = {place: known for place, key in enumerate(keys) if (known := journal.find(key)) is not None}
    missing = [place for place in range(len(keys)) if place not in rows]
    progress = Progress(f"questions answered by {name}", len(missing))
    for first in range(0, len(missing), asked.at_once):
        places = missing[first : first + asked.at_once]
        began = time.perf_counter()
        for place, judged in _answered(asked, found, places):
            rows[place] = measure_answer(found.questions[place], judged)
            journal.add(keys[place], rows[place])
            progress.advance()
        share = (time.perf_counter() - began) / len(places)
        for place in places:
            rows[place]["milliseconds"] = 1000 * (found.seconds[place] + share)
    return [rows[place] for place in range(len(keys))]


def _answered(
    asked: AskedEngine, found: FoundPassages, places: Sequence[int]
) -> Iterator[tuple[int, JudgedAnswer]]:
    """Yields the answers to some of the questions as they come, in any order."""
    prompted = [place for place in places if not found.questions[place].candidates]
    for place in set(places) - set(prompted):
        question, scores = found.questions[place], None
        if isinstance(asked.engine, _RankingEngine):
            scores = asked.engine.rank(question.text, question.candidates)
        yield place, JudgedAnswer("", False, scores=scores)
    # The choice names a tenant for the record of an answer, and none is recorded.
    adapted = AdapterChoice("", asked.adapter) if asked.adapter else None
    prompts = [
        EnginePrompt(
            validate_question(found.questions[place].text), found.passages[place], found.sharing_key, adapted
        )
        for place in prompted
    ]
    for reply in answer_prompts(asked.engine, prompts):
        place = prompted[reply.index]
        # A reply that took tokens and is empty is what the engine is like; without one, it was not to be had.
        if reply.failure is not None and reply.draft.usage is None:
            raise EngineError(f"at the question {found.questions[place].text[:200]!r}: {reply.failure}")
        if reply.failure is not None:
            yield place, JudgedAnswer("", False)
            continue
        answer = cited_answer(reply, found.passages[place], found.release)
        yield (
            place,
            JudgedAnswer(
                answer.answer if answer.citations else "",
                answer.refused,
                tuple(each.doc_id for each in answer.citations),
                tuple(each.quote for each in answer.citations),
            ),
        )


def _key(asked: AskedEngine, found: FoundPassages, place: int) -> str:
    """Returns a hash over all that decides what a question's answer gives."""
    said = [
        CODE_VERSION,
        asked.engine.digest,
        asked.adapter.digest if asked.adapter else None,
        found.release.model_digest,
        asdict(found.questions[place]),
        [[each.chunk_id, each.doc_id, each.text] for each in found.passages[place]],
    ]
    return hashlib.sha256(json.dumps(said).encode("utf-8", "replace")).hexdigest()
