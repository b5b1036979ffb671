"""`headwater evaluate-answers --gate`, `engines promote`: which engine answers, by measure or by a person."""

from collections.abc import Callable
from dataclasses import dataclass

from assets.engine_releases import (
    EngineNotReleasable,
    EngineRelease,
    decided_engine,
    engine_standing,
    log_engine_decision,
)
from assets.lake.tables import ENGINE_RELEASES
from inference.engines.generator import EngineConfig, build_engine
from inference.engines.worker.engine import Workplace
from orchestration.answer_evaluation.evaluation import evaluate_engines, serving_engine
from orchestration.settings import Settings, open_configured_lake
from quality.evaluation.answer_collection import AnswerCollection
from quality.evaluation.answer_evaluation import AnswerEvaluation
from quality.evaluation.engine_gate import decide_engine_release
from retrieval.embedding.embedding_model import EmbeddingModel


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
    asked = serving_engine(settings, settings.generator, model, tenant)
    candidate = asked.engine
    if candidate.digest == live.generator_digest:
        return GatedEngine(live)
    asked_before = serving_engine(settings, live.config, model, tenant)
    before = asked_before.engine
    if before.digest != live.generator_digest:
        raise EngineNotReleasable(
            f"{live.engine} is not what was released: its model's files, or Headwater, have changed, and "
            "nothing can be measured beside it. `headwater engines promote --reason …` has the configured "
            "engine answer"
        )
    names = (f"{candidate.name} {candidate.digest}", f"{before.name} {before.digest}")
    pair = dict(zip(names, (asked, asked_before), strict=True))
    evaluation = evaluate_engines(settings, model, collection, tenant, pair, progress)
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
