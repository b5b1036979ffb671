"""Answers the questions of a batch that have no answer yet, shard by shard."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from common.progress import Progress
from inference.answering.answer import AnswerRecord, BatchPlace, answer_prompts, cited_answer
from inference.answering.query_service import QueryService, QueryServiceResult, answered_release
from inference.batch.question_set import BatchQuestion, FailedQuestion, QuestionSet
from inference.engines.protocol import AdapterChoice, EngineError, EnginePrompt, EngineReply
from retrieval.index.types import IndexRelease, UnknownIndexRelease
from retrieval.search.as_of import InvalidAsOf
from retrieval.search.query import InvalidSearchQuery
from retrieval.search.searcher import QueryModelMismatch

_SEARCHES_AT_ONCE = 4
"""As many as a process has connections to the index."""


@dataclass(frozen=True)
class BatchOutcome:
    """What became of a batch.

    Attributes:
        name: The name of the batch.
        questions: How many questions it has.
        answered: How many of them have an answer now, or the reason why there is none, such as a refusal.
        computed: How many of these this run answered; the others had been answered before.
        failed: The questions without an answer.
        shards: How many shards this run committed.
        seconds: How long it took.
        retrieval_s: How much of that was the search for passages.
        keeping_s: How much of that was making answers safe: the journal and the commits.
    """

    name: str
    questions: int
    answered: int
    computed: int
    failed: tuple[FailedQuestion, ...]
    shards: int
    seconds: float
    retrieval_s: float = 0.0
    keeping_s: float = 0.0

    @property
    def engine_s(self) -> float:
        """How much of the time was the engine's: the rest."""
        return self.seconds - self.retrieval_s - self.keeping_s

    @property
    def questions_per_s(self) -> float:
        """Questions that this run answered, per second."""
        return self.computed / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of `headwater answers run --json`."""
        return {
            "name": self.name,
            "questions": self.questions,
            "answered": self.answered,
            "failed": len(self.failed),
            "shards": self.shards,
            "seconds": round(self.seconds, 3),
            "questions_per_s": round(self.questions_per_s, 3),
        }


@dataclass(frozen=True)
class _Planned:
    question: BatchQuestion
    release: IndexRelease
    place: BatchPlace
    adapted: AdapterChoice | None


def answer_batch(
    name: str,
    questions: QuestionSet,
    service: QueryService,
    answered_ids: Collection[str],
    keep: Callable[[AnswerRecord], object],
    commit: Callable[[], object],
) -> BatchOutcome:
    """Answers the questions of a batch that have no answer yet.

    A question's answer has an id that is a hash of the batch, the question, the release, the engine and the
    settings of retrieval, so a run that follows a killed one, or one over the same release, computes only
    what is missing.

    Args:
        name: The name of the batch.
        questions: Its questions.
        service: The query service that `headwater ask` uses.
        answered_ids: The ids of the answers that the batch has.
        keep: Called with each answer as it comes; it makes the answer safe.
        commit: Called after each shard; it commits what was kept.

    Raises:
        NoLiveSnapshot: Nothing is released yet.
        EngineError: The engine can not be loaded, or is not the one that was approved.
        RerankError: There is no reranker where one is configured.
    """
    began = time.monotonic()
    planned, failed = _plan(name, questions.questions, service)
    missing = [each for each in planned if each.place.answer_id not in answered_ids]
    failed = [*questions.invalid, *failed]
    answered, shards = len(planned) - len(missing), 0
    progress = Progress("questions answered", len(missing))
    retrieval, keeping = _Stopwatch(), _Stopwatch()
    for shard in _shards(missing, service.engine_config.shard_questions):
        with retrieval:
            prompts, unsearched = _retrieve(shard, service)
        failed += unsearched
        progress.advance(len(unsearched))
        asked = [
            EnginePrompt(each.question.question, passages.hits, _sharing_key(each), each.adapted)
            for each, passages in prompts
        ]
        for reply in answer_prompts(service.engine, asked):
            each, passages = prompts[reply.index]
            if reply.failure is not None:
                failed.append(FailedQuestion(each.question.id, reply.failure))
            else:
                with keeping:
                    keep(_record(each, passages, reply, service))
                answered += 1
            progress.advance()
        with keeping:
            commit()
        shards += 1
    return BatchOutcome(
        name=name,
        questions=len(questions),
        answered=answered,
        computed=answered - (len(planned) - len(missing)),
        failed=tuple(failed),
        shards=shards,
        seconds=time.monotonic() - began,
        retrieval_s=retrieval.seconds,
        keeping_s=keeping.seconds,
    )


class _Stopwatch:
    """Adds up the seconds spent in `with` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.monotonic() - self._began


def _plan(
    name: str, questions: Sequence[BatchQuestion], service: QueryService
) -> tuple[list[_Planned], list[FailedQuestion]]:
    """Returns the questions with the release that each is asked of, and those that have none."""
    live, tenants = service.live_release(), service.index.tenants()
    releases: dict[str | None, IndexRelease] = {None: live}
    adapters: dict[str, AdapterChoice | None] = {}
    planned, failed = [], []
    for question in questions:
        if question.tenant not in tenants:
            reason = f"the tenant {question.tenant!r} has no documents: `headwater source list` shows tenants"
            failed.append(FailedQuestion(question.id, reason))
            continue
        try:
            if question.as_of not in releases:
                releases[question.as_of] = service.release_as_of(question.as_of or "")
            if question.tenant not in adapters:
                adapters[question.tenant] = service.adapter_of(question.tenant)
        except (InvalidAsOf, UnknownIndexRelease, EngineError) as error:
            failed.append(FailedQuestion(question.id, str(error)))
            continue
        release, adapted = releases[question.as_of], adapters[question.tenant]
        generator = service.engine.digest
        if adapted and adapted.adapter:
            generator = f"{generator} {adapted.adapter.digest}"
        answer_id = _answer_id(name, question, release, generator, service.retrieval.digest)
        place = BatchPlace(name, question.id, answer_id)
        planned.append(_Planned(question, release, place, adapted))
    return planned, failed


def _answer_id(
    name: str, question: BatchQuestion, release: IndexRelease, generator: str, retrieval: str
) -> str:
    """Returns the id of a question's answer: 32 hex digits."""
    asked = question.model_dump(mode="json", exclude={"as_of"})
    model = release.details.model_digest
    key = json.dumps([name, asked, release.release_id, model, generator, retrieval], sort_keys=True)
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _sharing_key(planned: _Planned) -> str:
    """Returns what prompts must have in common to share what is computed of them: tenant, groups, release."""
    question = planned.question
    return json.dumps([question.tenant, sorted(question.groups), planned.release.release_id])


def _shards(planned: Sequence[_Planned], size: int) -> Iterator[Sequence[_Planned]]:
    """Yields up to `size` questions at a time, all of one release: a commit names one."""
    for release_id in dict.fromkeys(each.release.release_id for each in planned):
        of_release = [each for each in planned if each.release.release_id == release_id]
        for start in range(0, len(of_release), size):
            yield of_release[start : start + size]


def _retrieve(
    shard: Sequence[_Planned], service: QueryService
) -> tuple[list[tuple[_Planned, QueryServiceResult]], list[FailedQuestion]]:
    """Returns the passages of each question of a shard, and the questions that can't be searched for."""
    try:
        vectors = service.embed_questions([each.question.question for each in shard], shard[0].release)
    except QueryModelMismatch as error:
        return [], [FailedQuestion(each.question.id, str(error)) for each in shard]

    def searched(place: int) -> QueryServiceResult | FailedQuestion:
        question = shard[place].question
        try:
            return service.retrieve_passages(
                *(question.question, question.tenant, shard[place].release, question.groups),
                vector=vectors[place],
            )
        except InvalidSearchQuery as error:
            return FailedQuestion(question.id, str(error))

    # A reranker has a time limit, and uses all cores by itself.
    with ThreadPoolExecutor(1 if service.retrieval.mode == "reranked" else _SEARCHES_AT_ONCE) as threads:
        found = list(zip(shard, threads.map(searched, range(len(shard))), strict=True))
    return (
        [(each, result) for each, result in found if isinstance(result, QueryServiceResult)],
        [result for _, result in found if isinstance(result, FailedQuestion)],
    )


def _record(
    planned: _Planned, passages: QueryServiceResult, reply: EngineReply, service: QueryService
) -> AnswerRecord:
    question, release, place = planned.question, planned.release, planned.place
    answer = cited_answer(reply, passages.hits, answered_release(release), place.answer_id)
    return service.answer_record(
        question.question, question.tenant, release, question.groups, passages, answer, place
    )
