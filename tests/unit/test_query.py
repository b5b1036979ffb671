"""The query language, and the passages it asks for."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.search.query import InvalidSearchQuery, SearchQuery, phrase_regex


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("plain words", SearchQuery("plain words")),
        ('"state of  the art" search', SearchQuery("state of the art search", ("state of the art",))),
        ("jaguar -car", SearchQuery("jaguar", without_words=("car",))),
        ('jaguar -"big cat"', SearchQuery("jaguar", without_phrases=("big cat",))),
        ("spark -delta-spark==4.4.1", SearchQuery("spark", without_phrases=("delta-spark==4.4.1",))),
        ("犬 -山川", SearchQuery("犬", without_phrases=("山川",))),
        ("“typographic quotes”", SearchQuery("typographic quotes", ("typographic quotes",))),
        # Options, numbers, compounds and dashes are no exclusions.
        ("ls -l --all -5 well-known - it", SearchQuery("ls -l --all -5 well-known - it")),
        ("a-b -- c", SearchQuery("a-b -- c")),
        ('an open "quote', SearchQuery("an open quote")),
        ('empty "" and " ? "', SearchQuery("empty and")),
        ("cafe\u0301", SearchQuery("caf\u00e9")),
        ("  ", SearchQuery("")),
    ],
)
def test_a_query_is_read_as_it_is_meant(text: str, query: SearchQuery) -> None:
    assert SearchQuery.parse(text) == query


@pytest.mark.parametrize("text", ["-car", '-"big cat"', "-car -std::vector"])
def test_a_query_that_looks_for_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidSearchQuery, match="only says what to leave out"):
        SearchQuery.parse(text)


def test_every_character_of_a_question_is_meant() -> None:
    question = 'What does "nonlocal" do -really?'
    assert SearchQuery.plain(question) == SearchQuery(question)
    assert not SearchQuery.plain(question).restricted


@given(st.text(max_size=200))
def test_any_text_is_a_query_or_is_refused_as_one(text: str) -> None:
    try:
        query = SearchQuery.parse(text)
    except InvalidSearchQuery:
        return
    for phrase in (*query.phrases, *query.without_phrases):
        re.compile(phrase_regex(phrase))


@given(st.text(max_size=60).map(lambda text: " ".join(text.split())).filter(lambda t: re.search(r"\w", t)))
def test_a_passage_is_found_in_itself(passage: str) -> None:
    assert re.search(phrase_regex(passage), f"... {passage} ...")


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
    assert bool(re.search(phrase_regex(phrase), text, re.IGNORECASE)) is there


@pytest.mark.parametrize("read", [SearchQuery.plain, SearchQuery.parse])
def test_what_is_no_text_is_refused(read: Callable[[str], SearchQuery]) -> None:
    with pytest.raises(InvalidSearchQuery, match="write it in UTF-8"):
        read("what is \udcff it")
