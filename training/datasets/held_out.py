"""The held-out examples of a training set, as a collection that embedders are measured on."""

import hashlib

from quality.evaluation.beir_collection import BeirCollection, BeirDocument
from training.datasets.training_set import TrainingSet

_KINDS = ("ranked_list", "retrieval_pair")


class NothingHeldOut(ValueError):
    """A training set has no held-out questions, or a model has no training set."""


def held_out_collection(opened: TrainingSet) -> BeirCollection:
    """Returns the questions of the test split, over the passages of all splits.

    A question's passage is the relevant one; the others are what it competes with.

    Raises:
        NothingHeldOut: The test split has no question with a passage.
    """
    documents: dict[str, BeirDocument] = {}
    queries: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    for split, examples in opened.examples.items():
        for row in examples.to_pylist():
            if row["kind"] not in _KINDS or not row["question"]:
                continue
            for text in (row["positive"], *row["negatives"], *row["candidates"]):
                documents[_key(text)] = BeirDocument("", text)
            if split == "test":
                queries[row["example_id"]] = row["question"]
                relevant[row["example_id"]] = {_key(row["positive"]): 1}
    if not queries:
        raise NothingHeldOut(
            f"{opened.header.address} holds out no questions with passages: name a collection with --data"
        )
    return BeirCollection(opened.header.address, documents, queries, relevant)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
