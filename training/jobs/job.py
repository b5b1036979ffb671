"""What every training does around its steps: it is alone, goes on where it ended, registers what it made."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from training.job_folder import alone_in, remove_worker_files
from training.jobs.checkpoints import Checkpoints, Standing, describe_job, stopped_on_other_snapshots
from training.jobs.outcomes import JobOutcome, read_job_outcome, training_curves, write_job_outcome
from training.place import TrainingPlace
from training.registry.learned_texts import LearnedTexts
from training.registry.lineage import BETWEEN_DATASETS, LearnedDataset, ModelLineage
from training.registry.mlflow_mirror import follow_in_mlflow
from training.registry.versions import ModelDecision, ModelVersion


@dataclass(frozen=True)
class LearnedSource:
    """Where what a job learns is from.

    Attributes:
        name: The address of the training set, or the path of the file or folder.
        digest: SHA-256 (hex) of it.
        tenant: Whose it is; None for a file or folder of nobody's.
        documents: The ids of the lake's documents that it is made from.
        datasets: The training sets, where it is several; `digest` is over all.
    """

    name: str
    digest: str
    tenant: str | None
    documents: frozenset[str]
    datasets: tuple[LearnedDataset, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Base:
    """What a job trains, or trains an adapter over.

    Attributes:
        name: Its path, or what the user calls it.
        digest: Its digest.
    """

    name: str
    digest: str


@dataclass(frozen=True)
class Trained:
    """What came out of a job's steps.

    Attributes:
        standing: How far it came, with its curves.
        ended: Why it ended.
        metrics: Its figures, by name.
        learned: What it learned from, validations included, by which its best step was chosen.
        write: Writes the model's files into a folder.
        card: Returns the model card of the version, in Markdown.
        figure: The name of the validations' figure.
        decision: Returns what was found of it beside its base; None if that is measured later.
    """

    standing: Standing
    ended: str
    metrics: dict[str, float]
    learned: LearnedTexts
    write: Callable[[Path], None]
    card: Callable[[ModelVersion], str]
    figure: str
    decision: Callable[[ModelVersion], ModelDecision] | None = None


def run_job(
    place: TrainingPlace,
    name: str,
    source: LearnedSource,
    base: Base,
    training: BaseModel,
    code_version: str,
    train: Callable[[Path], Trained],
    progress: Callable[[str], None],
) -> ModelVersion:
    """Trains a model and registers it, or returns the version that the same job made before.

    Args:
        place: The state folder's folders.
        name: The model.
        source: Where what is learned is from.
        base: What is trained.
        training: The settings; with source and base they decide which job it is.
        code_version: The version of the code, for the lineage.
        train: Makes the steps, in the job's folder; killed, it goes on from the checkpoint there.
        progress: Takes a line about what happens.

    Raises:
        TrainingIsRunning: The same job runs elsewhere.
        TrainingWorkerFailed: What a worker made did not arrive whole.
    """
    registry, settings = place.registry, training.model_dump(exclude_none=True)
    said = json.dumps([source.digest, base.digest, settings], sort_keys=True)
    run_id = f"{name}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    folder = place.jobs / run_id
    with alone_in(folder):
        before = read_job_outcome(folder)
        for known in registry.versions(name):
            if before and known.address == before.address and known.lineage.run_id == run_id:
                progress(f"trained before, as {known.address}")
                follow_models(place, name, progress)
                return known
        for half_written in folder.glob(".writing-*"):  # by a process that was killed
            shutil.rmtree(half_written)
        describe_job(folder, {"dataset": source.name, "base": base.name, **settings})
        progress(f"learning from {source.name}")
        if not Checkpoints(folder).begun:
            for each in stopped_on_other_snapshots(folder):
                named = " ".join(f"--dataset {address}" for address in each.split(BETWEEN_DATASETS))
                progress(f"a training on {each} was stopped: `{named}` goes on with it")
        trained = train(folder)
        standing = trained.standing
        progress(f"ended: {trained.ended}; the best weights are those of step {standing.best_step}")
        lineage = ModelLineage(
            dataset=source.name,
            dataset_digest=source.digest,
            base=base.name,
            base_digest=base.digest,
            code_version=code_version,
            run_id=run_id,
            settings=settings,
            tenant=source.tenant,
            datasets=source.datasets,
        )
        metrics = trained.metrics | {
            "steps": standing.step,
            "best_step": standing.best_step,
            "first_loss": standing.losses[0],
            "last_loss": standing.losses[-1],
            "peak_memory_mib": standing.peak_bytes / (1 << 20),
        }
        version = registry.add(
            name, lineage, metrics, standing.seconds, trained.write, trained.card, trained.learned
        )
        if trained.decision:
            registry.log_decision(name, trained.decision(version))
        write_job_outcome(
            folder,
            JobOutcome(
                address=version.address, standing=standing, ended=trained.ended, figure=trained.figure
            ),
        )
        Checkpoints(folder).remove()
        remove_worker_files(folder)
    follow_models(place, name, progress)
    return version


def follow_models(place: TrainingPlace, name: str, progress: Callable[[str], None]) -> None:
    """Brings MLflow up to date with a model's versions; where it can not be reached, a line says so."""
    fault = follow_in_mlflow(place.registry, name, place.mlflow_uri, training_curves(place.jobs))
    if fault:
        progress(f"warning: {fault}")
