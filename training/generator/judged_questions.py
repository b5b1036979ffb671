"""What a generator learns from judged questions: the answers to them that cite judged passages alone.

The engine that quotes answers each question from passages of documents that were judged relevant and from
others that a search finds for it. An answer that cites only the judged ones is right, and is learned with a
prompt of these passages and others; the response to some prompts, which lack the judged ones, is a refusal.
"""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import Literal

from pydantic import BaseModel

from common.citation_markers import cited_numbers, renumber_citations
from inference.answering.answer import InvalidQuestion, answer_prompts, validate_question
from inference.engines.protocol import Engine, EngineError, EnginePrompt
from inference.prompting.prompt_assembly import NOT_FOUND
from inference.prompting.types import Draft, Passage
from quality.evaluation.answer_metrics import supported_share
from training.generator.examples import (
    PASSAGES,
    REFUSED_OF,
    WrittenExample,
    WrittenSplits,
    answered_example,
    split_examples,
    text_hash,
)

_JUDGED_PASSAGES = 3
"""Of the passages that the engine answers from, at most: as many as a prompt has, and one other of them."""

Outcome = Literal["right", "refused", "cites_others", "unsupported", "not_found", "ambiguous", "no_question"]
_LEFT_OUT: dict[Outcome, str] = {
    "refused": "refused",
    "cites_others": "answered from passages that are not judged",
    "unsupported": "answered with what no quote supports",
    "not_found": "whose judged documents no search finds",
    "ambiguous": "whose answer has numbers in brackets of its own",
    "no_question": "too long or without words",
}


class LearnedPassage(BaseModel, frozen=True):
    """A passage as `inference.prompting.types.Passage` has it."""

    text: str
    title: str | None
    heading: str | None
    doc_id: str
    char_start: int
    char_end: int


class AnsweredQuestion(BaseModel, frozen=True):
    """A judged question, and what the engine answered.

    Attributes:
        name: The question's id.
        question: The question.
        outcome: Whether the answer is right, and if not, why it is not learned.
        answer: The right answer, in which [n] is the nth of `cited`; empty without one.
        cited: The passages that it cites.
        others: Passages that were found of documents that are not judged, best first.
    """

    name: str
    question: str
    outcome: Outcome
    answer: str = ""
    cited: list[LearnedPassage] = []
    others: list[LearnedPassage] = []


def answer_judged_question(
    name: str, question: str, judged: Container[str], found: Sequence[Passage], engine: Engine
) -> AnsweredQuestion:
    """Returns what an engine answers to a judged question, and whether that is right.

    Args:
        name: The question's id.
        question: The question.
        judged: The ids of the documents that are judged relevant.
        found: Passages that a search found, best first, many more than are answered from.
        engine: An engine that quotes.

    Raises:
        EngineError: The engine fails.
    """
    right = [each for each in found if each.doc_id in judged][:_JUDGED_PASSAGES]
    others = [each for each in found if each.doc_id not in judged][:PASSAGES]
    if not right:
        return AnsweredQuestion(name=name, question=question, outcome="not_found")
    asked_from = [*right, *others[: PASSAGES - len(right)]]
    passages = [each for each in found if each in asked_from]
    try:
        asked = EnginePrompt(validate_question(question), passages)
    except InvalidQuestion:
        return AnsweredQuestion(name=name, question=question, outcome="no_question")
    [reply] = answer_prompts(engine, [asked])
    if reply.failure is not None:
        raise EngineError(f"at the question {question[:200]!r}: {reply.failure}")
    outcome = _outcome(reply.draft, passages, judged)
    if outcome != "right":
        return AnsweredQuestion(name=name, question=question, outcome=outcome)
    cited = list(dict.fromkeys(quote.passage for quote in reply.draft.quotes))
    numbers = {n: cited.index(quote.passage) + 1 for n, quote in enumerate(reply.draft.quotes, 1)}
    return AnsweredQuestion(
        name=name,
        question=question,
        outcome=outcome,
        answer=renumber_citations(reply.draft.text, numbers),
        cited=[_kept(passages[each]) for each in cited],
        others=[_kept(each) for each in others],
    )


def _outcome(draft: Draft, passages: Sequence[Passage], judged: Container[str]) -> Outcome:
    if draft.refused:
        return "refused"
    if any(passages[quote.passage].doc_id not in judged for quote in draft.quotes):
        return "cites_others"
    quotes = [passages[quote.passage].text[quote.start : quote.end] for quote in draft.quotes]
    if supported_share(draft.text, quotes) < 1:
        return "unsupported"
    numbered = cited_numbers(draft.text) == list(range(1, len(draft.quotes) + 1))
    return "right" if numbered else "ambiguous"


def _kept(passage: Passage) -> LearnedPassage:
    return LearnedPassage(**{name: getattr(passage, name) for name in LearnedPassage.model_fields})


def describe_answered(answered: Sequence[AnsweredQuestion]) -> str:
    """Returns in a sentence how many questions were answered right, and why others are left out."""
    counts = Counter(each.outcome for each in answered)
    left_out = [f"{counts[outcome]:,} {why}" for outcome, why in _LEFT_OUT.items() if counts[outcome]]
    said = f"; left out: {', '.join(left_out)}" if left_out else ""
    return f"answered right: {counts['right']:,} of {len(answered):,} judged questions{said}"


def judged_examples(answered: Iterable[AnsweredQuestion]) -> WrittenSplits:
    """Returns the right ones of answered questions as examples.

    Questions that are alike, or whose answers cite one document, stand on one side.
    """
    right = [(each, _example(each)) for each in answered if each.outcome == "right"]
    found = [(example, {cited.doc_id for cited in each.cited}) for each, example in right if example.forms]
    return split_examples([example for example, _ in found], [documents for _, documents in found])


def _example(answered: AnsweredQuestion) -> WrittenExample:
    name, question, others = answered.name, answered.question, answered.others
    if len(others) > 1 and text_hash(question) % REFUSED_OF == 0:
        return answered_example(name, question, NOT_FOUND, others)
    with_others = [*answered.cited, *others[: max(PASSAGES - len(answered.cited), 0)]]
    whole = answered_example(name, question, answered.answer, with_others)
    # Where not all fit, the passages that answer come alone.
    alone = answered_example(name, question, answered.answer, answered.cited)
    return WrittenExample(name, question, [*whole.forms, *alone.forms], [*whole.responses, *alone.responses])
