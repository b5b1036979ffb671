import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, RR, calc_aggregate

from common.citation_markers import strip_citation_markers
from quality.evaluation.answer_metrics import (
    answer_words,
    average_precision,
    citation_precision,
    citation_recall,
    contains_any_part,
    contains_every_part,
    contains_form,
    reciprocal_rank,
    supported_share,
    token_f1,
)

TEXTS = st.text(alphabet="ab c,.-7é[1]\n", max_size=40)
RANKED = st.lists(st.tuples(st.floats(-1, 1), st.booleans()), min_size=1, max_size=30).filter(
    lambda rows: any(relevant for _, relevant in rows)
)


def test_a_form_is_contained_by_whole_words_whatever_their_case_and_signs() -> None:
    assert contains_form("The PD-L1 status of patients.", "pd-l1 Status")
    assert not contains_form("It was 2015.", "5")
    assert not contains_form("Status of PD-L1", "PD-L1 status")
    assert contains_form("Use the % sign", "%")
    assert not contains_form("anything", " ")


@given(TEXTS, TEXTS, TEXTS)
def test_a_text_contains_itself_between_other_words(before: str, form: str, after: str) -> None:
    if answer_words(form):
        assert contains_form(f"{before} {form} {after}", form)


def test_any_part_is_enough_for_one_measure_and_none_may_lack_for_the_other() -> None:
    parts = [["Tampa", "Tampa, Florida"], ["2021"]]
    assert contains_any_part("in tampa", parts)
    assert not contains_every_part("in tampa", parts)
    assert contains_every_part("Tampa, 2021", parts)
    assert not contains_any_part("Tampa", [])
    assert not contains_every_part("Tampa", [])


def test_token_f1_is_squads() -> None:
    assert token_f1("the black forest", ["Black Forest!"]) == 1.0
    assert token_f1("rises in the Black Forest", ["Black Forest", "other"]) == pytest.approx(2 * 2 / 6)
    assert token_f1("", ["Black Forest"]) == 0.0
    assert token_f1("anything", []) == 0.0


@given(TEXTS, TEXTS)
def test_token_f1_is_symmetric_and_a_share(one: str, other: str) -> None:
    assert token_f1(one, [other]) == token_f1(other, [one])
    assert 0 <= token_f1(one, [other]) <= 1


def test_citations_are_counted_once_each() -> None:
    assert citation_precision(["a", "a", "b"], ["a", "c"]) == 0.5
    assert citation_recall(["a", "a", "b"], ["a", "c"]) == 0.5
    assert math.isnan(citation_precision([], ["a"]))
    assert math.isnan(citation_recall(["a"], []))


def test_each_sentence_of_an_answer_is_supported_by_one_quote() -> None:
    answer = "The Danube rises in Germany. [1] Bread is baked from flour. [2]"
    quotes = ["In Germany the Danube rises.", "Bread is made of rye."]
    assert supported_share(answer, quotes) == 0.5
    assert supported_share(answer, ["Bread is baked from flour. The Danube rises in Germany."]) == 1.0
    assert supported_share(answer, []) == 0.0
    assert supported_share("Yes. The limit is 900 jobs [1].", ["The limit is 500 jobs."]) == 0.0
    assert math.isnan(supported_share("", []))


def test_markers_are_no_words_of_the_answer() -> None:
    assert strip_citation_markers("It rises there [1] and [2, 3].") == "It rises there and."


@given(RANKED)
def test_ranking_measures_are_those_of_ir_measures(rows: list[tuple[float, bool]]) -> None:
    scores = [score + 10 * place for place, (score, _) in enumerate(rows)]
    relevant = [each for _, each in rows]
    qrels = {"q": {str(place): int(each) for place, each in enumerate(relevant)}}
    run = {"q": {str(place): score for place, score in enumerate(scores)}}
    expected = calc_aggregate([AP, RR], qrels, run)
    assert average_precision(scores, relevant) == pytest.approx(expected[AP])
    assert reciprocal_rank(scores, relevant) == pytest.approx(expected[RR])


def test_tied_candidates_keep_their_order() -> None:
    assert average_precision([1, 1, 1], [False, True, True]) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert reciprocal_rank([0, 0], [False, True]) == 0.5


@pytest.mark.parametrize(("scores", "relevant"), [([1.0], [False]), ([1.0], [True, True]), ([], [])])
def test_without_a_relevant_candidate_there_is_no_order_to_measure(
    scores: list[float], relevant: list[bool]
) -> None:
    with pytest.raises(ValueError, match="candidates"):
        average_precision(scores, relevant)
