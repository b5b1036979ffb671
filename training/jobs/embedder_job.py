"""The job that makes a version of the embedder: trains it on what is to be learned, and registers it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from retrieval.embedding.model_folder import model_folder_digest
from training.job_folder import TrainingWorker
from training.jobs.embedder import train_embedder
from training.jobs.job import Base, Trained, run_job
from training.jobs.learned import Learned
from training.jobs.list_files import give_lists
from training.jobs.loop import TrainingOutcome, outcome_of_json
from training.jobs.network import EmbeddingNetwork, read_base
from training.jobs.plan import EmbedderTraining
from training.jobs.ranked_lists import NOTHING, RankedLists, split_validation
from training.place import TrainingPlace
from training.registry.addresses import EMBEDDER, PACKAGED_EMBEDDER
from training.registry.learned_texts import LearnedTexts
from training.registry.model_card import model_card
from training.registry.versions import ModelVersion

_VALIDATION_SHARE = 0.15
_MOST_VALIDATION = 120


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
        TrainingWorkerFailed: A worker was to train, and did not.
    """
    # Read here, so that a base which can not be trained is found before lists are made.
    trainer = place.worker or EmbeddingNetwork(base)
    model = read_base(base) if isinstance(trainer, TrainingWorker) else trainer.folder
    name = base_name or PACKAGED_EMBEDDER

    def train(folder: Path) -> Trained:
        lists, validation = split_validation(learned.lists(), _VALIDATION_SHARE, _MOST_VALIDATION)
        progress(
            f"training on {len(lists.ids):,} questions and {len(lists.passages):,} passages for at most "
            f"{training.minutes:g} minutes, validating on {len(validation.ids)} questions"
        )
        if isinstance(trainer, TrainingWorker):
            give = partial(give_lists, base=model, lists=lists, validation=validation)
            made = trainer.train(folder, "embedder", training, give)
            outcome, write = outcome_of_json(made.outcome), made.write
        else:
            outcome = train_embedder(trainer, lists, validation, training, folder, progress)
            write = trainer.save
        if outcome.after <= outcome.before:
            progress(
                f"warning: it may be no better than {name}: the validation says {outcome.after:.4f}, and "
                f"{outcome.before:.4f} of that, on {len(validation.ids)} questions"
            )
        metrics = _metrics(outcome, lists, validation)
        return Trained(
            *(outcome.standing, outcome.ended, metrics, _learned(learned, lists, validation)),
            *(write, model_card),
            figure="trained_weights_validation_ndcg@10",
        )

    trained_from = Base(name, model_folder_digest(model, place.registry.folder))
    return run_job(place, EMBEDDER, learned, trained_from, training, code_version, train, progress)


def _learned(source: Learned, train: RankedLists, validation: RankedLists) -> LearnedTexts:
    """Returns what is kept of the texts: questions, and passages where no id of the lake names them."""
    parts = (train, validation)
    named = np.unique(np.concatenate([each.candidates[each.candidates != NOTHING] for each in parts]))
    return LearnedTexts(
        source.documents,
        [*train.questions, *validation.questions],
        [] if source.documents else [train.passages[each] for each in named],
    )


def _metrics(outcome: TrainingOutcome, train: RankedLists, validation: RankedLists) -> dict[str, float]:
    return {
        "validation_ndcg@10": outcome.after,
        "validation_ndcg@10_of_base": outcome.before,
        "questions": len(train.ids),
        "validation_questions": len(validation.ids),
        "passages": len(train.passages),
        "passages_cut_off": outcome.cut_off,
    }
