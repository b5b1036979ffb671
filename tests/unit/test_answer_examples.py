"""Rated answers as examples: whose split they have, which passages, and what a generator learns of them."""

import re
from typing import Any

import pyarrow as pa

from assets.engine.local_relations import LocalRelations
from assets.lake.tables import TRAINING_EXAMPLES
from assets.training_sets.rated_answers import RATED_ANSWER_SCHEMA, define_rated_answers
from inference.prompting.prompt_assembly import NOT_FOUND
from training.datasets.held_out import held_out_answers
from training.datasets.training_set import EXAMPLE_SCHEMA, DatasetHeader, TrainingSet
from training.generator.examples import dataset_examples

SPLIT_OF = {"d1": "train", "d2": "train", "d3": "test", "d4": "train"}
"""Each with two chunks, such as d1a and d1b."""
LICENCES: dict[str, str | None] = {"d1": None, "d2": "MIT", "d3": "MIT", "d4": "MIT"}


def rated(answer_id: str, chunk_ids: list[str], cited: int, text: str = "So it is. [1]") -> dict[str, Any]:
    return {
        "tenant": "t",
        "answer_id": answer_id,
        "question": f"What of {answer_id}?",
        "positive": text if cited else NOT_FOUND,
        "cited": cited,
        "chunk_ids": chunk_ids,
    }


def defined(
    *answers: dict[str, Any], near: tuple[str, ...] = (), before: tuple[tuple[str, str], ...] = ()
) -> Any:
    """The examples, the questions with passages, and the documents whose questions changed."""
    names = ("chunk_id", "doc_id", "tenant", "split", "language", "licence")
    passages = [
        dict(zip(names, (doc_id + place, doc_id, "t", split, "en", LICENCES[doc_id]), strict=True))
        for doc_id, split in SPLIT_OF.items()
        for place in "ab"
    ]
    rows = [
        dict.fromkeys(TRAINING_EXAMPLES.schema.names)
        | {"kind": "retrieval_pair", "query_kind": "asked", "doc_id": "d1", "question": question}
        | {"chunk_ids": [chunk_id, "d2a"]}
        for question, chunk_id in before
    ]
    with LocalRelations() as on:
        on.add("rated_answers", pa.Table.from_pylist(list(answers), RATED_ANSWER_SCHEMA))
        on.add("passages", pa.Table.from_pylist(passages))
        on.add("near_passages", pa.table({"chunk_id": pa.array(near, pa.string())}))
        schema = pa.schema([(field.name, field.type) for field in TRAINING_EXAMPLES.schema])
        on.add("training_examples", pa.Table.from_pylist(rows, schema))
        define_rated_answers(on)
        found = {row["answer_id"]: row for row in on.arrow("answers").to_pylist()}
        asked = {(row["question"], row["chunk_id"]) for row in on.arrow("asked_questions").to_pylist()}
        return found, asked, {row["doc_id"] for row in on.arrow("asked_anew").to_pylist()}


def test_an_answer_has_the_split_of_what_it_cites_and_passages_of_that_split() -> None:
    found, asked, anew = defined(
        rated("one", ["d1a", "d3a", "d2b", "d4a", "d2a", "d4b"], 1),
        rated("held", ["d3a", "d1a", "d3b"], 1),
        rated("near", ["d1a", "d2b", "d4a"], 1),
        rated("across", ["d1a", "d3a"], 2),
        rated("gone", ["d9a", "d1a"], 1),
        rated("five", ["d1a", "d1b", "d2a", "d2b", "d4a", "d4b"], 5),
        near=("d2b",),
    )
    assert found["one"]["split"] == "train"
    assert found["one"]["doc_id"] == "d1"
    assert found["one"]["chunk_ids"] == ["d1a", "d4a", "d2a", "d4b"]
    assert found["one"]["doc_ids"] == ["d1", "d4", "d2", "d4"]
    assert found["held"]["split"] == "test"
    assert found["held"]["chunk_ids"] == ["d3a", "d3b"]
    assert found["near"]["chunk_ids"] == ["d1a", "d4a"]
    assert found["five"]["chunk_ids"] == ["d1a", "d1b", "d2a", "d2b", "d4a"]
    assert found.keys() == {"one", "held", "near", "five"}
    # A question that passages of several documents answer has none that could not be a wrong negative.
    assert asked == {("What of one?", "d1a"), ("What of held?", "d3a"), ("What of near?", "d1a")}
    assert anew == {"d1", "d3"}


def test_a_question_has_no_pair_where_another_document_answered_it_too() -> None:
    again = rated("again", ["d2a"], 1) | {"question": "What of one?"}
    gone = rated("gone", ["d1a", "d9a"], 2)
    assert not defined(rated("one", ["d1a"], 1), again)[1]
    assert not defined(gone)[1]
    assert defined(rated("one", ["d1a", "d1b"], 2))[1] == {("What of one?", "d1a"), ("What of one?", "d1b")}


def test_an_example_says_the_licence_of_what_it_cites_if_that_is_one() -> None:
    found, _, _ = defined(
        rated("unknown", ["d1a", "d2a"], 1), rated("one", ["d2a", "d4a"], 2), rated("two", ["d2a", "d1a"], 2)
    )
    assert {name: row["licence"] for name, row in found.items()} == {
        "unknown": None,
        "one": "MIT",
        "two": None,
    }


def test_a_refusal_needs_passages_and_asks_for_none() -> None:
    found, asked, anew = defined(rated("no", ["d1a", "d2a"], 0), rated("alone", ["d1a", "d3a"], 0))
    assert found.keys() == {"no"}
    assert found["no"]["positive"] == NOT_FOUND
    assert not asked
    assert not anew


def test_documents_are_mined_again_where_their_questions_changed_alone() -> None:
    before = (("What of one?", "d1a"),)
    assert defined(rated("one", ["d1a"], 1), before=before)[2] == set()
    assert defined(before=before)[2] == {"d1"}
    assert defined(rated("one", ["d1b"], 1), before=before)[2] == {"d1"}


def example(example_id: str, **columns: Any) -> dict[str, Any]:
    empty: dict[str, list[Any]] = {
        "negatives": [],
        "candidates": [],
        "scores": [],
        "chunk_ids": [],
        "doc_ids": [],
    }
    return dict.fromkeys(EXAMPLE_SCHEMA.names) | empty | {"example_id": example_id} | columns


TEXTS = {f"c{number}": f"The {number}. passage says that the lake is {number} m deep." for number in range(4)}
ROWS = [
    example(chunk_id, kind="domain_text", positive=text, chunk_ids=[chunk_id], doc_ids=[f"of {chunk_id}"])
    for chunk_id, text in TEXTS.items()
]
ANSWERED = example(
    "answered",
    kind="instruction",
    query_kind="answer",
    question="How deep is the lake?",
    positive="The lake is 2 m deep. [1] And 0 m. [2]",
    chunk_ids=["c2", "c0", "c1", "c3"],
    doc_ids=["of c2", "of c0", "of c1", "of c3"],
)
REFUSED = ANSWERED | {"example_id": "refused", "question": "How old is it?", "positive": NOT_FOUND}
LOST = ANSWERED | {"example_id": "lost", "chunk_ids": ["c2", "c9"], "doc_ids": ["of c2", "of c9"]}


def test_a_generator_learns_an_answer_with_the_numbers_that_its_passages_have_in_the_prompt() -> None:
    table = pa.Table.from_pylist([*ROWS, ANSWERED, REFUSED, LOST], EXAMPLE_SCHEMA)
    none = EXAMPLE_SCHEMA.empty_table()
    found = dataset_examples({"train": table, "validation": none, "test": none}).train
    assert [each.name for each in found] == ["answered", "refused"]
    answered, refused = found
    for form, response in zip(answered.forms, answered.responses, strict=True):
        prompt = form[-1]["content"]
        said = re.fullmatch(r"The lake is 2 m deep\. \[(\d)\] And 0 m\. \[(\d)\]", response)
        assert said
        for number, chunk_id in zip(said.groups(), ("c2", "c0"), strict=True):
            after = prompt.partition(TEXTS[chunk_id])[0]
            assert re.findall(r"<passage[^>]*?(\d+)", after)[-1] == number
    assert set(refused.responses) == {NOT_FOUND}
    assert all(text in refused.forms[0][-1]["content"] for text in TEXTS.values())


def test_a_held_out_answer_asks_for_the_passages_that_it_cites() -> None:
    none = EXAMPLE_SCHEMA.empty_table()
    test = pa.Table.from_pylist([*ROWS, ANSWERED, REFUSED], EXAMPLE_SCHEMA)
    header = DatasetHeader.model_construct(name="n", digest="0" * 64)
    collection = held_out_answers(TrainingSet(header, {"train": none, "validation": none, "test": test}))
    assert collection
    [question] = collection.questions
    assert question.text == "How deep is the lake?"
    assert question.gold == ("c2", "c0")
    assert question.ideal == ("The lake is 2 m deep. And 0 m.",)
