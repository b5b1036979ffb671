"""Evaluation questions that people wrote, in a file."""

import json
from dataclasses import dataclass
from pathlib import Path


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
