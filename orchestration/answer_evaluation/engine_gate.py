"""Which engine answers: by measure (`evaluate-answers --gate`), or by a person (`engines promote`)."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from assets.engine_releases import (
    EngineNotReleasable,
    EngineRelease,
    decided_engine,
    engine_releases,
    engine_standing,
    log_engine_decision,
    roll_back_engine,
)
from inference.answering.query_service import require_approved
from inference.answering.retrieval_settings import RetrievalSettings
from inference.engines.generator import EngineConfig, approval_digest, build_engine
from inference.engines.worker.engine import Workplace
from orchestration.answer_evaluation.asking import AskedEngine
from orchestration.answer_evaluation.evaluation import evaluate_engines, serving_engine
from orchestration.settings import Settings, open_configured_lake
from quality.evaluation.answer_collection import AnswerCollection
from quality.evaluation.answer_evaluation import AnswerEvaluation
from quality.evaluation.engine_gate import decide_engine_release
from quality.evaluation.verdict import deciding_verdict, question_set_digest
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.release_log import ReleaseLog
from retrieval.store.postgres import Postgres


@dataclass(frozen=True)
class GatedEngine:
    """What the gate decided about the configured engine.

    Attributes:
        decision: The decision, as it is recorded.
        live: The engine that it was measured beside; None if it answers already, so that nothing was.
        evaluation: The evaluation of both; None also if the verdict on these questions was known.
    """

    decision: EngineRelease
    live: EngineRelease | None = None
    evaluation: AnswerEvaluation | None = None


def gate_engine(
    settings: Settings, collection: AnswerCollection, tenant: str, progress: Callable[[str], None]
) -> GatedEngine:
    """Measures the configured engine beside the live one, and has it answer if it is shown to be no worse.

    The first questions that decide about a pair of engines go on deciding about it: they are not asked again,
    and what others say is kept as information.

    A local model is asked with the adapter that answers the tenant's questions, as it is when it serves.

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
        ReleaseHeld: Somebody holds what is live.
        ReleaseConflict: Another decision was recorded meanwhile; this one was not.
    """
    lake = open_configured_lake(settings)
    log = ReleaseLog(Postgres(settings.home, settings.postgres))
    since = log.newest_move_id()
    live = engine_standing(engine_releases(log), settings.generator).live
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    retrieval = RetrievalSettings(settings.recipe.search, settings.reranker)
    if live is None:
        default = build_engine(EngineConfig(), model.embedder)
        reason = "the default engine, as the first"
        first = decided_engine(default, EngineConfig(), "released", reason, retrieval)
        live = log_engine_decision(lake, log, first, since)
        since = log.newest_move_id()
    asked = serving_engine(settings, settings.generator, model, tenant)
    candidate = asked.engine
    if (approval_digest(candidate), retrieval.digest) == (live.approval_digest, live.retrieval_digest):
        return GatedEngine(live)
    asked_before = serving_engine(settings, live.config, model, tenant)
    before = asked_before.engine
    if (approval_digest(before), retrieval.digest) != (live.approval_digest, live.retrieval_digest):
        raise EngineNotReleasable(
            f"{live.engine} is not what was released: its model's files, how passages are found for it, or "
            "Headwater have changed, and nothing can be measured beside it. `headwater engines promote "
            "--reason …` has the configured engine answer"
        )
    of_lake = collection.kind == "questions"  # each tenant's documents answer them otherwise
    digest = question_set_digest([tenant if of_lake else "", *collection.questions])
    pair = pair_digest(asked, asked_before, retrieval)
    of_pair = [each for each in reversed(engine_releases(log)) if each.pair_digest == pair]
    verdicts = [each.pair_verdict for each in of_pair]
    deciding = deciding_verdict(filter(None, verdicts))
    if deciding and deciding.questions_digest == digest:
        said = of_pair[verdicts.index(deciding)]
        reason = f"{deciding}: {said.reason}"
        if said.answers:
            reason += (
                f"; by that it answered, and {live.engine} was {live.decision} since: "
                "`headwater engines promote --reason …` has it answer again"
            )
        return GatedEngine(said.model_copy(update={"decision": "held", "reason": reason}), live)
    names = (f"{candidate.name} {candidate.digest}", f"{before.name} {before.digest}")
    asked_engines = dict(zip(names, (asked, asked_before), strict=True))
    evaluation = evaluate_engines(settings, model, collection, tenant, asked_engines, progress)
    if all(each.mean("refused") == 1.0 for each in evaluation.engines.values()):
        raise EngineNotReleasable(
            f"neither engine answers any question of {collection.name}: ask what the documents answer"
        )
    differences = evaluation.differences(*names)
    verdict = decide_engine_release(differences, settings.recipe.engine_gate)
    measured = {measure: evaluation.engines[names[0]].mean(measure) for measure in differences}
    decided = decided_engine(candidate, settings.generator, "held", verdict.reason, retrieval).model_copy(
        update={
            "questions": f"{collection.name}: {evaluation.questions} questions",
            "metrics": {name: mean for name, mean in measured.items() if mean is not None},
            "gains": evaluation.compare(*names),
            "against": live.generator_digest,
            "questions_digest": digest,
            "outcome": verdict.outcome,
            "questions_needed": verdict.questions_needed,
            "pair_digest": pair,
        }
    )
    decides = deciding_verdict(filter(None, [*verdicts, decided.pair_verdict]))
    if decides and decides.questions_digest != digest:
        decided = decided.model_copy(update={"reason": f"{decides.overrules()}; {verdict.reason}"})
    elif verdict.released:
        decided = decided.model_copy(update={"decision": "released"})
    return GatedEngine(log_engine_decision(lake, log, decided, since), live, evaluation)


def pair_digest(candidate: AskedEngine, live: AskedEngine, retrieval: RetrievalSettings) -> str:
    """Returns a digest of two engines as they are asked, in 16 hex digits: another is another measurement."""
    asked = [(each.engine.digest, each.adapter.digest if each.adapter else "") for each in (candidate, live)]
    return hashlib.sha256(json.dumps([*asked, retrieval.digest]).encode()).hexdigest()[:16]


def promote_engine(settings: Settings, reason: str) -> EngineRelease:
    """Has the configured engine answer, measured or not; it is loaded to know that it can.

    Raises:
        EngineNotReleasable: It can't be stored, or no reason is given.
        EngineError: It can't be loaded.
        ReleaseHeld: Somebody holds what is live.
        ReleaseConflict: Another decision was recorded meanwhile.
    """
    lake = open_configured_lake(settings)
    log = ReleaseLog(Postgres(settings.home, settings.postgres))
    since = log.newest_move_id()
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    engine = build_engine(settings.generator, model.embedder, Workplace(settings.worker_dir))
    decision = decided_engine(
        engine,
        settings.generator,
        "promoted",
        reason,
        RetrievalSettings(settings.recipe.search, settings.reranker),
    )
    return log_engine_decision(lake, log, decision, since)


def return_to_engine(settings: Settings, digest: str | None, reason: str) -> EngineRelease:
    """Has an earlier engine answer again; it is made again to know that it is what it was.

    Args:
        settings: The settings.
        digest: The digest of the engine, or its beginning; None for the one that answered before.
        reason: Why, in a sentence.

    Raises:
        EngineNotReleasable: No engine, or no other than the live one, answered before; or several have
            digests with that beginning.
        EngineChanged: Its model's files, its settings, how passages are found, or Headwater have changed.
        EngineError: It can't be loaded.
        ReleaseHeld: Somebody holds what is live.
        ReleaseConflict: Another decision was made at the same time.
    """
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    retrieval = RetrievalSettings(settings.recipe.search, settings.reranker)

    def require_unchanged(release: EngineRelease) -> None:
        engine = build_engine(release.config, model.embedder, Workplace(settings.worker_dir))
        require_approved(engine, retrieval, release.approval)

    lake, log = open_configured_lake(settings), ReleaseLog(Postgres(settings.home, settings.postgres))
    return roll_back_engine(lake, log, digest, reason, require_unchanged)
