"""`headwater evaluate-answers`: asks engines a collection's questions, as `ask` does, and measures."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from inference.engines.digest import model_files_digest
from inference.engines.generator import EngineConfig, Tier, build_engine, engine_name
from inference.engines.protocol import Adapter, EngineError
from inference.engines.worker.engine import Workplace
from inference.scoring.answer_scorer import PACKAGED_ANSWER_SCORER
from orchestration.answer_evaluation.asking import AskedEngine, MeasureJournal, measure_answers
from orchestration.answer_evaluation.passages import find_passages
from orchestration.settings import Settings
from orchestration.unlearned import searching_versions, unlearned_questions
from quality.evaluation.answer_collection import AnswerCollection
from quality.evaluation.answer_evaluation import AnswerEvaluation, UnknownAnswerEngine, evaluate_answers
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.release_log import ReleaseLog
from retrieval.store.postgres import Postgres
from training.registry.live_adapters import LiveAdapters, registered_adapter

NO_ADAPTER = "none"
"""Stands for the base alone, where an adapter is named."""


def answer_engine_configs(settings: Settings) -> dict[str, EngineConfig]:
    """Returns the engines that can be asked, by name: the extractive one, each tier, and what `ask` uses."""
    whole = settings.generator
    tiers: list[Tier] = ["extractive", *whole.order]
    alone = [whole.model_copy(update={"tiers": [tier], "router_examples": None}) for tier in tiers]
    return {engine_name(config): config for config in (*alone, whole)}


@dataclass(frozen=True)
class PlannedEngine:
    """An engine that is to be asked.

    Attributes:
        config: Its configuration.
        adapter: The adapter that its local model answers with; None for the base alone.
        base: The name of the same engine without the adapter; None where it has none.
    """

    config: EngineConfig
    adapter: Adapter | None = None
    base: str | None = None


def plan_engines(
    settings: Settings,
    collection: AnswerCollection,
    tenant: str,
    engine: str | None = None,
    adapter: str | None = None,
) -> dict[str, PlannedEngine]:
    """Returns the engines that an evaluation asks, by name; nothing is loaded yet.

    Each one with a local model is asked without an adapter, and with one where there is one to measure.

    Args:
        settings: The settings.
        collection: The questions.
        tenant: Whose documents are asked, where the questions are to the lake.
        engine: The only engine that is asked; None for all.
        adapter: `NAME@VERSION`, `NAME@live` or a digest; `none`; or None for the one that answers the
            tenant's questions now, where they are to the lake.

    Raises:
        UnknownAnswerEngine: An engine of that name is not configured.
        UnknownModel: There is no such version, or it is no generator's.
        ModelNotTrusted: Its files are not those that were signed.
        EngineError: No local model answers, the adapter is for another one, or the live one can't be had.
    """
    known = answer_engine_configs(settings)
    if engine is not None and engine not in known:
        raise UnknownAnswerEngine(
            f"there is no engine {engine!r}; there are {', '.join(known)} "
            "(HEADWATER_GENERATOR__MODEL or HEADWATER_GENERATOR__ENDPOINT sets another)"
        )
    found = _planned_adapter(settings, collection, tenant, adapter)
    planned = {}
    for name, config in known.items():
        if engine in (None, name):
            planned[name] = PlannedEngine(config)
            if found and "local" in config.order:
                alone = config.order == ["local"]
                with_adapter = found.address if alone else f"{name} with {found.address}"
                planned[with_adapter] = PlannedEngine(config, found, name)
    return planned


def _planned_adapter(
    settings: Settings, collection: AnswerCollection, tenant: str, named: str | None
) -> Adapter | None:
    model = settings.generator.model if "local" in settings.generator.order else None
    if named == NO_ADAPTER or (named is None and (model is None or collection.kind != "questions")):
        return None
    registry = settings.training_place.registry
    if named is None:
        log = ReleaseLog(Postgres(settings.home, settings.postgres))
        live = LiveAdapters(registry, log).of(tenant)
        return live.adapter if live else None
    adapter = registered_adapter(registry, registry.find(named))
    if model is None:
        raise EngineError(
            f"{adapter.address} is an adapter of a local model, and none answers: set "
            "HEADWATER_GENERATOR__MODEL to its base"
        )
    from inference.engines.adapter_files import require_base  # imports torch, which takes seconds

    require_base(adapter.folder, model, model_files_digest(model))
    return adapter


def adapter_beside_base(planned: Mapping[str, PlannedEngine]) -> tuple[str, str] | None:
    """Returns the names of an engine with an adapter and of the same one without; None where none has one."""
    return next(((name, each.base) for name, each in planned.items() if each.base), None)


def evaluate_answers_of_engines(
    settings: Settings,
    collection: AnswerCollection,
    tenant: str,
    planned: Mapping[str, PlannedEngine],
    progress: Callable[[str], None],
) -> AnswerEvaluation:
    """Returns the evaluation of engines on a collection; no answer is recorded.

    Args:
        settings: The settings, with the generator and the embedder.
        collection: The questions. Passages of its own are indexed in a scratch server that is removed.
        tenant: Whose documents are asked, where the questions are to the lake.
        planned: The engines, by name, as `plan_engines` returns them.
        progress: Called with lines about progress.

    Raises:
        NoLiveSnapshot: The questions are to the lake, and nothing is released.
        EngineError: An engine fails.
    """
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    engines: dict[str, AskedEngine] = {}
    for name, each in planned.items():  # a base comes before what has an adapter over it, and is loaded once
        loaded = engines[each.base] if each.base else asked_engine(settings, each.config, model)
        engines[name] = replace(loaded, adapter=each.adapter)
    return evaluate_engines(settings, model, collection, tenant, engines, progress)


def evaluate_adapters(
    settings: Settings,
    collection: AnswerCollection,
    tenant: str,
    adapters: Mapping[str, Adapter | None],
    progress: Callable[[str], None],
) -> AnswerEvaluation:
    """Returns the evaluation of the local model with each of several adapters.

    Args:
        settings: The settings, which name the local model.
        collection: The questions.
        tenant: Whose documents are asked, where the questions are to the lake.
        adapters: The adapters, by what the evaluation calls them; None for the base alone.
        progress: Called with lines about progress.

    Raises:
        NoLiveSnapshot: The questions are to the lake, and nothing is released.
        EngineError: The model fails.
    """
    alone = settings.generator.model_copy(update={"tiers": ["local"], "router_examples": None})
    model = EmbeddingModel.of(settings.recipe.embedder, settings.home)
    base = asked_engine(settings, alone, model)
    engines = {name: replace(base, adapter=adapter) for name, adapter in adapters.items()}
    return evaluate_engines(settings, model, collection, tenant, engines, progress)


def asked_engine(settings: Settings, config: EngineConfig, model: EmbeddingModel) -> AskedEngine:
    """Returns the engine of a configuration, as it is asked; a local model is loaded here.

    Raises:
        EngineError: It can't be loaded.
    """
    engine = build_engine(config, model.embedder, Workplace(settings.worker_dir))
    # What answers one after the other is asked so: then the time of each is known.
    at_once = 1 if config.order == ["extractive"] else config.shard_questions
    scorer = config.extractive.scorer or PACKAGED_ANSWER_SCORER
    return AskedEngine(engine, at_once, scorer=scorer if "extractive" in config.order else None)


def serving_engine(
    settings: Settings, config: EngineConfig, model: EmbeddingModel, tenant: str
) -> AskedEngine:
    """Returns the engine of a configuration as it answers a tenant's questions: with the live adapter.

    Raises:
        EngineError: It can't be loaded, or the adapter's files are not those that were signed.
    """
    asked = asked_engine(settings, config, model)
    if "local" not in config.order:
        return asked
    log = ReleaseLog(Postgres(settings.home, settings.postgres))
    live = LiveAdapters(settings.training_place.registry, log).of(tenant)
    return replace(asked, adapter=live.adapter if live else None)


def evaluate_engines(
    settings: Settings,
    model: EmbeddingModel,
    collection: AnswerCollection,
    tenant: str,
    engines: Mapping[str, AskedEngine],
    progress: Callable[[str], None],
) -> AnswerEvaluation:
    """Returns the evaluation of engines on a collection, all of them from the same passages.

    What one of their adapters or scorers, or the embedder, learned from is left out.

    One that was stopped goes on where it was when it is run again.

    Args:
        settings: The settings.
        model: The embedder.
        collection: The questions.
        tenant: Whose documents are asked, where the questions are to the lake.
        engines: The engines, by name.
        progress: Called with lines about progress.

    Raises:
        NoLiveSnapshot: The questions are to the lake, and nothing is released.
        EngineError: An engine fails.
        NothingHeldOut: One of them learned from all questions.
    """
    registry = settings.training_place.registry
    adapters = {each.adapter.address for each in engines.values() if each.adapter}
    versions = [*searching_versions(settings), *map(registry.find, sorted(adapters))]
    scorers = {each.scorer for each in engines.values() if each.scorer}
    collection = unlearned_questions(registry, versions, collection, progress, sorted(scorers))
    found = find_passages(settings, model.digest, collection, tenant, progress)
    journal = answers_journal(settings, collection, tenant)
    measured = {}
    for name, each in engines.items():
        progress(f"{name}: {len(found.questions)} questions")
        measured[name] = measure_answers(name, each, found, journal)
    journal.remove()
    return evaluate_answers(collection, measured)


def answers_journal(settings: Settings, collection: AnswerCollection, tenant: str) -> MeasureJournal:
    """Returns what an evaluation of these questions kept before it was stopped, to go on with."""
    asked = json.dumps([collection.name, tenant, [each.text for each in collection.questions]])
    kept_as = hashlib.sha256(asked.encode("utf-8", "replace")).hexdigest()[:16]
    return MeasureJournal(settings.home / "evaluations" / f"answers-{kept_as}.jsonl")
