"""What a job learns: from a training set here; `orchestration` adds what a folder of questions says."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quality.evaluation.beir_collection import queries_file_of
from training.alike import questions_alike_to
from training.datasets.training_set import (
    EMBEDDER_KINDS,
    TrainingSet,
    chunk_texts,
    find_dataset,
    open_tenant_dataset,
    relevant_passages,
)
from training.jobs.job import LearnedSource
from training.jobs.ranked_lists import RankedLists, RankedQuestion, ranked_lists
from training.registry.lineage import BETWEEN_DATASETS, LearnedDataset


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


def learned_of_tenants(datasets: Path, tenants: Sequence[str], addresses: Sequence[str] = ()) -> Learned:
    """Returns what training sets of some tenants teach together, in whatever order they are named.

    Each question counts alike, so a tenant with more of them has more of the training.

    Args:
        datasets: The folder of training sets.
        tenants: The tenants; without any those of the named snapshots, or `default`.
        addresses: Snapshots, NAME or NAME@DIGEST; of a tenant without one it is the newest.

    Raises:
        UnknownDataset: A tenant has none yet, or a named one is not there or is of none of the tenants.
        BrokenDataset: A file of one was changed since it was written.
        DatasetHasRemovedDocuments: One holds documents that were removed since.
    """
    whose = {address: find_dataset(datasets, address).tenant for address in addresses}
    opened = [
        open_tenant_dataset(datasets, tenant if tenant in tenants else next(iter(tenants), None), address)
        for address, tenant in whose.items()
    ]
    left = {*(tenants or ([] if addresses else ["default"]))}.difference(whose.values())
    opened += [open_tenant_dataset(datasets, tenant) for tenant in sorted(left)]
    by_digest = {each.header.digest: each for each in opened}
    sets = sorted(by_digest.values(), key=lambda each: each.header.address)
    documents = frozenset(doc_id for row in _questions(sets) for doc_id in row["doc_ids"])
    parts = [
        LearnedDataset(address=each.header.address, digest=each.header.digest, tenant=each.header.tenant)
        for each in sets
    ]
    if len(parts) == 1:
        [one] = parts
        return Learned(one.address, one.digest, one.tenant, documents, lambda: _lists(sets))
    return Learned(
        BETWEEN_DATASETS.join(each.address for each in parts),
        hashlib.sha256(" ".join(each.digest for each in parts).encode()).hexdigest(),
        parts[0].tenant if len({each.tenant for each in parts}) == 1 else None,
        documents,
        lambda: _lists(sets),
        datasets=tuple(parts),
    )


def _questions(sets: Sequence[TrainingSet]) -> Iterator[dict[str, Any]]:
    """Yields the examples of snapshots that an embedder learns from, in `EXAMPLE_SCHEMA`.

    Documents of two tenants are never compared, so the same text can be in one's training split and in the
    other's test split: what any snapshot is tested on, or is asked nearly so, it learns from none.
    """
    for one in sets:
        tested = [row for each in sets if each is not one for row in each.examples["test"].to_pylist()]
        texts = {text for row in tested for text in (row["question"], row["positive"])}
        rows = [
            row
            for row in one.examples["train"].to_pylist()
            if row["kind"] in EMBEDDER_KINDS and row["question"]
        ]
        asked = [row["question"] for row in rows] + [row["question"] for row in tested if row["question"]]
        alike = questions_alike_to(asked, np.arange(len(asked)) >= len(rows))[: len(rows)]
        yield from (
            row for row, near in zip(rows, alike, strict=True) if not near and row["positive"] not in texts
        )


def _lists(sets: Sequence[TrainingSet]) -> RankedLists:
    """Returns the lists of snapshots: ranked ones, and pairs as lists of what is right and wrong.

    Right is the chunk that a question was made of, whatever part of it a pair has as its positive.
    """
    chunks = chunk_texts(*sets)
    texts: dict[str, str] = {}
    documents: dict[str, str] = {}
    questions = []
    for row in _questions(sets):
        relevant = relevant_passages(row, chunks)
        passages, doc_ids, scores = row["candidates"], row["doc_ids"], row["scores"]
        if row["kind"] == "retrieval_pair":
            passages = [*relevant, *row["negatives"]]
            doc_ids = doc_ids[:1] * len(relevant) + doc_ids[1:]
            scores = scores[:1] * len(relevant) + scores[1:]
        texts |= {text: text for text in passages}
        documents |= dict(zip(passages, doc_ids, strict=False))  # an example of the user's names none
        questions.append(
            RankedQuestion(
                name=row["example_id"],
                question=row["question"],
                passages=passages,
                scores=scores or [0.0] * len(passages),
                relevant=relevant,
                judged=False,
            )
        )
    if not questions:
        named = BETWEEN_DATASETS.join(each.header.address for each in sets)
        raise NothingToLearnFrom(f"{named} has no questions with passages, of which an embedder learns")
    return ranked_lists(questions, texts, documents)
