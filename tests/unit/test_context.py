from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.prompting.prompt_assembly import (
    PromptConfig,
    assemble_prompt_passages,
    count_passages,
    distinct_passages,
    estimate_prompt_tokens,
    passage_source_line,
)
from retrieval.chunking.chunker import ChunkerConfig, load_chunk_tokenizer, split_into_chunks
from retrieval.embedding.config import packaged_embedding_model

TOKENIZER = load_chunk_tokenizer(packaged_embedding_model() / "tokenizer.json")


@dataclass
class Passage:
    text: str
    doc_id: str = "d"
    char_start: int = 0
    title: str | None = None
    heading: str | None = None

    @property
    def char_end(self) -> int:
        return self.char_start + len(self.text)


def apart(*texts: str) -> list[Passage]:
    return [Passage(text, doc_id=str(i)) for i, text in enumerate(texts)]


words = st.sampled_from(["river", "rises", "hill", "sea", "7", "not", "é", "世界", "falls", "😀"])
gaps = st.sampled_from([" ", " ", " ", "\n", "\n\n", ". ", ".\n\n    ", "", "\n\n\n"])
documents = st.lists(st.tuples(words, gaps), min_size=1, max_size=120).map(
    lambda pairs: "".join(word + gap for word, gap in pairs).strip()
)


@st.composite
def retrieved(draw: st.DrawFn) -> tuple[list[str], list[Passage]]:
    """Documents, and chunks of them in any order, as a search would return them."""
    texts = draw(st.lists(documents, min_size=1, max_size=3))
    config = ChunkerConfig(max_tokens=12, min_tokens=3)
    chunks = [
        Passage(text[piece.char_start : piece.char_end], str(number), piece.char_start, *titles)
        for number, text in enumerate(texts)
        for titles in [draw(st.sampled_from([(None, None), ("A title", "A > B")]))]
        for piece in split_into_chunks(text, [], TOKENIZER, config)
    ]
    return texts, draw(st.permutations(chunks))[: draw(st.integers(1, 12))]


configs = st.builds(
    PromptConfig, max_tokens=st.integers(1, 400), diversity=st.floats(0, 1), same=st.floats(0.1, 1)
)


@settings(max_examples=200, deadline=None)
@given(found=retrieved(), config=configs)
def test_spans_are_exact_the_budget_is_kept_and_nothing_is_invented(
    found: tuple[list[str], list[Passage]], config: PromptConfig
) -> None:
    texts, passages = found
    context = assemble_prompt_passages(passages, config)
    members = [i for shown in context for i in shown.members]
    assert len(set(members)) == len(members)
    assert set(members) <= set(distinct_passages(passages, config.same))
    assert (
        sum(estimate_prompt_tokens(p.text) + estimate_prompt_tokens(passage_source_line(p)) for p in context)
        <= config.max_tokens
    )
    for shown in context:
        parts = [passages[i] for i in shown.members]
        assert {part.doc_id for part in parts} == {parts[0].doc_id}
        document = texts[int(parts[0].doc_id)]
        assert (shown.char_start, shown.char_end) == (parts[0].char_start, parts[-1].char_end)
        assert len(shown.text) == shown.char_end - shown.char_start
        whole = document[shown.char_start : shown.char_end]
        assert all(a == b or (a == "\n" and b.isspace()) for a, b in zip(shown.text, whole, strict=True))
        for part in parts:
            start = part.char_start - shown.char_start
            assert shown.text[start : start + len(part.text)] == part.text
        assert (shown.title, shown.heading) == (parts[0].title, parts[0].heading)


@settings(max_examples=200, deadline=None)
@given(found=retrieved(), config=configs)
def test_neighbours_are_never_shown_apart_and_the_best_are_at_the_edges(
    found: tuple[list[str], list[Passage]], config: PromptConfig
) -> None:
    _, passages = found
    context = assemble_prompt_passages(passages, config)
    ends = {(passages[p.members[0]].doc_id, p.char_end) for p in context}
    assert not any((passages[p.members[0]].doc_id, p.char_start) in ends for p in context)
    best = [min(shown.members) for shown in context]
    inwards = [best[i // 2] if i % 2 == 0 else best[-1 - i // 2] for i in range(len(best))]
    assert inwards == sorted(best)


@settings(max_examples=100, deadline=None)
@given(found=retrieved())
def test_with_room_for_all_every_distinct_chunk_is_shown(found: tuple[list[str], list[Passage]]) -> None:
    _, passages = found
    shown = {
        i for p in assemble_prompt_passages(passages, PromptConfig(max_tokens=100_000)) for i in p.members
    }
    assert shown == set(distinct_passages(passages))


def test_the_best_is_first_the_second_last_and_the_worst_in_the_middle() -> None:
    passages = apart("one fish", "two birds", "three cats", "four dogs", "five cows")
    assert [p.members for p in assemble_prompt_passages(passages, PromptConfig())] == [
        (0,),
        (2,),
        (4,),
        (3,),
        (1,),
    ]


def test_in_the_order_that_shares_what_most_prompts_have_comes_first_and_the_rest_as_it_would() -> None:
    fish, birds, cats, dogs, cows = apart("one fish", "two birds", "three cats", "four dogs", "five cows")
    batch = [("key", [fish, birds, cats, dogs]), ("key", [cows, dogs, birds]), ("key", [dogs, cats])]
    counts = count_passages([*batch, ("other", [cows, cows, fish]), (None, [cows]), (None, [cows])])
    config = PromptConfig(order="shared")
    shown = [
        [each.text.split()[1] for each in assemble_prompt_passages(found, config, counts=counts[str(key)])]
        for key, found in batch
    ]
    assert shown == [["dogs", "birds", "cats", "fish"], ["dogs", "birds", "cows"], ["dogs", "cats"]]
    assert counts.keys() == {"key", "other"}
    alone = count_passages([("key", [fish, birds, cats])])["key"]
    assert assemble_prompt_passages([fish, birds, cats], config, counts=alone) == assemble_prompt_passages(
        [fish, birds, cats], PromptConfig()
    )


def test_neighbours_become_one_passage_and_what_is_between_keeps_others_apart() -> None:
    text = "First part.\n\nSecond part.\n\nThird part that was not found.\n\nFourth."
    found = [
        Passage(part, char_start=text.index(part)) for part in ("Second part.", "Fourth.", "First part.")
    ]
    context = assemble_prompt_passages(found, PromptConfig())
    assert [(p.members, p.text) for p in context] == [
        ((2, 0), "First part.\n\nSecond part."),
        ((1,), "Fourth."),
    ]
    assert text[context[0].char_start : context[0].char_end] == context[0].text


def test_the_same_span_of_two_documents_is_not_merged() -> None:
    assert len(assemble_prompt_passages([Passage("One.", "a"), Passage("Two.", "b", 5)], PromptConfig())) == 2


LICENCE = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software. "


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        (LICENCE * 3, [0]),
        (LICENCE.upper(), [0]),
        (LICENCE + "The dough must rest for an hour before it is baked in the oven.", [0, 1]),
        (LICENCE.replace("is hereby", "is not hereby"), [0, 1]),
        (LICENCE + "Until 2031.", [0, 1]),
        ("", [0, 1]),
    ],
)
def test_what_a_better_passage_says_already_is_left_out_and_what_differs_is_kept(
    second: str, kept: bool
) -> None:
    assert distinct_passages(apart(LICENCE * 4, second), same=0.8) == kept


def test_a_longer_passage_that_holds_a_better_one_is_kept() -> None:
    assert distinct_passages(
        apart(LICENCE, LICENCE + "The dough must rest for an hour before it is baked.")
    ) == [0, 1]


def test_when_not_all_fit_another_subject_is_preferred_to_more_of_the_same() -> None:
    passages = apart(
        "the river rises in the black hills and falls to the sea",
        "the river rises in the white hills and falls to the sea",
        "bread is baked from flour and water with salt and yeast",
    )
    room = 2 * (estimate_prompt_tokens(passages[0].text) + 12) + 3
    assert {
        p.members for p in assemble_prompt_passages(passages, PromptConfig(max_tokens=room, diversity=0.5))
    } == {
        (0,),
        (2,),
    }
    assert {
        p.members for p in assemble_prompt_passages(passages, PromptConfig(max_tokens=room, diversity=0))
    } == {
        (0,),
        (1,),
    }


def test_a_passage_that_is_too_long_leaves_room_for_those_that_fit() -> None:
    passages = apart("long " * 1000, "short and sweet")
    assert [p.members for p in assemble_prompt_passages(passages, PromptConfig(max_tokens=100))] == [(1,)]
    assert assemble_prompt_passages(passages, PromptConfig(max_tokens=5)) == []
    assert assemble_prompt_passages([], PromptConfig()) == []


@pytest.mark.parametrize("text", ["", "\n", "世" * 500, "x" * 10_000, "\ud800 lone"])
def test_odd_texts_are_shown_as_they_are(text: str) -> None:
    assert [p.text for p in assemble_prompt_passages([Passage(text)], PromptConfig(max_tokens=10**6))] == [
        text
    ]
