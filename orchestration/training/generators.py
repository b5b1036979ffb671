"""`headwater train generator`, and which adapters of generators answer.

An adapter answers from the moment that the release log names it. Aliases follow, here and in MLflow.
"""

import getpass
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from assets.lake.lineage import CODE_VERSION
from assets.training_sets.snapshots import mark_removed
from inference.engines.digest import model_files_digest
from orchestration.openlineage.training_events import told_training
from orchestration.settings import Settings, open_configured_lake
from orchestration.training.judged_answers import written_by_questions
from orchestration.training.models import ModelNotPromoted, model_registry, released_reason
from orchestration.training.reported import report_training
from quality.evaluation.verdict import Verdict
from retrieval.index.index import Index
from retrieval.index.release_log import Decision
from retrieval.store.postgres import Postgres
from training.generator.job import (
    generator_base,
    run_generator_job,
    written_by_file,
    written_by_tenant,
)
from training.jobs.job import follow_models
from training.jobs.plan import GeneratorTraining
from training.registry.live import adapter_version, follow_release_log
from training.registry.live_adapters import AdapterRecord, generator_name
from training.registry.versions import ModelRegistry, ModelVersion


@dataclass(frozen=True)
class ServedAdapter:
    """What became of a promotion or of going back.

    Attributes:
        model: The model's name.
        version: The version that answers; None for the base alone.
        tenant: Whose questions; None for all tenants that have no adapter of their own.
        reason: Why.
        pointer_seconds: The time of the change of the pointer, and of its record.
    """

    model: str
    version: int | None
    tenant: str | None
    reason: str
    pointer_seconds: float


def train_generator_version(
    settings: Settings,
    data: Path | None,
    tenant: str | None,
    base: str | Path | None,
    training: GeneratorTraining,
    progress: Callable[[str], None],
    dataset: str | None = None,
) -> ModelVersion:
    """Trains an adapter of a generator and registers it, or returns what the same command made before.

    What the documents of a tenant teach, only that tenant's adapter learns: one of all tenants is made from a
    file or a folder.

    Args:
        settings: The settings of the state folder.
        data: A file of JSON lines with `prompt` and `response`, or a folder in BEIR's layout, of which the
            right answers to the questions of `qrels/train.tsv` are learned (`written_by_questions`); None for
            the tenant's training set.
        tenant: Whose adapter it is; None for that of all tenants with `data`, and else for that of `dataset`,
            or `default`.
        base: A folder or GGUF file; the settings' local model unless given.
        training: The settings of the training.
        progress: Takes a line about what happens.
        dataset: The training set, NAME or NAME@DIGEST, without `data`; the tenant's newest unless given.

    Raises:
        UnknownBase: The base is no model that can be trained, or there is none.
        UnknownDataset: The tenant has no training set yet, or the named one is another tenant's.
        DatasetHasRemovedDocuments: The training set holds documents that were removed since.
        InvalidWrittenExamples: A line of the file is no example.
        BadBeirCollection: The folder is not in that layout.
        TooFewExamples: There are too few examples, or all have one response.
        TrainingIsRunning: The same job runs elsewhere.
        TrainingDiverged: The loss is no number any more.
        CheckpointNotWritten: The disk is full; the checkpoint before is as it was.
    """
    if (worker := settings.training_place.worker) is not None:
        worker.require_python()
    found = generator_base(base, settings.generator.model, settings.training_place.registry)
    if data is None:  # since the last run documents may have been removed
        mark_removed(open_configured_lake(settings), settings.datasets_folder)
    if data is None:
        written = written_by_tenant(settings.datasets_folder, tenant, dataset)
    elif data.is_dir():
        written = written_by_questions(settings, data, tenant, training.minutes, progress)
    else:
        written = written_by_file(data, tenant)
    name = generator_name(written.tenant)
    with told_training(settings.openlineage_url, name, written.name, written.digest) as ended_with:
        version = run_generator_job(settings.training_place, written, found, training, CODE_VERSION, progress)
        ended_with(version)
    report_training(settings, version, progress)
    return version


def promote_adapter(
    settings: Settings,
    address: str,
    reason: str,
    progress: Callable[[str], None],
    because: str | None = None,
) -> ServedAdapter:
    """Has an adapter answer its tenant's questions, or those of all tenants without one of their own.

    Args:
        settings: The settings of the state folder.
        address: The version.
        reason: Why, in a sentence.
        progress: Takes a line about what happens.
        because: Why a person has it answer though its comparison did not decide; None if nobody does.

    Raises:
        UnknownModel: There is no such version.
        ModelNotTrusted: Its files are not those that were signed.
        ModelNotPromoted: It was not compared with what answers, is not better, or is for another base than
            the settings' local model.
        ReleaseHeld: Somebody holds what is live.
        ReleaseConflict: Another version went live meanwhile.
    """
    registry, index = model_registry(settings), Index(Postgres(settings.home, settings.postgres))
    version = registry.find(address)
    live = index.log.live("adapter", version.name)
    if live is not None and live.digest == version.digest:
        said = "it is live already"
        return ServedAdapter(version.name, version.version, version.lineage.tenant, said, 0.0)
    _require_base_of_settings(settings, version)
    _require_reason(reason)
    # By the log: aliases lag behind it where a process died between the two.
    number = adapter_version(live) if live else None
    beside = registry.find(f"{version.name}@{number}") if number else None
    reason = _approved_reason(registry, version, beside, reason, because)
    registry.open(version)
    record = AdapterRecord(version=version.version).model_dump_json()
    decision = Decision(
        "adapter", version.name, "promoted", version.digest, reason.strip(), getpass.getuser(), record
    )
    began = time.perf_counter()
    index.log.move(decision, live.digest if live else None)
    return _served(settings, index, version.name, version, reason, began, progress)


def roll_back_adapter(
    settings: Settings, name: str, reason: str, progress: Callable[[str], None]
) -> ServedAdapter:
    """Has the version answer that did before the live one, or the base where none did.

    One that was gone back from is not gone back to: a second time leads to the one before that.

    Raises:
        UnknownModel: The version before is gone.
        ModelNotTrusted: Its files are not those that were signed.
        ModelNotPromoted: No version of that name is live.
        ReleaseHeld: Somebody holds what is live.
        ReleaseConflict: Another version went live meanwhile.
    """
    registry, index = model_registry(settings), Index(Postgres(settings.home, settings.postgres))
    live = index.log.live("adapter", name)
    if live is None or live.digest is None:
        known = ", ".join(each.address for each in registry.versions(name))
        raise ModelNotPromoted(
            f"no version of {name} answers, the base does: there is nothing to go back to; "
            f"`headwater models promote` has one of {known} answer"
        )
    way = index.log.way_back("adapter", name)
    to = way[0] if way else None
    version = registry.find(f"{name}@{adapter_version(to)}") if to and to.digest else None
    _require_reason(reason)
    if version:
        registry.open(version)
    decision = Decision("adapter", name, "rolled_back", None, reason.strip(), getpass.getuser())
    began = time.perf_counter()
    index.log.move_back(decision, to, live.digest)
    return _served(settings, index, name, version, reason, began, progress)


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise ModelNotPromoted("the reason is empty: say why this model is to answer")


def _served(
    settings: Settings,
    index: Index,
    name: str,
    version: ModelVersion | None,
    reason: str,
    began: float,
    progress: Callable[[str], None],
) -> ServedAdapter:
    """Has the registry and MLflow follow the release log, and says which adapter answers."""
    registry = model_registry(settings)
    follow_release_log(registry, index)
    seconds = time.perf_counter() - began
    follow_models(settings.training_place, name, progress)
    newest = next(iter(registry.versions(name)), None)
    tenant = newest.lineage.tenant if newest else None
    return ServedAdapter(
        name, version.version if version else None, tenant, reason.strip(), round(seconds, 4)
    )


def version_beside(registry: ModelRegistry, version: ModelVersion, other: str) -> ModelVersion | None:
    """Returns the version that another is compared with; None for the base.

    Args:
        registry: The versions of models.
        version: The one that is compared.
        other: `live` for the version of its name that answers, or the base where none does; `base`, or
            another version.

    Raises:
        UnknownModel: There is no such other version.
    """
    if other == "base" or (other == "live" and registry.aliases(version.name).live is None):
        return None
    return registry.find(f"{version.name}@live" if other == "live" else other)


def _approved_reason(
    registry: ModelRegistry,
    version: ModelVersion,
    live: ModelVersion | None,
    reason: str,
    because: str | None,
) -> str:
    against = live.digest if live else version.lineage.base_digest
    decides = registry.deciding_verdict(version, against)
    if decides is not None:
        return released_reason(version, decides.verdict, reason, because)
    by_job = [
        each
        for each in registry.decisions(version.name)
        if each.version == version.version and each.against == against
    ]
    if not by_job:
        raise ModelNotPromoted(
            f"{version.address} was not compared with {live.address if live else 'its base'}, which answers: "
            f"`headwater models compare {version.address}` does"
        )
    verdict = by_job[-1].verdict
    if verdict.outcome != "refused":  # a job measures only what it trains
        compare = f"`headwater models compare {version.address}`"
        verdict = Verdict("undecided", f"not decided: its answers were not measured yet: {compare} does")
    return released_reason(version, verdict, reason, because)


def _require_base_of_settings(settings: Settings, version: ModelVersion) -> None:
    model = settings.generator.model
    if model is None or not model.exists() or model_files_digest(model) != version.lineage.base_digest:
        raise ModelNotPromoted(
            f"{version.address} is an adapter of {version.lineage.base} "
            f"({version.lineage.base_digest[:16]}), and the settings' local model is "
            f"{model or 'not set'}: set HEADWATER_GENERATOR__MODEL to its base, or train an adapter over "
            "this one"
        )
