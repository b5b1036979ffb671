"""Evaluation questions: from a file that people wrote, or made from sentences of chunks."""

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
        question: The question's text.
        expected: The URIs or ids of the documents that answer it; any of them is correct.
    """

    question: str
    expected: tuple[str, ...]


def load_questions(path: Path) -> list[Question]:
    """Returns the questions in a file of JSON lines: `{"question": "…", "uri": "…"}`.

    `uri` may be a list of URIs, and `doc_id` may be given instead.

    Raises:
        BadQuestions: The file is missing or empty, or a line is not such an object; the message names the
            line.
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
    """Returns questions made from documents: each is a sentence from the middle of a document's chunk.

    This is known-item search (Beitzel et al., 2003): weaker evidence than questions that people wrote, but
    enough to see an index that lost documents or whose vectors are wrong.

    Args:
        documents: `(doc_id, text of a chunk)`, one per document. Some chunks hold no sentence, so give more
            documents than questions are wanted.
        limit: The most questions.
        sentences: A function that splits a chunk's text into sentences.
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
