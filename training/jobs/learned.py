"""What a job learns: from a training set here; `orchestration` adds what a folder of questions says."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality.evaluation.beir_collection import queries_file_of
from training.datasets.training_set import EMBEDDER_KINDS, TrainingSet, open_tenant_dataset
from training.jobs.job import LearnedSource
from training.jobs.ranked_lists import RankedLists, RankedQuestion, ranked_lists


class NothingToLearnFrom(ValueError):
    """What a training was to learn from holds nothing that it can use."""


@dataclass(frozen=True)
class Learned(LearnedSource):
    """What an embedder learns.

    Attributes:
        lists: Makes the lists, when they are needed.
    """

    lists: Callable[[], RankedLists]


def folder_digest(data: Path) -> str:
    """Returns SHA-256 (hex) over what a folder in BEIR's layout teaches: its corpus and its train split."""
    digest = hashlib.sha256()
    for name in ("corpus.jsonl", queries_file_of(data), "qrels/train.tsv"):
        file = data / name
        digest.update(hashlib.sha256(file.read_bytes() if file.is_file() else b"").digest())
    return digest.hexdigest()


def learned_of_tenant(datasets: Path, tenant: str | None, address: str | None = None) -> Learned:
    """Returns what a training set of a tenant teaches.

    Args:
        datasets: The folder of training sets.
        tenant: The tenant; None for that of the named snapshot, or for `default`.
        address: The snapshot, NAME or NAME@DIGEST; the tenant's newest unless given.

    Raises:
        UnknownDataset: The tenant has none yet, or the named one is not there or is another tenant's.
        BrokenDataset: A file of it was changed since it was written.
        DatasetHasRemovedDocuments: It holds documents that were removed since.
    """
    opened = open_tenant_dataset(datasets, tenant, address)
    header = opened.header
    documents = frozenset(doc_id for row in _questions(opened) for doc_id in row["doc_ids"])
    return Learned(header.address, header.digest, header.tenant, documents, lambda: _lists(opened))


def _questions(opened: TrainingSet) -> list[dict[str, Any]]:
    """Returns the examples of a snapshot that an embedder learns from, in `EXAMPLE_SCHEMA`."""
    rows = opened.examples["train"].to_pylist()
    return [row for row in rows if row["kind"] in EMBEDDER_KINDS and row["question"]]


def _lists(opened: TrainingSet) -> RankedLists:
    """Returns the lists of a snapshot: ranked ones, and pairs as lists of what is right and wrong."""
    texts: dict[str, str] = {}
    questions = []
    for row in _questions(opened):
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
