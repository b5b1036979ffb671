"""`headwater models`: versions of models, comparing them, and which of them the index is served by.

An embedder is served by the release of the index that was built with it: PostgreSQL's pointer to that release
is the truth about which is live, and moves by compare and swap. Aliases follow it, here and in MLflow.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from assets.lake.releases import log_live_history, make_release_live
from assets.lake.tables import EMBEDDINGS
from assets.ops import releasable_index_state
from orchestration.operations.evaluation import evaluate_in_scratch_index
from orchestration.operations.runs import execute_run
from orchestration.settings import Settings, open_configured_lake
from quality.evaluation.beir_collection import load_beir_collection
from quality.evaluation.collection_evaluation import MEASURES
from quality.evaluation.model_gate import decide_model_release
from quality.evaluation.retrieval_metrics import paired_gain
from retrieval.embedding.config import recorded_model_path
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.index.index import Index
from retrieval.index.types import IndexRelease
from retrieval.store.postgres import Postgres
from training.jobs.embedder_job import follow_models
from training.registry.addresses import embedder_folder
from training.registry.versions import (
    ModelAliases,
    ModelDecision,
    ModelRegistry,
    ModelVersion,
    UnknownModel,
)

_INDEX_SELECTION = 'key:"gold/embeddings" or key:"serving/index"'
_COMPARED_MODES = ("hybrid", "vector")


class ModelNotPromoted(RuntimeError):
    """A version can not be served; the message says why. What was live is."""


@dataclass(frozen=True)
class ServedModel:
    """What became of a promotion or of going back.

    Attributes:
        model: The model's name.
        version: The version that is served; None for a model that is not of the registry.
        release: The release of the index that is live.
        reason: Why.
        pointer_seconds: The time of the change of the pointer, and of its record.
    """

    model: str
    version: int | None
    release: str
    reason: str
    pointer_seconds: float


@dataclass(frozen=True)
class ModelComparison:
    """Two models on one collection.

    Attributes:
        one: The first model.
        other: The one that it is compared with.
        dataset: The collection.
        queries: Its queries.
        figures: By model, its figures by search mode and measure.
        gains: How much the first is above the other, with the ends of the 95% interval.
        approved: Whether the first may be served instead of the other.
        reason: Why, in a sentence.
    """

    one: str
    other: str
    dataset: str
    queries: int
    figures: dict[str, dict[str, float]]
    gains: dict[str, dict[str, float]]
    approved: bool
    reason: str


def model_registry(settings: Settings) -> ModelRegistry:
    """Returns the registry of a state folder."""
    return ModelRegistry(settings.models_folder)


def settings_with_embedder(settings: Settings, name: str) -> Settings:
    """Returns the settings with another embedder, as `embedder_folder` names it; `live` is the one served.

    Raises:
        UnknownModel: There is none of that name.
    """
    if name == "live":
        return settings
    embedder = settings.recipe.embedder.model_copy(
        update={"model": embedder_folder(settings.models_folder, name)}
    )
    return settings.model_copy(update={"recipe": settings.recipe.model_copy(update={"embedder": embedder})})


def follow_live_release(settings: Settings, index: Index, name: str) -> ModelAliases:
    """Has the aliases of a model say what PostgreSQL says about the live release."""
    registry = model_registry(settings)
    numbers = {str(registry.path(each)): each.version for each in registry.versions(name)}
    releases = {each.release_id: _embedder_path(settings, each) for each in index.releases()}
    lived = [releases[each.release_id] for each in index.live_history() if each.release_id in releases]
    live = numbers.get(lived[-1]) if lived else None
    earlier = [numbers[path] for path in lived if path in numbers and numbers[path] != live]
    newest = max(numbers.values(), default=None)
    aliases = ModelAliases(
        live=live,
        previous=earlier[-1] if earlier else None,
        candidate=newest if newest is not None and newest not in (live, *earlier) else None,
    )
    if numbers and aliases != registry.aliases(name):
        registry.set_aliases(name, aliases)
    return aliases


def compare_models(
    settings: Settings, one: str, other: str, data: Path, split: str, progress: Callable[[str], None]
) -> ModelComparison:
    """Measures two models on one collection; where the first is of the registry, the verdict is kept.

    Args:
        settings: The settings of the state folder.
        one: The candidate.
        other: The model that it is compared with; `live` for the one that is served.
        data: A folder in BEIR's layout.
        split: Which judgements.
        progress: Takes a line about what happens.

    Raises:
        UnknownModel: There is no model of a name.
        ModelNotTrusted: A model's files are not those that were signed.
        BadBeirCollection: The folder is not in that layout.
    """
    collection = load_beir_collection(data, split)
    values = {}
    digests = {}
    for name in (one, other):
        of_model = settings_with_embedder(settings, name)
        digests[name] = EmbeddingModel.of(of_model.recipe.embedder, settings.home).digest
        progress(f"evaluating {name}")
        evaluation = evaluate_in_scratch_index(of_model, collection, "default", progress)
        values[name] = {
            f"{mode} {measure}": evaluation.modes[mode].values[measure]
            for mode in _COMPARED_MODES
            for measure in MEASURES
        }
    gains = {key: paired_gain(each - values[other][key]) for key, each in values[one].items()}
    verdict = decide_model_release(gains, settings.recipe.gate.tolerance)
    registry = model_registry(settings)
    version = next(
        (
            each
            for name in registry.names()
            for each in registry.versions(name)
            if each.digest == digests[one] or str(registry.path(each)) == str(_path(settings, one))
        ),
        None,
    )
    if version:
        registry.log_decision(
            version.name,
            ModelDecision(
                version=version.version,
                decision="approved" if verdict.released else "refused",
                reason=verdict.reason,
                against=digests[other],
                dataset=f"{collection.name}/{split}",
                gains=gains,
                decided_at=datetime.now(UTC),
            ),
        )
    figures = {
        name: {key: float(each.mean()) for key, each in measured.items()} for name, measured in values.items()
    }
    return ModelComparison(
        one, other, collection.name, len(collection.queries), figures, gains, verdict.released, verdict.reason
    )


def promote_model(
    settings: Settings, address: str, reason: str, progress: Callable[[str], None]
) -> ServedModel:
    """Has a version be served, together with the index that is built with it.

    The index is built first, beside the live one, where there is none of these table versions; then the
    pointer moves to it, if the release that the version was compared with still is live.

    Args:
        settings: The settings of the state folder.
        address: The version.
        reason: Why, in a sentence.
        progress: Takes a line about what happens.

    Raises:
        UnknownModel: There is no such version.
        ModelNotTrusted: Its files are not those that were signed.
        ModelNotPromoted: It was not compared with the live model, or is not good enough, or its index is not.
        IndexConflict: Another release went live meanwhile.
    """
    registry = model_registry(settings)
    version = registry.find(address)
    with_candidate = settings_with_embedder(settings, address)
    model = EmbeddingModel.of(with_candidate.recipe.embedder, settings.home)
    index = Index(Postgres(settings.home, settings.postgres))
    live = _require_reason_and_live(index, reason)
    if live.details.model_digest == model.digest:
        return ServedModel(version.name, version.version, live.release_id, "it is live already", 0.0)
    _require_approval(registry, version, live)
    lake = open_configured_lake(settings)
    kept = [
        each
        for each in index.releases()
        if each.details.model_digest == model.digest and _tables(each) == _tables(live)
    ]
    if not kept:
        progress(f"building the index with {version.address}, beside the live one")
        outcome = execute_run(with_candidate, _INDEX_SELECTION, progress)
        if outcome.failures:
            raise ModelNotPromoted(f"{version.address} is not served: {'; '.join(outcome.failures)}")
    said = f"{version.address} promoted: {reason.strip()}"
    began = time.perf_counter()
    if kept:
        made = index.rollback(kept[0].release_id, expected=live.release_id)
        log_live_history(lake, index, "", said)
    else:
        state = releasable_index_state(index, with_candidate.recipe, model)
        made = make_release_live(lake, index, state, "", model, live.release_id, said)
    seconds = time.perf_counter() - began
    if made.details.model_digest != model.digest:
        raise ModelNotPromoted(
            f"the index of {version.address} was live before and is no longer kept: `headwater run` makes "
            "another when documents change"
        )
    return _decided(settings, index, version, "promoted", made, reason, seconds, progress)


def roll_back_model(
    settings: Settings, name: str, reason: str, progress: Callable[[str], None]
) -> ServedModel:
    """Has the model be served that was before the live one, with the index that was built with it.

    Raises:
        UnknownModel: There is no model of that name.
        ModelNotPromoted: No release of another model is kept.
        IndexConflict: Another release went live meanwhile.
    """
    registry = model_registry(settings)
    if name not in registry.names():
        raise UnknownModel(
            f"there is no model {name!r}; there are {', '.join(registry.names()) or 'none yet'}"
        )
    index = Index(Postgres(settings.home, settings.postgres))
    live = _require_reason_and_live(index, reason)
    releases = {each.release_id: each for each in index.releases()}
    before = [
        releases[each.release_id]
        for each in index.live_history()
        if each.release_id in releases
        and releases[each.release_id].details.model_digest != live.details.model_digest
    ]
    if not before:
        raise ModelNotPromoted("no release of another model is kept: there is nothing to go back to")
    lake = open_configured_lake(settings)
    began = time.perf_counter()
    made = index.rollback(before[-1].release_id, expected=live.release_id)
    log_live_history(lake, index, "", f"{name} rolled back: {reason.strip()}")
    seconds = time.perf_counter() - began
    version = next(
        (v for v in registry.versions(name) if str(registry.path(v)) == _embedder_path(settings, live)),
        None,
    )
    return _decided(settings, index, version, "rolled_back", made, reason, seconds, progress, name)


def _tables(release: IndexRelease) -> dict[str, int]:
    """Returns the table versions of a release without that of the vectors: each model adds its own to it."""
    return {name: version for name, version in release.details.versions.items() if name != EMBEDDINGS.name}


def _require_reason_and_live(index: Index, reason: str) -> IndexRelease:
    if not reason.strip():
        raise ModelNotPromoted("the reason is empty: say why this model is to be served")
    live = index.live()
    if live is None:
        raise ModelNotPromoted("nothing is live yet: `headwater run` releases an index first")
    return live


def _require_approval(registry: ModelRegistry, version: ModelVersion, live: IndexRelease) -> None:
    verdicts = [
        each
        for each in registry.decisions(version.name)
        if each.version == version.version and each.against == live.details.model_digest
    ]
    if not verdicts:
        raise ModelNotPromoted(
            f"{version.address} was not compared with the live model: "
            f"`headwater models compare {version.address} live --data DIR` does"
        )
    if verdicts[-1].decision != "approved":
        raise ModelNotPromoted(f"{version.address} was refused: {verdicts[-1].reason}")


def _decided(
    settings: Settings,
    index: Index,
    version: ModelVersion | None,
    decision: str,
    release: IndexRelease,
    reason: str,
    seconds: float,
    progress: Callable[[str], None],
    name: str = "",
) -> ServedModel:
    """Keeps a decision, and has all aliases follow."""
    name = version.name if version else name
    registry = model_registry(settings)
    if version:
        logged = {"version": version.version, "decision": decision, "reason": reason.strip()}
        registry.log_decision(name, ModelDecision.model_validate({**logged, "decided_at": datetime.now(UTC)}))
    aliases = follow_live_release(settings, index, name)
    follow_models(settings.training_place, name, progress)
    return ServedModel(name, aliases.live, release.release_id, reason.strip(), round(seconds, 4))


def _embedder_path(settings: Settings, release: IndexRelease) -> str:
    return str(recorded_model_path(release.details.embedder.model, settings.models_folder))


def _path(settings: Settings, name: str) -> Path | None:
    return None if name == "live" else embedder_folder(settings.models_folder, name)
