"""Whether an answer is right by a known one, and the numbers by which answers cite."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.training_sets.rated_answers import cite_by_place
from common.citation_markers import cited_numbers, renumber_citations
from quality.evaluation.answer_collection import AnswerQuestion
from quality.evaluation.answer_evaluation import JudgedAnswer
from quality.evaluation.known_answers import judge_by_known_answer

KNOWN = AnswerQuestion("How long?", exact=(("24 months", "two years"), ("purchase",)), gold=("d1",))
LASTS = ("The warranty lasts two years from purchase.",)
NOTHING = AnswerQuestion("How heavy?", answerable=False)


@pytest.mark.parametrize(
    ("question", "answer", "right"),
    [
        (KNOWN, JudgedAnswer("Two years from purchase. [1]", False, ("d1",), LASTS), True),
        (KNOWN, JudgedAnswer("Two years from purchase. [1]", False, ("d2",), LASTS), False),
        (KNOWN, JudgedAnswer("Not two years from purchase. [1]", False, ("d1",), LASTS), False),
        (KNOWN, JudgedAnswer("Two years. [1]", False, ("d1",)), False),
        (KNOWN, JudgedAnswer("No document says two years from purchase.", True), False),
        (NOTHING, JudgedAnswer("Nothing found.", True), True),
        (NOTHING, JudgedAnswer("", False), None),
        (KNOWN, JudgedAnswer("", False), None),
        (NOTHING, JudgedAnswer("Heavy. [1]", False, ("d1",)), False),
        (
            AnswerQuestion("多久?", exact=(("24个月",),)),
            JudgedAnswer("保修期为24个月。 [1]", False, ("d",), ("保修期为24个月。",)),
            True,
        ),
        (
            AnswerQuestion("Wo?", exact=(("Zu\u0308rich",),)),
            JudgedAnswer("In Zürich. [1]", False, ("d",), ("Es liegt in Zürich.",)),
            True,
        ),
        (AnswerQuestion("Why?", ideal=("Because.",)), JudgedAnswer("Because. [1]", False, ("d1",)), None),
    ],
)
def test_an_answer_is_right_where_all_that_is_known_of_it_holds(
    question: AnswerQuestion, answer: JudgedAnswer, right: bool | None
) -> None:
    verdict = judge_by_known_answer(question, answer)
    assert (verdict and verdict.right) == right


def test_citations_of_one_passage_become_its_place_and_stand_once() -> None:
    quoted = "It is long [1][2]. It is wide [3, 1]. It is [2] [1] old."
    assert cite_by_place(quoted, ["a", "a", "b"]) == "It is long [1]. It is wide [2][1]. It is [1] old."
    assert cite_by_place("See [12] there. [1]", ["a"]) is None
    assert cite_by_place("It cites nothing.", ["a"]) is None
    assert cite_by_place("Use argv[1]. [1]", ["a"], ["Use argv[1]."]) is None


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.data())
def test_numbers_come_back_as_they_were(numbers: list[int], data: st.DataObject) -> None:
    answer = " ".join(f"Words [{number}]." for number in numbers)
    distinct = cited_numbers(answer)
    assert distinct == list(dict.fromkeys(numbers))
    new = dict(zip(distinct, data.draw(st.permutations(range(50, 50 + len(distinct)))), strict=True))
    there = renumber_citations(answer, new)
    assert renumber_citations(there, {value: key for key, value in new.items()}) == answer
