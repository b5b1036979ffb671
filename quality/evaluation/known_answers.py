"""Whether one answer is right, by what is known of the answer to its question."""

from dataclasses import dataclass

from common.citation_markers import strip_citation_markers
from quality.evaluation.answer_collection import AnswerQuestion
from quality.evaluation.answer_evaluation import JudgedAnswer
from quality.evaluation.answer_metrics import contains_every_part, supported_share


@dataclass(frozen=True)
class AnswerVerdict:
    """Whether an answer is right, and why, in words that hold nothing of question or answer."""

    right: bool
    reason: str


def judge_by_known_answer(question: AnswerQuestion, answer: JudgedAnswer) -> AnswerVerdict | None:
    """Returns whether an answer is right; None where what is known does not decide.

    Right is a refusal where nothing answers the question, and else an answer that holds an accepted form of
    every part of the exact answer, has quotes that support each of its sentences and, where documents that
    answer are known, cites one of them. An ideal answer decides nothing: other words may be as good. A reply
    that was cut off or withheld is neither.

    Args:
        question: The question with what is known.
        answer: The answer; `cited` names documents as `question.gold` does.
    """
    if not answer.refused and not answer.text:
        return None
    if not question.answerable:
        said = "it refuses what nothing answers" if answer.refused else "it answers what nothing answers"
        return AnswerVerdict(answer.refused, said)
    if not question.exact:
        return None
    if answer.refused:
        return AnswerVerdict(False, "it refuses a question that has an answer")
    if not contains_every_part(strip_citation_markers(answer.text), question.exact):
        return AnswerVerdict(False, "it lacks a part of the known answer")
    if question.gold and not set(answer.cited) & set(question.gold):
        return AnswerVerdict(False, "it cites none of the documents that are known to answer")
    if supported_share(answer.text, answer.quotes) < 1:
        return AnswerVerdict(False, "it says what no quote of it supports")
    return AnswerVerdict(True, "it holds every part of the known answer")
