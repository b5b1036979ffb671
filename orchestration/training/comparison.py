"""`headwater models compare`: two embedders on one collection, and the verdict that `promote` asks for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestration.operations.evaluation import evaluate_in_scratch_index
from orchestration.settings import Settings
from orchestration.training.models import model_registry, settings_with_embedder
from quality.evaluation.beir_collection import BeirCollection, load_beir_collection
from quality.evaluation.collection_evaluation import MEASURES
from quality.evaluation.model_gate import RANKING, decide_model_release
from quality.evaluation.release_gate import ReleaseVerdict
from quality.evaluation.retrieval_metrics import paired_gain
from retrieval.embedding.embedding_model import EmbeddingModel
from training.datasets.held_out import NothingHeldOut, held_out_collection
from training.datasets.training_set import open_dataset
from training.jobs.learned import folder_digest
from training.registry.addresses import embedder_folder
from training.registry.versions import ModelDecision, ModelVersion

_COMPARED_MODES = ("hybrid", "vector")


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
        warning: What the figures do not say; None if nothing is known.
    """

    one: str
    other: str
    dataset: str
    queries: int
    figures: dict[str, dict[str, float]]
    gains: dict[str, dict[str, float]]
    approved: bool
    reason: str
    warning: str | None = None


def compare_models(
    settings: Settings, one: str, other: str, data: Path | None, split: str, progress: Callable[[str], None]
) -> ModelComparison:
    """Measures two models on one collection; where the first is of the registry, the verdict is kept.

    Args:
        settings: The settings of the state folder.
        one: The candidate.
        other: The model that it is compared with; `live` for the one that is served.
        data: A folder in BEIR's layout; None for the held-out examples of the training set that the first
            model was made from.
        split: Which judgements of the folder.
        progress: Takes a line about what happens.

    Raises:
        UnknownModel: There is no model of a name.
        ModelNotTrusted: A model's files are not those that were signed.
        BadBeirCollection: The folder is not in that layout.
        NothingHeldOut: The first model was not made from a training set, or that holds out no questions.
        DatasetHasRemovedDocuments: The training set holds documents that were removed since.
    """
    collection = load_beir_collection(data, split) if data else _held_out(settings, one)
    split = split if data else "test"
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
    verdict = decide_model_release(gains, settings.recipe.gate.tolerance, RANKING)
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
    warning = _trained_on(version, data, split) if version and data else None
    if warning:
        progress(f"warning: {warning}")
    if warning and split == "train":
        verdict = ReleaseVerdict(False, warning)
    if version:
        registry.log_decision(
            version.name,
            ModelDecision.of_verdict(verdict, version, digests[other], f"{collection.name}/{split}", gains),
        )
    figures = {
        name: {key: float(each.mean()) for key, each in measured.items()} for name, measured in values.items()
    }
    return ModelComparison(
        one,
        other,
        collection.name,
        len(collection.queries),
        figures,
        gains,
        verdict.released,
        verdict.reason,
        warning,
    )


def _held_out(settings: Settings, one: str) -> BeirCollection:
    version = model_registry(settings).find(one)
    if version.lineage.tenant is None:
        raise NothingHeldOut(
            f"{version.address} was trained on the folder {version.lineage.dataset}, not on a tenant's "
            "training set: name a collection with --data"
        )
    return held_out_collection(open_dataset(settings.datasets_folder, version.lineage.dataset))


def _trained_on(version: ModelVersion, data: Path, split: str) -> str | None:
    """Returns a warning if a version was trained on the collection that it is measured on."""
    lineage = version.lineage
    if lineage.dataset != str(data.resolve()) and lineage.dataset_digest != folder_digest(data):
        return None
    if split == "train":
        return (
            f"{version.address} learned these very judgements, so its figures say nothing: give --split test"
        )
    return (
        f"{version.address} was trained on this collection's passages and on its other questions: elsewhere "
        "it may be worse, so compare it there too"
    )


def _path(settings: Settings, name: str) -> Path | None:
    return None if name == "live" else embedder_folder(settings.models_folder, name)
