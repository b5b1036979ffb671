"""The job that makes a version of the embedder: trains it on what is to be learned, and registers it."""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from retrieval.embedding.model_folder import model_folder_digest
from training.jobs.checkpoints import Checkpoints, describe_job
from training.jobs.embedder import train_embedder
from training.jobs.learned import Learned
from training.jobs.loop import TrainingOutcome
from training.jobs.network import EmbeddingNetwork
from training.jobs.outcomes import JobOutcome, read_job_outcome, training_curves, write_job_outcome
from training.jobs.plan import EmbedderTraining
from training.jobs.ranked_lists import RankedLists, split_validation
from training.place import TrainingPlace
from training.registry.addresses import EMBEDDER, PACKAGED_EMBEDDER
from training.registry.mlflow_mirror import follow_in_mlflow
from training.registry.model_card import model_card
from training.registry.versions import ModelLineage, ModelVersion

_VALIDATION_SHARE = 0.15
_MOST_VALIDATION = 120


class TrainingIsRunning(RuntimeError):
    """The same job runs in another process."""


def run_embedder_job(
    place: TrainingPlace,
    learned: Learned,
    base: Path,
    base_name: str | None,
    training: EmbedderTraining,
    code_version: str,
    progress: Callable[[str], None],
) -> ModelVersion:
    """Trains an embedder and registers it, or returns the version that the same job made before.

    A job that was killed goes on from its last checkpoint.

    Args:
        place: The state folder's folders.
        learned: What is learned.
        base: The folder of the model that is trained.
        base_name: What the user calls it; None for the packaged one.
        training: The settings of the training.
        code_version: The version of the code, for the lineage.
        progress: Takes a line about what happens.

    Raises:
        UnknownBase: The base is no model that can be trained.
        TooFewExamples: There are too few questions.
        TrainingIsRunning: The same job runs elsewhere.
        TrainingDiverged: The loss is no number any more.
        CheckpointNotWritten: The disk is full; the checkpoint before is as it was.
    """
    network, registry = EmbeddingNetwork(base), place.registry
    base_digest = model_folder_digest(network.folder, registry.folder)
    said = json.dumps([learned.digest, base_digest, training.model_dump()], sort_keys=True)
    run_id = f"{EMBEDDER}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    folder = place.jobs / run_id
    with alone_in(folder):
        before = read_job_outcome(folder)
        for known in registry.versions(EMBEDDER):
            if before and known.address == before.address and known.lineage.run_id == run_id:
                progress(f"trained before, as {known.address}")
                return known
        train, validation = split_validation(learned.lists(), _VALIDATION_SHARE, _MOST_VALIDATION)
        describe_job(folder, {"dataset": learned.name, "base": str(base), **training.model_dump()})
        progress(
            f"training on {len(train.ids)} questions and {len(train.passages)} passages, validating on "
            f"{len(validation.ids)}"
        )
        outcome = train_embedder(network, train, validation, training, folder, progress)
        progress(f"ended: {outcome.ended}; the best of step {outcome.standing.best_step} is kept")
        if outcome.after <= outcome.before:
            progress(
                f"warning: it may be no better than {base_name or PACKAGED_EMBEDDER}: the validation says "
                f"{outcome.after:.4f}, and {outcome.before:.4f} of that, on {len(validation.ids)} questions"
            )
        version = registry.add(
            EMBEDDER,
            ModelLineage(
                dataset=learned.name,
                dataset_digest=learned.digest,
                base=base_name or PACKAGED_EMBEDDER,
                base_digest=base_digest,
                code_version=code_version,
                run_id=run_id,
                settings=training.model_dump(),
                tenant=learned.tenant,
            ),
            _metrics(outcome, train, validation),
            outcome.standing.seconds,
            network.save,
            model_card,
            learned.documents,
        )
        registry.set_candidate(version)
        write_job_outcome(
            folder, JobOutcome(address=version.address, standing=outcome.standing, ended=outcome.ended)
        )
        Checkpoints(folder).remove()
    follow_models(place, EMBEDDER, progress)
    return version


def follow_models(place: TrainingPlace, name: str, progress: Callable[[str], None]) -> None:
    """Brings MLflow up to date with a model's versions; where it can not be reached, a line says so."""
    fault = follow_in_mlflow(place.registry, name, place.mlflow_uri, training_curves(place.jobs))
    if fault:
        progress(f"warning: {fault}")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keeps a job's folder to this process, until the `with` block ends.

    Raises:
        TrainingIsRunning: Another process has it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingIsRunning(
                f"this training runs in another process, in {folder}: wait for it, or end it"
            ) from None
        yield


def _metrics(outcome: TrainingOutcome, train: RankedLists, validation: RankedLists) -> dict[str, float]:
    return {
        "validation_ndcg@10": outcome.after,
        "validation_ndcg@10_of_base": outcome.before,
        "questions": len(train.ids),
        "validation_questions": len(validation.ids),
        "passages": len(train.passages),
        "passages_cut_off": outcome.cut_off,
        "steps": outcome.standing.step,
        "best_step": outcome.standing.best_step,
        "first_loss": outcome.standing.losses[0],
        "last_loss": outcome.standing.losses[-1],
        "peak_memory_mib": outcome.standing.peak_bytes / (1 << 20),
    }
