"""Right answers to judged questions, as examples."""

from collections.abc import Iterator, Sequence

import pytest

from inference.engines.protocol import EnginePrompt, EngineReply, answer_each
from inference.prompting.prompt_assembly import NOT_FOUND
from inference.prompting.types import Draft, Passage, Quote
from training.generator.judged_questions import (
    AnsweredQuestion,
    LearnedPassage,
    answer_judged_question,
    describe_answered,
    judged_examples,
)


def passage(doc_id: str, text: str, start: int = 0) -> LearnedPassage:
    return LearnedPassage(
        text=text, title=None, heading=None, doc_id=doc_id, char_start=start, char_end=start + len(text)
    )


def answered(number: int) -> AnsweredQuestion:
    about = [passage(f"d{number}", f"River {number} is long.")]
    about.append(passage(f"d{number}", f"Its {number} trout are known.", 900))
    others = [passage(f"o{number}-{each}", f"Lake {number} has {each} islands.") for each in range(4)]
    return AnsweredQuestion(
        name=f"q{number}",
        question=f"what of river {number}?",
        outcome="right",
        answer=f"River {number} is long. [1] Its {number} trout are known. [2]",
        cited=about,
        others=others,
    )


def test_an_answer_cites_the_judged_passages_by_their_places_in_the_prompt_or_is_a_refusal() -> None:
    splits = judged_examples([answered(number) for number in range(60)])
    examples = [*splits.train, *splits.validation, *splits.test]
    assert len(examples) == 60
    refusals, places = 0, set()
    for example in examples:
        number = example.name.removeprefix("q")
        for messages, response in zip(example.forms, example.responses, strict=True):
            prompt = messages[-1]["content"]
            if response == NOT_FOUND:
                assert f"River {number} is" not in prompt
                assert "trout" not in prompt
                assert prompt.count("<passage") <= 4
                continue
            cited = {text: prompt.split(text)[0].count("<passage") for text in response_texts(number)}
            assert response == " ".join(f"{text} [{place}]" for text, place in cited.items())
            places.add(tuple(cited.values()))
        refusals += example.responses[0] == NOT_FOUND
        if example.responses[0] != NOT_FOUND:
            assert example.forms[0][-1]["content"].count("<passage") == 4
            assert example.forms[-1][-1]["content"].count("<passage") == 2, "those that it cites come alone"
    assert 5 <= refusals <= 20, "one in five"
    assert len(places) > 6


def response_texts(number: str) -> tuple[str, str]:
    return f"River {number} is long.", f"Its {number} trout are known."


def test_equal_questions_are_held_out_together_and_so_whatever_else_is_asked() -> None:
    twice = answered(3).model_copy(update={"name": "again"})
    splits = judged_examples([*(answered(number) for number in range(40)), twice])
    held = [{each.name for each in part} for part in (splits.validation, splits.test)]
    assert [len(part - {"again"}) for part in held] == [4, 4]
    assert not held[0] & held[1]
    for part in (splits.train, splits.validation, splits.test):
        names = {each.name for each in part}
        assert ("q3" in names) == ("again" in names)
    again = judged_examples([twice, *(answered(number) for number in reversed(range(40)))])
    assert {each.name for each in again.validation} == held[0]


def test_questions_whose_answers_cite_one_document_are_held_out_together() -> None:
    asked = [answered(number) for number in range(40)]
    same = [
        each.model_copy(update={"name": f"{each.name} also", "question": f"And {each.name}?"})
        for each in asked
    ]
    splits = judged_examples([*asked, *same])
    sides = [
        {each.name.split()[0] for each in part} for part in (splits.train, splits.validation, splits.test)
    ]
    assert sum(map(len, sides)) == 40
    assert [len(part) for part in (splits.validation, splits.test)] == [8, 8]


class _Quoting:
    """An engine that quotes the first words of some passages."""

    name, digest = "quoting", "1"

    def __init__(self, quoted: Sequence[int]) -> None:
        self._quoted = quoted

    def answer_many(self, prompts: Sequence[EnginePrompt]) -> Iterator[EngineReply]:
        return answer_each(self, prompts)

    def answer(self, question: str, passages: Sequence[Passage]) -> Draft:
        text = " ".join(f"{passages[each].text} [{n}]" for n, each in enumerate(self._quoted, 1))
        quotes = tuple(Quote(each, 0, len(passages[each].text)) for each in self._quoted)
        return Draft(text, quotes, outcome="answered" if quotes else "refused")


@pytest.mark.parametrize(
    ("quoted", "outcome", "answer"),
    [
        ((1,), "right", "Rivers flow. [1]"),
        ((1, 1), "right", "Rivers flow. [1] Rivers flow. [1]"),
        ((2, 1), "right", "They end at sea. [1] Rivers flow. [2]"),
        ((0,), "cites_others", ""),
        ((1, 0), "cites_others", ""),
        ((), "refused", ""),
        ((3,), "ambiguous", ""),
    ],
)
def test_an_answer_is_right_that_cites_judged_passages_alone(
    quoted: tuple[int, ...], outcome: str, answer: str
) -> None:
    found = [
        passage("other", "Lakes rest."),
        passage("judged", "Rivers flow."),
        passage("judged", "They end at sea.", 500),
        passage("judged", "As shown [12].", 900),
    ]
    made = answer_judged_question("q", "what do rivers do?", {"judged"}, found, _Quoting(quoted))
    assert (made.outcome, made.answer) == (outcome, answer)
    if outcome == "right":
        assert [each.text for each in made.cited] == [found[each].text for each in dict.fromkeys(quoted)]
        assert [each.doc_id for each in made.others] == ["other"]
    assert AnsweredQuestion.model_validate_json(made.model_dump_json()) == made


def test_a_question_whose_documents_are_not_found_or_that_is_none_is_left_out_and_counted() -> None:
    found = [passage("other", "Lakes rest.")]
    lost = answer_judged_question("q", "what do rivers do?", {"judged"}, found, _Quoting((0,)))
    none = answer_judged_question("q", "? !", {"other"}, found, _Quoting((0,)))
    assert [lost.outcome, none.outcome] == ["not_found", "no_question"]
    assert describe_answered([answered(1), lost, none]) == (
        "answered right: 1 of 3 judged questions; left out: 1 whose judged documents no search finds, "
        "1 too long or without words"
    )
