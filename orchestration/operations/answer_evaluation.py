"""`headwater evaluate-answers`: asks engines a collection's questions, as `ask` does, and measures."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from assets.engine_releases import (
    EngineNotReleasable,
    EngineRelease,
    decided_engine,
    engine_standing,
    log_engine_decision,
)
from assets.lake.tables import ENGINE_RELEASES
from assets.release_evaluation import canonical_candidate_documents
from inference.answering.answer import AnsweredRelease, CitablePassage, answer_question
from inference.answering.query_service import PASSAGES_PER_QUESTION, answered_release
from inference.engines.generator import EngineConfig, Tier, build_engine, engine_name
from inference.engines.protocol import Engine
from inference.engines.worker_engine import Workplace
from orchestration.operations.ask import open_ask_service
from orchestration.operations.scratch_index import open_scratch_index
from orchestration.settings import Settings, open_configured_lake
from quality.evaluation.answer_collection import AnswerCollection, AnswerQuestion
from quality.evaluation.answer_evaluation import (
    AnswerEvaluation,
    JudgedAnswer,
    UnknownAnswerEngine,
    evaluate_answers,
)
from quality.evaluation.engine_gate import decide_engine_release
from retrieval.chunking.sentences import sentence_spans
from retrieval.embedding.embedding_model import EmbeddingModel


@runtime_checkable
class _RankingEngine(Protocol):
    """An engine that can rank sentences as it does to choose what it quotes."""

    def rank(self, question: str, sentences: Sequence[str]) -> npt.NDArray[np.float32]:
        """Returns the score of each sentence."""
        ...


@dataclass(frozen=True)
class _PassageSource:
    """Where the passages for a question come from, and the release that answers are given from."""

    retrieve: Callable[[AnswerQuestion], Sequence[CitablePassage]]
    release: AnsweredRelease


@dataclass(frozen=True)
class _GivenPassage:
    """A passage that a question brings, in the form of a search hit."""

    text: str
    doc_id: str
    title: None = None
    heading: None = None
    char_start: int = 0
    content_sha256: str = ""

    @property
    def char_end(self) -> int:
        return len(self.text)

    @property
    def chunk_id(self) -> str:
        return self.doc_id

    @property
    def uri(self) -> str:
        return self.doc_id


def answer_engine_configs(settings: Settings) -> dict[str, EngineConfig]:
    """Returns the engines that can be asked, by name: the extractive one, each tier, and what `ask` uses."""
    whole = settings.generator
    tiers: list[Tier] = ["extractive", *whole.order]
    alone = [whole.model_copy(update={"tiers": [tier], "router_examples": None}) for tier in tiers]
    return {engine_name(config): config for config in (*alone, whole)}


def evaluate_answers_of_engines(
    settings: Settings,
    collection: AnswerCollection,
    tenant: str,
    names: Sequence[str] | None,
    progress: Callable[[str], None],
) -> AnswerEvaluation:
    """Returns the evaluation of engines on a collection; no answer is recorded.

    Args:
        settings: The settings, with the generator and the embedder.
        collection: The questions. Passages of its own are indexed in a scratch server that is removed.
        tenant: Whose documents are asked, where the questions are to the lake.
        names: The engines; None for all.
        progress: Called with lines about progress.

    Raises:
        UnknownAnswerEngine: An engine of that name is not configured.
        NoLiveSnapshot: The questions are to the lake, and nothing is released.
        EngineError: An engine fails.
    """
    known = answer_engine_configs(settings)
    for name in names or ():
        if name not in known:
            raise UnknownAnswerEngine(
                f"there is no engine {name!r}; there are {', '.join(known)} "
                "(HEADWATER_GENERATOR__MODEL or HEADWATER_GENERATOR__ENDPOINT sets another)"
            )
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    engines = {
        name: build_engine(known[name], model.embedder, Workplace(settings.worker_dir))
        for name in names or known
    }
    return _evaluate(settings, model, collection, tenant, engines, progress)


@dataclass(frozen=True)
class GatedEngine:
    """What the gate decided about the configured engine.

    Attributes:
        decision: The decision, as it is recorded.
        live: The engine that it was measured beside; None if it answers already, so that nothing was.
        evaluation: The evaluation of both; None likewise.
    """

    decision: EngineRelease
    live: EngineRelease | None = None
    evaluation: AnswerEvaluation | None = None


def gate_engine(
    settings: Settings, collection: AnswerCollection, tenant: str, progress: Callable[[str], None]
) -> GatedEngine:
    """Measures the configured engine beside the live one, and has it answer if it is not worse.

    Where no engine was released yet, the extractive engine with its default settings is released first.

    Args:
        settings: The settings.
        collection: The questions.
        tenant: Whose documents are asked, where the questions are to the lake.
        progress: Called with lines about progress.

    Raises:
        EngineNotReleasable: The live engine can't be had as it was released, the configured one can't be
            stored, or neither answers anything.
        EngineError: An engine fails.
        WriteConflict: Another decision was recorded meanwhile; this one was not.
    """
    lake = open_configured_lake(settings)
    token = lake.fencing_token(ENGINE_RELEASES)
    live = engine_standing(lake, settings.generator).live
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    if live is None:
        default = build_engine(EngineConfig(), model.embedder)
        reason = "the default engine, as the first"
        live = log_engine_decision(lake, decided_engine(default, EngineConfig(), "released", reason), token)
        token += 1
    candidate = build_engine(settings.generator, model.embedder, Workplace(settings.worker_dir))
    if candidate.digest == live.generator_digest:
        return GatedEngine(live)
    before = build_engine(live.config, model.embedder, Workplace(settings.worker_dir))
    if before.digest != live.generator_digest:
        raise EngineNotReleasable(
            f"{live.engine} is not what was released: its model's files, or Headwater, have changed, and "
            "nothing can be measured beside it. `headwater engines promote --reason …` has the configured "
            "engine answer"
        )
    names = (f"{candidate.name} {candidate.digest}", f"{before.name} {before.digest}")
    pair = dict(zip(names, (candidate, before), strict=True))
    evaluation = _evaluate(settings, model, collection, tenant, pair, progress)
    if all(each.mean("refused") == 1.0 for each in evaluation.engines.values()):
        raise EngineNotReleasable(
            f"neither engine answers any question of {collection.name}: ask what the documents answer"
        )
    gains = evaluation.compare(*names)
    verdict = decide_engine_release(gains, settings.recipe.engine_gate)
    measured = {measure: evaluation.engines[names[0]].mean(measure) for measure in gains}
    decision = decided_engine(
        candidate,
        settings.generator,
        "released" if verdict.released else "held",
        verdict.reason,
        f"{collection.name}: {evaluation.questions} questions",
        {name: mean for name, mean in measured.items() if mean is not None},
        gains,
    )
    return GatedEngine(log_engine_decision(lake, decision, token), live, evaluation)


def promote_engine(settings: Settings, reason: str) -> EngineRelease:
    """Has the configured engine answer, measured or not; it is loaded to know that it can.

    Raises:
        EngineNotReleasable: It can't be stored, or no reason is given.
        EngineError: It can't be loaded.
        WriteConflict: Another decision was recorded meanwhile.
    """
    lake = open_configured_lake(settings)
    token = lake.fencing_token(ENGINE_RELEASES)
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    engine = build_engine(settings.generator, model.embedder, Workplace(settings.worker_dir))
    return log_engine_decision(lake, decided_engine(engine, settings.generator, "promoted", reason), token)


def _evaluate(
    settings: Settings,
    model: EmbeddingModel,
    collection: AnswerCollection,
    tenant: str,
    engines: Mapping[str, Engine],
    progress: Callable[[str], None],
) -> AnswerEvaluation:
    def evaluate(asked: AnswerCollection, source: _PassageSource) -> AnswerEvaluation:
        answers = {name: partial(_answer, source, engine) for name, engine in engines.items()}
        return evaluate_answers(asked, answers, sentence_spans, progress)

    if collection.kind == "questions":
        return evaluate(*_of_the_lake(settings, collection, tenant))
    release = AnsweredRelease("evaluation", model.digest, 0)
    if collection.searched is None:
        return evaluate(collection, _PassageSource(_given_passages, release))
    with open_scratch_index(settings, collection.searched, "default", progress) as index:

        def search(question: AnswerQuestion) -> Sequence[CitablePassage]:
            if settings.reranker.configured:
                return index.rerank(question.text, PASSAGES_PER_QUESTION)
            return index.search("hybrid", question.text, PASSAGES_PER_QUESTION)

        return evaluate(collection, _PassageSource(search, release))


def _of_the_lake(
    settings: Settings, collection: AnswerCollection, tenant: str
) -> tuple[AnswerCollection, _PassageSource]:
    """The questions with canonical documents as gold, and the live release as the source of passages."""
    service = open_ask_service(settings)
    live = service.live_release()
    versions = live.details.versions
    canonical: Mapping[str, str] = {}
    if any(each.gold for each in collection.questions):
        canonical = canonical_candidate_documents(open_configured_lake(settings), versions).get(tenant, {})
    questions = tuple(
        replace(each, gold=tuple(canonical.get(name, name) for name in each.gold))
        for each in collection.questions
    )
    source = _PassageSource(
        lambda question: service.retrieve_passages(question.text, tenant, live).hits,
        answered_release(live),
    )
    return replace(collection, questions=questions), source


def _given_passages(question: AnswerQuestion) -> Sequence[CitablePassage]:
    return [_GivenPassage(text, f"passage-{n}") for n, text in enumerate(question.passages or (), 1)]


def _answer(source: _PassageSource, engine: Engine, question: AnswerQuestion) -> JudgedAnswer:
    began = time.perf_counter()
    if question.candidates:
        scores = None
        if isinstance(engine, _RankingEngine):
            scores = engine.rank(question.text, question.candidates)
        return JudgedAnswer("", False, seconds=time.perf_counter() - began, scores=scores)
    answer = answer_question(question.text, source.retrieve(question), engine, source.release)
    return JudgedAnswer(
        answer.answer,
        answer.refused,
        tuple(each.doc_id for each in answer.citations),
        tuple(each.quote for each in answer.citations),
        time.perf_counter() - began,
    )
