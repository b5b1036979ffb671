"""Evaluation questions: read from a file that people wrote, or made from sentences of the chunks."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

_SHORTEST_WORDS = 6
_LONGEST_WORDS = 20

SentenceSplitter = Callable[[str], list[tuple[int, int]]]
"""Takes a text; returns the `(start, end)` character span of each of its sentences."""


class BadQuestions(ValueError):
    """A file of questions can not be used; the message names the line."""


@dataclass(frozen=True)
class Question:
    """A question and the documents that answer it.

    Attributes:
        question: As a person would ask it.
        expected: URIs or ids of the documents, any of which is right.
    """

    question: str
    expected: tuple[str, ...]


def load_questions(path: Path) -> list[Question]:
    """Reads questions from JSON lines: `{"question": "…", "uri": "…"}`; `uri` may be a list, or be `doc_id`.

    Raises:
        BadQuestions: When the file is absent, empty, or a line is not such an object; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise BadQuestions(f"no questions file at {path}") from None
    except UnicodeDecodeError as error:
        raise BadQuestions(f"{path} is not UTF-8 text: {error}") from error
    questions = [
        _question(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not questions:
        raise BadQuestions(f"{path} holds no questions")
    return questions


def _question(line: str, where: str) -> Question:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadQuestions(f"{where}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadQuestions(f'{where}: expected an object such as {{"question": "…", "uri": "…"}}')
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise BadQuestions(f'{where}: "question" must be a text that is not empty')
    expected = row.get("uri", row.get("doc_id"))
    expected = [expected] if isinstance(expected, str) else expected
    if not isinstance(expected, list) or not expected or not all(isinstance(e, str) and e for e in expected):
        raise BadQuestions(f'{where}: "uri" (or "doc_id") must be a text or a list of texts')
    return Question(question.strip(), tuple(expected))


def known_item_questions(
    documents: Iterable[tuple[str, str]], limit: int, sentences: SentenceSplitter
) -> list[Question]:
    """Makes a question from each document: a sentence from the middle of one of its chunks.

    This is known-item search (Beitzel et al., 2003): weaker evidence than questions that people wrote, but
    enough to see an index that lost documents or whose vectors are wrong.

    Args:
        documents: `(doc_id, text of a chunk)`, one per document. Some chunks hold no sentence, so give more
            documents than questions are wanted.
        limit: The most questions.
        sentences: Splits a chunk's text into sentences.
    """
    questions: list[Question] = []
    for doc_id, text in documents:
        if len(questions) == limit:
            break
        if sentence := _middle_sentence(text, sentences):
            questions.append(Question(sentence, (doc_id,)))
    return questions


def _middle_sentence(text: str, sentences: SentenceSplitter) -> str | None:
    split = [" ".join(text[start:end].split()) for start, end in sentences(text)]
    usable = [sentence for sentence in split if len(sentence.split()) >= _SHORTEST_WORDS]
    return " ".join(usable[len(usable) // 2].split()[:_LONGEST_WORDS]) if usable else None
