"""The held-out examples of a training set, as collections that embedders and generators are measured on."""

import hashlib
from itertools import chain

from common.citation_markers import cited_numbers, strip_citation_markers
from quality.evaluation.answer_collection import AnswerCollection, AnswerQuestion
from quality.evaluation.beir_collection import BeirCollection, BeirDocument
from training.datasets.training_set import ANSWER, TrainingSet, chunk_texts, relevant_passages
from training.registry.lineage import BETWEEN_DATASETS

_KINDS = ("ranked_list", "retrieval_pair")


class NothingHeldOut(ValueError):
    """A training set has no held-out questions, or a model has no training set."""


def held_out_collection(*opened: TrainingSet) -> BeirCollection:
    """Returns the questions of the test split of training sets, over the passages of all splits.

    The chunk that a question was made of is the relevant one, also where a pair has only a part of it; the
    others are what it competes with. What is asked of several chunks, and of one as a pair and as a ranked
    list, is one question: figures count it once.

    Raises:
        NothingHeldOut: The test split has no question with a passage.
    """
    documents: dict[str, BeirDocument] = {}
    names: dict[str, str] = {}
    relevant: dict[str, dict[str, int]] = {}
    chunks = chunk_texts(*opened)
    for split, examples in chain.from_iterable(each.examples.items() for each in opened):
        for row in examples.to_pylist():
            if row["kind"] not in _KINDS or not row["question"]:
                continue
            source = relevant_passages(row, chunks)[-1:]
            for text in (*source, *row["negatives"], *row["candidates"]):
                documents[_key(text)] = BeirDocument("", text)
            if split == "test" and source:
                name = names.setdefault(row["question"], row["example_id"])
                relevant.setdefault(name, {})[_key(source[0])] = 1
    headers = [each.header for each in opened]
    address = BETWEEN_DATASETS.join(each.address for each in headers)
    if not names:
        raise NothingHeldOut(
            f"the split test of {address} has no question with a passage; a hash puts a "
            "tenth of the documents into it: add documents and make a new snapshot "
            f"(`headwater datasets snapshot {headers[0].name}`), or name a collection with --data"
        )
    queries = {name: question for question, name in names.items()}
    return BeirCollection(address, documents, queries, relevant)


def known_answers(*opened: TrainingSet) -> dict[str, tuple[str, ...]]:
    """Returns the answers to the questions of the test splits of which an instruction has one."""
    found: dict[str, tuple[str, ...]] = {}
    for row in chain.from_iterable(each.examples["test"].to_pylist() for each in opened):
        if row["kind"] == "instruction" and row["question"]:
            found[row["question"]] = (*found.get(row["question"], ()), row["positive"])
    return found


def held_out_answers(opened: TrainingSet) -> AnswerCollection | None:
    """Returns the test split's instructions as questions, over the chunks of all splits; None without any.

    An instruction's answer is an ideal one, and the chunk that it was made of is to be cited, or those that
    an answer cites. What is asked of several chunks, such as those of one section, is one question. Refusals
    are left out: what a test asks of these passages, other passages of the lake may answer.
    """
    chunks = chunk_texts(opened)
    answers: dict[str, dict[str, None]] = {}
    gold: dict[str, dict[str, int]] = {}
    for row in opened.examples["test"].to_pylist():
        if row["kind"] != "instruction" or not row["question"]:
            continue
        made_of, answer = row["chunk_ids"][:1], row["positive"]
        if row["query_kind"] == ANSWER:
            made_of = [row["chunk_ids"][number - 1] for number in cited_numbers(answer)]
            answer = strip_citation_markers(answer)
        if made_of and all(chunk_id in chunks for chunk_id in made_of):
            answers.setdefault(row["question"], {})[answer] = None
            gold.setdefault(row["question"], {}).update(dict.fromkeys(made_of, 1))
    if not answers:
        return None
    name = opened.header.address
    questions = tuple(
        AnswerQuestion(question, ideal=tuple(ideal), gold=tuple(gold[question]))
        for question, ideal in answers.items()
    )
    searched = BeirCollection(
        name,
        {chunk_id: BeirDocument("", text) for chunk_id, text in chunks.items()},
        {question: question for question in answers},
        gold,
    )
    return AnswerCollection(name, "retrieval", questions, searched)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
