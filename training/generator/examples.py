"""What a generator learns to write: answers that cite the passages of their prompt, and refusals.

A training set's instructions name the chunk that they were made of. The prompt is the one that questions get
(`inference.prompting`), of this chunk and others; the response is the answer with the chunk's number after
each sentence. Some prompts lack the chunk, and their response is a refusal. An answer that was rated good has
its own citations and passages: those that were found for its question, in an order drawn by its name.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field, ValidationError

from common.citation_markers import cited_numbers, renumber_citations
from inference.prompting.prompt_assembly import NOT_FOUND, PromptConfig, prompt_forms
from inference.prompting.types import Passage, WholePassage
from retrieval.chunking.sentences import sentence_spans
from training.alike import clusters, held_out, sharing
from training.datasets.training_set import ANSWER, SPLITS, Split

PASSAGES = 4
"""In a prompt, at most; of an answer that cites more, those."""
REFUSED_OF = 5
"""One of so many examples is a refusal."""
_MOST_SENTENCES = 3
_HELD_OUT_OF = 10
_FEWEST_HELD_OUT = 4
"""Of so many prompts of a file one is validated on, and one measured on at the end; not fewer than these."""


class InvalidWrittenExamples(ValueError):
    """A file of examples can not be read; the message names the line."""


@dataclass(frozen=True)
class WrittenExample:
    """A prompt, and what is to be written after it.

    Attributes:
        name: Its id, for messages.
        question: The question that it answers, or the whole prompt where nothing says which that is.
        forms: The prompt, as chat messages, in one or more forms, the longest first.
        responses: The response to each form.
    """

    name: str
    question: str
    forms: Sequence[Sequence[Mapping[str, str]]]
    responses: Sequence[str]


@dataclass(frozen=True)
class WrittenSplits:
    """Examples to train on, to validate on, and to measure the result on, which are learned in no way."""

    train: list[WrittenExample]
    validation: list[WrittenExample]
    test: list[WrittenExample]


class _Row(BaseModel, extra="forbid"):
    prompt: str = Field(min_length=1)
    response: str = Field(min_length=1)


def read_written_examples(file: Path) -> WrittenSplits:
    """Returns the examples of a file of JSON lines with `prompt` and `response`.

    Prompts that are alike stand on one side, and hashes decide which are held out (`split_examples`).

    Raises:
        InvalidWrittenExamples: It can not be read; the message names the line.
    """
    found: list[WrittenExample] = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidWrittenExamples(
            f"{file} can not be read as examples ({error}): name a file of JSON lines with prompt and "
            "response"
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _Row.model_validate_json(line)
        except ValidationError as error:
            said = error.errors()[0]
            place = ".".join(map(str, said["loc"]))
            raise InvalidWrittenExamples(
                f"{file}, line {number}: {place + ': ' if place else ''}{said['msg']}; a line is "
                '{"prompt": "…", "response": "…"}'
            ) from error
        asked = [{"role": "user", "content": row.prompt}]
        found.append(WrittenExample(f"line {number}", row.prompt, [asked], [row.response]))
    return split_examples(found)


def split_examples(
    examples: Sequence[WrittenExample], documents: Sequence[Collection[str]] | None = None
) -> WrittenSplits:
    """Returns examples with some held out: those that are alike, or of one document, stand on one side.

    Args:
        examples: The examples; hashes of their questions decide, and not their order.
        documents: The names of the documents that each is about.
    """
    questions = [each.question for each in examples]
    labels = clusters(questions)
    if documents is not None:
        labels = sharing([{f"alike {a}", *names} for a, names in zip(labels, documents, strict=True)])
    held = max(_FEWEST_HELD_OUT, len(set(questions)) // _HELD_OUT_OF)
    parts, left = list[list[WrittenExample]](), np.arange(len(examples))
    for _ in range(2):
        rows = held_out([questions[row] for row in left], labels[left], held)
        parts.append([examples[row] for row in left[rows].tolist()])
        left = np.delete(left, rows)
    return WrittenSplits([examples[row] for row in left.tolist()], *parts)


def dataset_examples(splits: Mapping[Split, pa.Table]) -> WrittenSplits:
    """Returns the examples of a snapshot's instructions, each split's from that split's chunks alone.

    Args:
        splits: The tables of the splits, in `training.datasets.training_set.EXAMPLE_SCHEMA`.
    """
    return WrittenSplits(*(_of_split(splits[name]) for name in SPLITS))


def _of_split(rows: pa.Table) -> list[WrittenExample]:
    chunks: dict[str, WholePassage] = {}
    for row in rows.filter(pa.compute.equal(rows["kind"], "domain_text")).to_pylist():
        if row["chunk_ids"]:
            chunks[row["chunk_ids"][0]] = WholePassage(row["positive"], row["doc_ids"][0])
    order = sorted(chunks)
    found = []
    for row in rows.filter(pa.compute.equal(rows["kind"], "instruction")).to_pylist():
        name, question, answer = row["example_id"], row["question"], row["positive"]
        if row["query_kind"] == ANSWER:
            passages = [chunks[each] for each in row["chunk_ids"] if each in chunks]
            if len(passages) == len(row["chunk_ids"]):
                found.append(answered_example(name, question, answer, passages))
            continue
        chunk = chunks.get(row["chunk_ids"][0]) if row["chunk_ids"] else None
        if not question:
            continue
        if chunk is None:  # the user's own, which no passage answers
            asked = [{"role": "user", "content": question}]
            found.append(WrittenExample(name, question, [asked], [answer]))
            continue
        others = _others(name, chunk, answer, [chunks[each] for each in order])
        found.append(_grounded(name, question, answer, chunk, others))
    return [each for each in found if each.forms]


def _others(
    name: str, chunk: WholePassage, answer: str, chunks: Sequence[WholePassage]
) -> list[WholePassage]:
    """Returns chunks of other documents that do not hold the answer, drawn by the example's name."""
    drawn: dict[str, WholePassage] = {}
    for turn in range(8 * PASSAGES):
        each = chunks[text_hash(f"{name} {turn}") % len(chunks)]
        if each.doc_id != chunk.doc_id and answer not in each.text:
            drawn.setdefault(each.doc_id, each)
        if len(drawn) == PASSAGES:
            break
    return list(drawn.values())


def _grounded(
    name: str, question: str, answer: str, chunk: WholePassage, others: Sequence[WholePassage]
) -> WrittenExample:
    refused = len(others) > 1 and text_hash(name) % REFUSED_OF == 0
    place = text_hash(f"{name} place") % (min(len(others), PASSAGES - 1) + 1)
    passages = list(others[:PASSAGES])
    if not refused:
        passages = [*others[:place], chunk, *others[place : PASSAGES - 1]]
    forms, responses = [], []
    for form in prompt_forms(question, passages, PromptConfig()):
        numbers = [
            number
            for number, passage in enumerate(form.context, 1)
            if not refused and place in passage.members
        ]
        if refused or numbers:
            forms.append(form.messages)
            responses.append(NOT_FOUND if refused else _cited(answer, numbers[0]))
    if not refused and place:  # where not all fit, the passage that answers comes alone
        alone = next(iter(prompt_forms(question, [chunk], PromptConfig())), None)
        if alone:
            forms.append(alone.messages)
            responses.append(_cited(answer, 1))
    return WrittenExample(name, question, forms, responses)


def answered_example(name: str, question: str, answer: str, passages: Sequence[Passage]) -> WrittenExample:
    """Returns an answer with its passages as an example; without forms where no prompt has what it cites.

    Args:
        name: The example's id.
        question: The question.
        answer: The answer, in which [n] is the nth passage, or `NOT_FOUND`.
        passages: The passages; they are put into an order that the name decides.
    """
    order = sorted(range(len(passages)), key=lambda each: text_hash(f"{name} {each}"))
    cited = set(cited_numbers(answer))
    forms, responses = [], []
    for form in prompt_forms(question, [passages[each] for each in order], PromptConfig()):
        numbers = {
            order[member] + 1: number
            for number, passage in enumerate(form.context, 1)
            for member in passage.members
        }
        if cited <= numbers.keys():
            forms.append(form.messages)
            responses.append(renumber_citations(answer, numbers))
    return WrittenExample(name, question, forms, responses)


def _cited(answer: str, number: int) -> str:
    """Returns the first sentences of an answer, each with the number of its passage."""
    spans = sentence_spans(answer)[:_MOST_SENTENCES]
    return " ".join(f"{' '.join(answer[start:end].split())} [{number}]" for start, end in spans)


def text_hash(text: str) -> int:
    """Returns a number that decides by a text where it stands."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8], "big")
