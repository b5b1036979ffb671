"""`headwater train`: what is learned, the teacher that ranks it, the job, and the version that it makes."""

import fcntl
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from assets.lake.lineage import CODE_VERSION
from orchestration.operations.scratch_index import open_scratch_index
from orchestration.settings import Settings
from orchestration.training.models import find_model_folder, follow_models, model_registry
from quality.evaluation.beir_collection import BeirCollection, load_beir_collection
from retrieval.atomic_files import atomic_file
from retrieval.embedding.config import packaged_embedding_model
from retrieval.embedding.model_folder import model_folder_digest
from retrieval.progress import Progress
from training.datasets.training_set import TrainingSet, UnknownDataset, dataset_headers, open_dataset
from training.jobs.checkpoints import Checkpoints, describe_job
from training.jobs.document_questions import document_questions
from training.jobs.embedder import train_embedder
from training.jobs.loop import TrainingOutcome
from training.jobs.network import EmbeddingNetwork
from training.jobs.outcomes import JobOutcome, read_job_outcome, write_job_outcome
from training.jobs.plan import EmbedderTraining
from training.jobs.ranked_lists import RankedLists, RankedQuestion, ranked_lists, split_validation
from training.registry.addresses import EMBEDDER
from training.registry.model_card import model_card
from training.registry.versions import ModelLineage, ModelVersion

_LIST_LENGTH = 50
_MADE_QUESTIONS_PER_MINUTE = 200
_VALIDATION_SHARE = 0.15
_MOST_VALIDATION = 120
_RANKINGS = "rankings.parquet"


class TrainingIsRunning(RuntimeError):
    """The same job runs in another process."""


class NothingToLearnFrom(ValueError):
    """What a training was to learn from holds nothing that it can use."""


@dataclass(frozen=True)
class _Learned:
    """What a job learns: its name, its digest, whose it is, and its lists, made when they are asked for.

    `documents` are the ids of the lake's documents that the lists are made from.
    """

    name: str
    digest: str
    tenant: str | None
    lists: Callable[[], RankedLists]
    documents: frozenset[str] = frozenset()


def train_embedder_version(
    settings: Settings,
    data: Path | None,
    tenant: str,
    base: str | None,
    training: EmbedderTraining,
    progress: Callable[[str], None],
) -> ModelVersion:
    """Trains an embedder and registers it, or returns the version that the same command made before.

    A job that was killed goes on from its last checkpoint.

    Args:
        settings: The settings of the state folder.
        data: A folder in BEIR's layout: its corpus and the judgements of `qrels/train.tsv` are learned, and
            no others; None to learn from the training set of a tenant.
        tenant: The tenant, without `data`.
        base: A model's name, address or folder; the packaged all-MiniLM-L6-v2 unless given.
        training: The settings of the training.
        progress: Takes a line about what happens.

    Raises:
        UnknownBase: The base is no model that can be trained.
        BadBeirCollection: The folder is not in that layout.
        UnknownDataset: The tenant has no training set yet.
        TooFewExamples: There are too few questions.
        TrainingIsRunning: The same job runs elsewhere.
        TrainingDiverged: The loss is no number any more.
        CheckpointNotWritten: The disk is full; the checkpoint before is as it was.
    """
    base_folder = find_model_folder(settings, base) if base else packaged_embedding_model()
    network = EmbeddingNetwork(base_folder)
    registry = model_registry(settings)
    base_digest = model_folder_digest(network.folder, registry.folder)
    folder_of = settings.home / "training"
    learned = (
        _of_folder(settings, data, base_folder, training, folder_of, progress)
        if data
        else _of_tenant(settings, tenant)
    )
    said = json.dumps([learned.digest, base_digest, training.model_dump()], sort_keys=True)
    run_id = f"{EMBEDDER}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"
    folder = folder_of / run_id
    with _alone(folder):
        before = read_job_outcome(folder)
        for known in registry.versions(EMBEDDER):
            if before and known.address == before.address and known.lineage.run_id == run_id:
                progress(f"trained before, as {known.address}")
                return known
        lists = learned.lists()
        train, validation = split_validation(lists, _VALIDATION_SHARE, _MOST_VALIDATION)
        described = {"dataset": learned.name, "base": str(base_folder), **training.model_dump()}
        describe_job(folder, described)
        progress(
            f"training on {len(train.ids)} questions and {len(train.passages)} passages, validating on "
            f"{len(validation.ids)}"
        )
        outcome = train_embedder(network, train, validation, training, folder, progress)
        progress(f"ended: {outcome.ended}; the best of step {outcome.standing.best_step} is kept")
        version = registry.add(
            EMBEDDER,
            ModelLineage(
                dataset=learned.name,
                dataset_digest=learned.digest,
                base=base or "all-MiniLM-L6-v2",
                base_digest=base_digest,
                code_version=CODE_VERSION,
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
        write_job_outcome(
            folder, JobOutcome(address=version.address, standing=outcome.standing, ended=outcome.ended)
        )
        Checkpoints(folder).remove()
    follow_models(settings, EMBEDDER, progress)
    return version


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


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps a job's folder to this process, until it ends."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingIsRunning(
                f"this training runs in another process, in {folder}: wait for it, or end it"
            ) from None
        yield


def _of_folder(
    settings: Settings,
    data: Path,
    base: Path,
    training: EmbedderTraining,
    folder: Path,
    progress: Callable[[str], None],
) -> _Learned:
    collection = load_beir_collection(data, "train")
    digest = hashlib.sha256()
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
        digest.update(hashlib.sha256((data / name).read_bytes()).digest())

    def lists() -> RankedLists:
        # The teacher's rankings depend on what it ranks by: its vectors are the base's.
        key = hashlib.sha256(f"{digest.hexdigest()} {base} {training.minutes}".encode()).hexdigest()[:16]
        return _teach(settings, collection, base, training.minutes, folder / f"{key}-{_RANKINGS}", progress)

    return _Learned(str(data.resolve()), digest.hexdigest(), None, lists)


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
    found: dict[str, list[object]] = {"name": [], "passages": [], "scores": []}
    with open_scratch_index(with_base, asked, "document", progress) as index:
        said = Progress("questions ranked by the teacher", len(questions))
        for name, text in questions.items():
            hits = index.search("hybrid", text, _LIST_LENGTH)
            found["name"].append(name)
            found["passages"].append([hit.doc_id for hit in hits])
            found["scores"].append([hit.score for hit in hits])
            said.advance()
    return pa.table(found)


def _of_tenant(settings: Settings, tenant: str) -> _Learned:
    header = next((h for h in dataset_headers(settings.datasets_folder) if h.tenant == tenant), None)
    if header is None:
        raise UnknownDataset(
            f"the tenant {tenant!r} has no training set yet: `headwater datasets snapshot NAME` makes one, "
            "or name a folder with --data"
        )
    opened = open_dataset(settings.datasets_folder, f"{header.name}@{header.digest}")
    documents = frozenset(doc_id for row in _questions_of(opened) for doc_id in row["doc_ids"])
    return _Learned(header.address, header.digest, tenant, lambda: _lists_of(opened), documents)


def _questions_of(opened: TrainingSet) -> list[dict[str, Any]]:
    """Returns the examples of a snapshot that an embedder learns from, in `EXAMPLE_SCHEMA`."""
    kinds = ("ranked_list", "retrieval_pair")
    rows = opened.examples["train"].to_pylist()
    return [row for row in rows if row["kind"] in kinds and row["question"]]


def _lists_of(opened: TrainingSet) -> RankedLists:
    """Returns the lists of a snapshot: ranked ones, and pairs as lists of what is right and wrong."""
    texts: dict[str, str] = {}
    questions = []
    for row in _questions_of(opened):
        passages = row["candidates"] or [row["positive"], *row["negatives"]]
        texts |= {text: text for text in passages} | {row["positive"]: row["positive"]}
        questions.append(
            RankedQuestion(
                name=row["example_id"],
                question=row["question"],
                passages=passages,
                scores=row["scores"],
                relevant=[row["positive"]],
                judged=False,
            )
        )
    if not questions:
        raise NothingToLearnFrom(
            f"{opened.header.address} has no questions with passages, of which an embedder learns"
        )
    return ranked_lists(questions, texts)
