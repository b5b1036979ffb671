"""Questions and instructions that rules make of a chunk's text."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.language.words import split_words
from training.datasets.drafts import DRAFT_SCHEMA, Draft, chunk_drafts, draft_batches

CHUNK_ID = "ab12cd34" * 8
TEXT = """Docker is a platform that runs programs in containers. It needs a kernel of Linux to work at all.
To install it on Debian, run apt install docker.io as the user root. The daemon listens on a socket that only
root may open, which is why most users add themselves to the group of the same name."""


def drafts(text: str, heading: str | None = "Guide > Installing", language: str = "en") -> list[Draft]:
    return list(chunk_drafts(CHUNK_ID, "Docker guide", heading, text, language))


def asked(text: str, kind: str = "retrieval_pair", **given: str) -> dict[str, Draft]:
    return {draft.query_kind: draft for draft in drafts(text, **given) if draft.kind == kind}


def batched(texts: list[str], sampled: bool = True) -> list[dict[str, str]]:
    columns = {"chunk_id": [f"{number:064x}" for number in range(len(texts))], "text": texts}
    columns |= {"title": ["Title"] * len(texts), "heading": ["A > B"] * len(texts)}
    batch = pa.record_batch(columns | {"language": ["en"] * len(texts), "sampled": [sampled] * len(texts)})
    return pa.Table.from_batches(draft_batches([batch]), DRAFT_SCHEMA).to_pylist()


def test_a_chunk_is_asked_for_in_four_ways() -> None:
    found = asked(TEXT)
    assert found["title"].question == "Guide Installing"
    assert found["natural"].question == "What is Docker?"
    assert set(found["keyword"].question.split()) < set(split_words(TEXT.casefold()))
    claim = found["claim"]
    assert claim.positive is not None
    assert claim.question in " ".join(TEXT.split())
    assert claim.question not in " ".join(claim.positive.split()), "its words are not the answer"


@pytest.mark.parametrize(
    ("sentence", "question"),
    [
        ("The kernel parameter is a number that the boot loader sets.", "What is the kernel parameter?"),
        ("Hooks are the scripts that Git runs before a commit.", "What are Hooks?"),
        ("To sign a commit, give the option -S and a key.", "How do you sign a commit?"),
    ],
)
def test_a_sentence_answers_a_natural_question(sentence: str, question: str) -> None:
    assert asked(sentence)["natural"].question == question
    definition = asked(sentence, "instruction")["definition"]
    assert (definition.question, definition.positive) == (question, sentence)


@pytest.mark.parametrize(
    "sentence", ["It is a tool for containers.", "There is a way to do it.", "This page is the start."]
)
def test_a_sentence_that_points_elsewhere_defines_nothing(sentence: str) -> None:
    assert "natural" not in asked(sentence)


def test_a_heading_that_asks_is_a_question_and_other_languages_get_no_english_ones() -> None:
    found = asked("Because the cache is stale, in most of the cases.", heading="FAQ > Why does it fail?")
    assert found["natural"].question == "Why does it fail?"
    german = drafts("Docker ist ein Programm, das Container ausführt und verwaltet.", language="de")
    assert {draft.query_kind for draft in german} <= {"title", "keyword", "claim"}


def test_marked_questions_and_answers_are_found_in_every_chunk() -> None:
    text = "Q: How do I stop it?\nA: Run systemctl stop docker.\n\nQ2: And start?\nA2: The same with start."
    found = batched([text], sampled=False)
    pairs = [(row["question"], row["positive"]) for row in found if row["kind"] == "instruction"]
    assert pairs == [
        ("How do I stop it?", "Run systemctl stop docker."),
        ("And start?", "The same with start."),
    ]
    assert {row["query_kind"] for row in found if row["kind"] == "retrieval_pair"} == {"natural"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), max_size=4))
def test_any_text_gives_drafts_that_name_their_chunk_and_the_same_each_time(texts: list[str]) -> None:
    found = batched(texts)
    assert found == batched(texts)
    for row in found:
        assert int(row["chunk_id"], 16) < len(texts)
        assert row["question"].strip()
        assert row["positive"] is None or row["positive"].strip()


def test_hostile_text_takes_no_time_worth_a_word() -> None:
    assert batched(["Q: " + "a\n" * 4000 + "?", "To " + "a" * 9000, "A " * 9000 + "is a?"]) is not None
