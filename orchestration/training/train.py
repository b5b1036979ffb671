"""`headwater train`: what is learned, the teacher that ranks it, and the job that makes a version."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from assets.lake.lineage import CODE_VERSION
from assets.training_sets.learned import require_base_without_removed
from assets.training_sets.snapshots import mark_removed
from common.atomic_files import atomic_file
from orchestration.openlineage.training_events import told_training
from orchestration.operations.scratch_index import open_scratch_index
from orchestration.settings import Settings, open_configured_lake
from orchestration.training.reported import report_training
from quality.evaluation.beir_collection import BeirCollection, load_beir_collection
from retrieval.embedding.config import packaged_embedding_model
from training.jobs.document_questions import document_questions
from training.jobs.embedder_job import run_embedder_job
from training.jobs.learned import Learned, folder_digest, learned_of_tenants
from training.jobs.plan import EmbedderTraining
from training.jobs.ranked_lists import RankedLists, RankedQuestion, ranked_lists
from training.registry.addresses import EMBEDDER, embedder_folder
from training.registry.versions import ModelVersion

_LIST_LENGTH = 50
_MADE_QUESTIONS_PER_MINUTE = 200
_RANKINGS = "rankings.parquet"


def train_embedder_version(
    settings: Settings,
    data: Path | None,
    tenants: Sequence[str],
    base: str | None,
    training: EmbedderTraining,
    progress: Callable[[str], None],
    datasets: Sequence[str] = (),
) -> ModelVersion:
    """Trains an embedder and registers it, or returns the version that the same command made before.

    A job that was killed goes on from its last checkpoint.

    Args:
        settings: The settings of the state folder.
        data: A folder in BEIR's layout: its corpus and the judgements of `qrels/train.tsv` are learned, and
            no others; None to learn from training sets of tenants.
        tenants: The tenants, without `data`; without any those of `datasets`, or `default`.
        base: A model's name, address or folder; the packaged all-MiniLM-L6-v2 unless given.
        training: The settings of the training.
        progress: Takes a line about what happens.
        datasets: Training sets, NAME or NAME@DIGEST, without `data`; of a tenant without one the newest.

    Raises:
        UnknownBase: The base is no model that can be trained.
        BaseHasRemovedDocuments: The base learned from documents that were removed since.
        DatasetHasRemovedDocuments: A training set holds some.
        BadBeirCollection: The folder is not in that layout.
        UnknownDataset: A tenant has no training set yet, or a named one is another tenant's.
        TooFewExamples: There are too few questions.
        TrainingIsRunning: The same job runs elsewhere.
        TrainingDiverged: The loss is no number any more.
        CheckpointNotWritten: The disk is full; the checkpoint before is as it was.
    """
    place = settings.training_place
    if place.worker is not None:
        place.worker.require_python()
    base_folder = embedder_folder(place.models, base) if base else packaged_embedding_model()
    if base is not None:
        require_base_without_removed(open_configured_lake(settings), place.registry, base_folder)
    if data is None:  # since the last run documents may have been removed
        mark_removed(open_configured_lake(settings), place.datasets)
    learned = (
        _learned_of_folder(settings, data, base_folder, training, progress)
        if data
        else learned_of_tenants(place.datasets, tenants, datasets)
    )
    told = (EMBEDDER, learned.name, learned.digest, learned.datasets)
    with told_training(settings.openlineage_url, *told) as ended_with:
        version = run_embedder_job(place, learned, base_folder, base, training, CODE_VERSION, progress)
        ended_with(version)
    report_training(settings, version, progress)
    return version


def _learned_of_folder(
    settings: Settings,
    data: Path,
    base: Path,
    training: EmbedderTraining,
    progress: Callable[[str], None],
) -> Learned:
    collection = load_beir_collection(data, "train")
    digest = folder_digest(data)

    def lists() -> RankedLists:
        # The teacher's rankings depend on what it ranks by: its vectors are the base's.
        key = hashlib.sha256(f"{digest} {base} {training.minutes}".encode()).hexdigest()[:16]
        kept = settings.training_place.jobs / f"{key}-{_RANKINGS}"
        return _teach(settings, collection, base, training.minutes, kept, progress)

    return Learned(str(data.resolve()), digest, None, frozenset(), lists)


def _teach(
    settings: Settings,
    collection: BeirCollection,
    base: Path,
    minutes: float,
    kept: Path,
    progress: Callable[[str], None],
) -> RankedLists:
    """Returns lists ranked by the fused search over a scratch index; rankings that were kept are read."""
    made = document_questions(collection.documents, round(_MADE_QUESTIONS_PER_MINUTE * minutes))
    questions = {f"judged {key}": text for key, text in collection.queries.items()}
    right = {f"judged {key}": list(judged) for key, judged in collection.relevant.items()}
    for key, text in made:
        questions[f"made from {key}"], right[f"made from {key}"] = text, [key]
    if not kept.is_file():
        rows = _ranked(settings, collection, questions, base, progress)
        with atomic_file(kept) as fresh:
            pq.write_table(rows, fresh)
    ranked = [
        RankedQuestion(
            name=row["name"],
            question=questions[row["name"]],
            passages=row["passages"],
            scores=row["scores"],
            relevant=right[row["name"]],
            judged=row["name"].startswith("judged "),
        )
        for row in pq.read_table(kept).to_pylist()
    ]
    texts = {key: f"{each.title}\n\n{each.text}".strip() for key, each in collection.documents.items()}
    return ranked_lists(ranked, texts)


def _ranked(
    settings: Settings,
    collection: BeirCollection,
    questions: dict[str, str],
    base: Path,
    progress: Callable[[str], None],
) -> pa.Table:
    embedder = settings.recipe.embedder.model_copy(update={"model": base})
    recipe = settings.recipe.model_copy(update={"embedder": embedder})
    with_base = settings.model_copy(update={"recipe": recipe})
    asked = BeirCollection(collection.name, collection.documents, questions, {})
    with open_scratch_index(with_base, asked, "document", progress) as index:
        ranked = index.rank_in_bulk(list(questions.values()), _LIST_LENGTH)
    return ranked.rename_columns(["passages", "scores"]).append_column("name", pa.array(list(questions)))
