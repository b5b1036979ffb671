"""The query language, and the passages it asks for."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.search.query import InvalidQuery, Query, literal


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("plain words", Query("plain words")),
        ('"state of  the art" search', Query("state of the art search", ("state of the art",))),
        ("jaguar -car", Query("jaguar", without_words=("car",))),
        ('jaguar -"big cat"', Query("jaguar", without_phrases=("big cat",))),
        ("spark -delta-spark==4.4.1", Query("spark", without_phrases=("delta-spark==4.4.1",))),
        ("犬 -山川", Query("犬", without_phrases=("山川",))),
        ("“typographic quotes”", Query("typographic quotes", ("typographic quotes",))),
        # Options, numbers, compounds and dashes are no exclusions.
        ("ls -l --all -5 well-known - it", Query("ls -l --all -5 well-known - it")),
        ("a-b -- c", Query("a-b -- c")),
        ('an open "quote', Query("an open quote")),
        ('empty "" and " ? "', Query("empty and")),
        ("cafe\u0301", Query("caf\u00e9")),
        ("  ", Query("")),
    ],
)
def test_a_query_is_read_as_it_is_meant(text: str, query: Query) -> None:
    assert Query.parse(text) == query


@pytest.mark.parametrize("text", ["-car", '-"big cat"', "-car -std::vector"])
def test_a_query_that_looks_for_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidQuery, match="only says what to leave out"):
        Query.parse(text)


def test_every_character_of_a_question_is_meant() -> None:
    question = 'What does "nonlocal" do -really?'
    assert Query.plain(question) == Query(question)
    assert not Query.plain(question).restricted


@given(st.text(max_size=200))
def test_any_text_is_a_query_or_is_refused_as_one(text: str) -> None:
    try:
        query = Query.parse(text)
    except InvalidQuery:
        return
    for phrase in (*query.phrases, *query.without_phrases):
        re.compile(literal(phrase))


@given(st.text(max_size=60).map(lambda text: " ".join(text.split())).filter(lambda t: re.search(r"\w", t)))
def test_a_passage_is_found_in_itself(passage: str) -> None:
    assert re.search(literal(passage), f"... {passage} ...")


@pytest.mark.parametrize(
    ("phrase", "text", "there"),
    [
        ("the art", "state-of-the-art", True),
        ("the art", "the\n*art*", True),
        ("the art", "the party", False),
        ("the art", "the artful", False),
        ("4.4.0", "14.4.0", False),
        ("4.4.0", "4x4x0", False),
        ("std::vector", "a std::vector<int>", True),
        ("don't", "don\u2019t", True),
        ("京都", "東京都の", True),
        ("c++", "in C++.", True),
    ],
)
def test_a_passage_is_found_where_it_stands(phrase: str, text: str, there: bool) -> None:
    assert bool(re.search(literal(phrase), text, re.IGNORECASE)) is there
