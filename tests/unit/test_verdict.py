"""Verdicts: what is shown, what is refuted, what the questions are too few for; and which verdict decides."""

from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quality.evaluation.answer_collection import AnswerQuestion
from quality.evaluation.engine_gate import EngineGate, decide_engine_release
from quality.evaluation.questions import Question
from quality.evaluation.verdict import (
    LOG_LIKELIHOOD,
    ComparedFigure,
    PairVerdict,
    Verdict,
    deciding_verdict,
    judge,
    paired_gains,
    question_set_digest,
)

GATE = EngineGate(tolerance=0.02)
gains = st.lists(st.floats(-1, 1), min_size=1, max_size=60).map(np.array)


def counted(lost: int, tied: int, won: int) -> np.ndarray:
    return np.repeat([-1.0, 0.0, 1.0], [lost, tied, won])


def outcome_of(*figures: np.ndarray) -> str:
    return judge([ComparedFigure(str(n), each, 0.02) for n, each in enumerate(figures)], "the other").outcome


def test_two_lost_of_five_are_not_decided_and_it_is_said_how_many_are_needed() -> None:
    verdict = decide_engine_release({"right": counted(2, 3, 0)}, GATE)
    assert verdict.outcome == "undecided"
    assert verdict.questions_needed is not None
    assert verdict.questions_needed > 1000
    assert f"5 questions, about {verdict.questions_needed:,} needed" in verdict.reason
    assert "--because" in verdict.reason


def test_ten_points_worse_at_fifty_questions_is_released_in_at_most_5_percent() -> None:
    drawn = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], (300, 50), p=[0.15, 0.8, 0.05])
    released = sum(decide_engine_release({"right": each}, GATE).released for each in drawn)
    assert released / 300 <= 0.05


def test_one_question_shows_nothing() -> None:
    gain = paired_gains({"right": np.ones(1)})["right"]
    assert gain.low < 0 < gain.difference
    assert gain.questions == 1
    assert decide_engine_release({"right": np.ones(1)}, GATE).outcome == "undecided"
    assert decide_engine_release({"right": -np.ones(1)}, GATE).outcome == "undecided"


def test_ties_only_are_released_at_the_number_that_is_said() -> None:
    few = decide_engine_release({"right": np.zeros(50)}, GATE)
    needed = few.questions_needed or 0
    assert decide_engine_release({"right": np.zeros(needed)}, GATE).outcome == "released"
    assert decide_engine_release({"right": np.zeros(needed - 1)}, GATE).outcome == "undecided"


def test_a_set_needs_what_its_scarcest_figure_lacks() -> None:
    by_itself = decide_engine_release({"right": np.zeros(10)}, GATE).questions_needed or 0
    verdict = decide_engine_release({"right": np.zeros(300), "refused_on_negative": np.zeros(10)}, GATE)
    assert verdict.questions_needed == 300 + by_itself - 10
    assert "right" not in verdict.reason, "that is shown"


def test_enough_questions_that_decide_nothing_ask_for_no_more() -> None:
    verdict = decide_engine_release({"right": np.full(4000, -0.02)}, GATE)
    assert (verdict.outcome, verdict.questions_needed) == ("undecided", None)


def test_what_has_to_be_better_and_is_as_good_is_not_decided_by_few_and_stays_so_with_enough() -> None:
    def decided(questions: int) -> Verdict:
        return judge([ComparedFigure("ndcg", np.zeros(questions), 0.02, better=True)], "the other")

    assert decided(5).outcome == decided(5000).outcome == "undecided"
    assert (decided(5).questions_needed, decided(5000).questions_needed) == (208, None)
    better = ComparedFigure("ndcg", np.full(220, 0.02), 0.02, better=True)
    assert judge([better], "the other").released


def test_what_is_worse_beyond_doubt_is_refused_and_named() -> None:
    verdict = decide_engine_release({"right": counted(40, 60, 0), "token_f1": np.zeros(100)}, GATE)
    assert verdict == Verdict("refused", "worse than the live engine: right -0.400")


@given(gains, st.data())
def test_a_better_answer_never_makes_the_verdict_worse(values: np.ndarray, data: st.DataObject) -> None:
    order = {"refused": 0, "undecided": 1, "released": 2}
    place = data.draw(st.integers(0, len(values) - 1))
    better = np.repeat(values, data.draw(st.integers(1, 20)))
    before = outcome_of(better)
    better[place] = data.draw(st.floats(better[place], 1))
    assert order[outcome_of(better)] >= order[before]


@given(st.lists(gains, min_size=1, max_size=4), gains)
def test_another_figure_never_helps_a_release(figures: list[np.ndarray], another: np.ndarray) -> None:
    if outcome_of(*figures) != "released":
        assert outcome_of(*figures, another) != "released"


def test_eight_figures_without_loss_are_refused_in_at_most_5_percent_and_one_with_is_not_released() -> None:
    random = np.random.default_rng(0)
    at_the_margin = random.choice([-1.0, 0.0, 1.0], (100, 8, 300), p=[0.11, 0.8, 0.09])
    outcomes = [outcome_of(*each) for each in at_the_margin]
    assert outcomes.count("refused") / 100 <= 0.05
    worse = random.choice([-1.0, 0.0, 1.0], (100, 300), p=[0.04, 0.96, 0.0])
    outcomes = [outcome_of(each, *np.zeros((7, 300))) for each in worse]
    assert outcomes.count("released") / 100 <= 0.05


def test_figures_without_ends_have_students_interval() -> None:
    found = paired_gains(
        {"words": np.array([10.0, 14.0]), LOG_LIKELIHOOD: np.array([2.0]), "right": np.zeros(0)}
    )
    assert list(found) == ["words"]
    assert found["words"].low < 0 < found["words"].high
    assert str(found["words"]).startswith("+12.000 [-13.4")
    far = ComparedFigure(LOG_LIKELIHOOD, np.array([-30.0, 4.0]), 0.02)
    assert far.gains.tolist() == [-1, 1]


def pair(number: int, outcome: str, asked: int, needed: int | None = None) -> PairVerdict:
    verdict = Verdict(outcome, "", needed)  # type: ignore[arg-type]
    at = datetime(2026, 1, number, tzinfo=UTC)
    return PairVerdict(f"set {number}", asked, verdict, "questions", at)


@pytest.mark.parametrize("first", ["released", "refused"])
def test_what_is_decided_stays_decided(first: str) -> None:
    verdicts = [pair(2, first, 300), pair(3, "released", 900)]
    decides = deciding_verdict(verdicts)
    assert decides == verdicts[0]
    assert (
        decides.overrules()
        == f"does not decide: it was {first}, decided on questions (set 2) at 2026-01-02 00:00 UTC"
    )
    assert deciding_verdict([]) is None


def test_too_few_questions_give_way_to_as_many_as_are_needed_and_to_no_other_set() -> None:
    few = pair(1, "undecided", 50, 208)
    tries = [few, *(pair(n, "released", 49 + n) for n in range(2, 9))]
    assert deciding_verdict(tries) == few
    assert "208 questions are needed" in few.overrules()
    enough = pair(9, "refused", 208)
    assert deciding_verdict([*tries, enough, pair(10, "released", 900)]) == enough
    unclear = pair(9, "undecided", 208)
    assert deciding_verdict([*tries, unclear, pair(10, "released", 900)]) == unclear


@given(st.lists(st.tuples(st.sampled_from(["released", "refused", "undecided"]), st.integers(1, 400))))
def test_a_decision_never_changes_by_what_comes_later(found: list[tuple[str, int]]) -> None:
    verdicts = [
        pair(n % 28 + 1, said, asked, 208 if asked < 208 else None) for n, (said, asked) in enumerate(found)
    ]
    decided = [deciding_verdict(verdicts[:end]) for end in range(1, len(verdicts) + 1)]
    for before, after in pairwise(decided):
        assert before is not None
        assert after is before or before.verdict.questions_needed is not None


def test_a_digest_is_of_the_questions_and_of_what_is_known_of_them() -> None:
    one, other = AnswerQuestion("When?", gold=("a",)), AnswerQuestion("Who\ud800?", exact=(("b", "c"),))
    digest = question_set_digest([one, other])
    assert digest == question_set_digest([other, one])
    assert len(digest) == 16
    for changed in ([one], [one, AnswerQuestion("Who?")], [AnswerQuestion("When?", gold=("b",)), other]):
        assert question_set_digest(changed) != digest
    asked = Question("When?", ("a",))
    assert question_set_digest([("acme", asked)]) != question_set_digest([("other", asked)])
